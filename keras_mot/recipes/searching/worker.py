"""One trial of a search in a process of its own: `python -m keras_mot.recipes.searching.worker FOLDER NUMBER`."""

import json
import pathlib
import sys

MODEL, DATA, SETTINGS, RECIPE = "model.keras", "data.npz", "settings.json", "recipe.yaml"


def trial_folder(folder: pathlib.Path, number: int) -> pathlib.Path:
    """The folder of a trial."""
    return pathlib.Path(folder) / f"trial-{number:04d}"


def work(folder: str | pathlib.Path, number: int) -> None:
    """Runs a trial: reads model, data and settings in the folder of the search, and the recipe in the trial's.

    Args:
        folder: of the search.
        number: of the trial.

    Raises:
        ValueError, FloatingPointError, OSError: as `keras_mot.compress`.
    """
    import keras

    from keras_mot.recipes.compress import compress
    from keras_mot.recipes.searching.stored_data import load_data

    folder = pathlib.Path(folder)
    settings = json.loads((folder / SETTINGS).read_text())
    train, validation = load_data(folder / DATA)
    compress(
        keras.models.load_model(folder / MODEL),
        trial_folder(folder, number) / RECIPE,
        train,
        validation,
        output_dir=trial_folder(folder, number),
        progress=False,
        **settings,
    )


if __name__ == "__main__":
    work(sys.argv[1], int(sys.argv[2]))
