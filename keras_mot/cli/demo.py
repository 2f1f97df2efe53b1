"""`keras-mot demo`: the whole way on a small data set, in seconds."""

import argparse
import json

from keras_mot.cli._files import output_folder
from keras_mot.cli._result import Result

_EPOCHS, _BATCH = 10, 32
_STAGES = {"prune": 8, "cluster": 2, "quantize_aware": 2}
"""Epochs of the stages."""
_TEST = 360
_FILES = ("digits.npz", "recipe.yaml", "report.json", "report.md", "run.json")


def add_parser(commands: argparse._SubParsersAction) -> None:
    """Adds the command to the parser."""
    parser = commands.add_parser(
        "demo",
        help="train a small network, compress it by a recipe, and show what was gained",
        description="Trains a small convolutional network on scikit-learn's 8x8 digits, runs a recipe on it (prune "
        "90 % of the weights, cluster the others to 16 values, quantize them to 8 bits, fine-tuning each time), "
        "exports each stage to LiteRT, and measures it in the runtime.",
        formatter_class=argparse.HelpFormatter,
    )
    parser.add_argument("--output", metavar="DIR", help="folder to keep the files in; without it, none are kept")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> Result:
    """Runs the command."""
    images, labels = _digits()
    from keras_mot.recipes.closing import closing_lines

    with output_folder(options.output, _FILES, "demo") as folder:
        result = _build(folder, images, labels)
        data = {"backend": _backend(), **result.to_dict(), "output_dir": options.output}
        (folder / "report.json").write_text(json.dumps(data, indent=2))
        names = sorted(file.name for file in folder.iterdir())
    # The files are moved when all is done: what is said of the last one would name a folder that is no more.
    lines = [str(result), *closing_lines(result)[:-1]]
    if options.output is None:
        return Result("\n".join([*lines, "Give --output DIR to keep the files."]), data)
    return Result("\n".join([*lines, f"Kept in {options.output}: {', '.join(names)}."]), {**data, "files": names})


def _backend():
    import keras

    return keras.backend.backend()


def _digits():
    from keras_mot.export.dependencies import check_installed

    check_installed("tensorflow", "ai_edge_litert", "sklearn", purpose="the demo")
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    return images.reshape(-1, 8, 8, 1).astype("float32") / 16.0, labels.astype("int32")


def _build(folder, images, labels):
    import keras
    import numpy as np

    import keras_mot
    from keras_mot.cli._training import trained
    from keras_mot.recipes import Cluster, FineTune, Prune, QuantizeAware, Recipe
    from keras_mot.recipes.objective import choose_objective
    from keras_mot.recipes.training_data import TrainingData

    keras.utils.set_random_seed(0)
    order = np.random.default_rng(0).permutation(len(images))
    train, test = order[:-_TEST], order[-_TEST:]
    parts = {
        "x_train": images[train],
        "y_train": labels[train],
        "x_test": images[test],
        "y_test": labels[test],
    }
    np.savez_compressed(folder / "digits.npz", **parts)
    model = _network(keras)
    data = TrainingData((images[train], labels[train]), None)
    objective = choose_objective(model, None, labels[train], model.predict_on_batch(images[train][:64]))
    trained(model, FineTune(_EPOCHS, 2e-3, batch_size=_BATCH), data, objective, "training")

    def epochs(stage, learning_rate):
        return FineTune(_STAGES[stage], learning_rate, schedule="cosine", batch_size=_BATCH)

    recipe = Recipe(
        [
            Prune(0.9, scope="model", frequency=20, fine_tune=epochs("prune", 2e-3)),
            Cluster(16, fine_tune=epochs("cluster", 2e-4)),
            QuantizeAware(fine_tune=epochs("quantize_aware", 2e-4)),
        ],
        "demo",
    )
    (folder / "recipe.yaml").write_text(recipe.to_yaml(), encoding="utf-8")
    return keras_mot.compress(
        model,
        recipe,
        (images[train], labels[train]),
        (images[test], labels[test]),
        output_dir=folder,
        latency_runs=200,
    )


def _network(keras):
    layers = keras.layers
    return keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            layers.Conv2D(32, 3, padding="same", activation="relu"),
            layers.Conv2D(64, 3, padding="same", activation="relu"),
            layers.MaxPooling2D(),
            layers.Flatten(),
            layers.Dropout(0.25),
            layers.Dense(128, activation="relu"),
            layers.Dropout(0.25),
            layers.Dense(10, activation="softmax"),
        ],
        name="digits",
    )
