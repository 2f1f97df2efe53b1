"""`keras-mot demo`: the whole way on a small data set, in seconds."""

import argparse
import json
import pathlib

from keras_mot.cli._errors import FailedError
from keras_mot.cli._files import output_folder
from keras_mot.cli._result import Result

_SPARSITY = 0.9
_EPOCHS, _PRUNING_EPOCHS, _BATCH = 10, 10, 32
_TEST = 360


def add_parser(commands: argparse._SubParsersAction, common: argparse.ArgumentParser) -> None:
    """Adds the command to the parser."""
    parser = commands.add_parser(
        "demo",
        parents=[common],
        help="train a small network, prune it to 90 %%, export it, and show what was gained",
        description="Trains a small convolutional network on scikit-learn's 8x8 digits, prunes it to 90 %% "
        "while fine-tuning, exports both to LiteRT, and measures them in the runtime.",
    )
    parser.add_argument("--output", metavar="DIR", help="folder to keep the files in; without it, none are kept")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> Result:
    """Runs the command."""
    images, labels = _digits()
    with output_folder(options.output) as folder:
        report = _build(folder, images, labels)
        data = _describe(report, options.output)
        (folder / "report.json").write_text(json.dumps(data, indent=2))
        names = sorted(file.name for file in folder.iterdir())
    if options.output is None:
        return Result(f"{report}\nGive --output DIR to keep the files.", data)
    return Result(f"{report}\nKept in {options.output}: {', '.join(names)}.", {**data, "files": names})


def _describe(report, output):
    """The report as JSON values, with the paths that the files will have."""
    import keras

    data = {"backend": keras.backend.backend(), "target_sparsity": _SPARSITY, **report.to_dict()}
    for row in data["measurements"]:
        row["path"] = None if output is None else str(pathlib.Path(output) / pathlib.Path(row["path"]).name)
    return data


def _digits():
    from keras_mot.export._dependencies import check_installed

    check_installed("tensorflow", "ai_edge_litert")
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise FailedError('The demo needs scikit-learn: pip install "keras-mot[demo]".') from error
    images, labels = load_digits(return_X_y=True)
    return images.reshape(-1, 8, 8, 1).astype("float32") / 16.0, labels.astype("int32")


def _build(folder, images, labels):
    import keras
    import numpy as np

    import keras_mot
    from keras_mot.cli._progress import say
    from keras_mot.cli._training import fit

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
    model.compile(keras.optimizers.Adam(2e-3), "sparse_categorical_crossentropy", metrics=["accuracy"])
    fit(model, images[train], labels[train], "training", epochs=_EPOCHS, batch_size=_BATCH)

    steps = -(-len(train) // _BATCH) * _PRUNING_EPOCHS
    schedule = keras_mot.sparsity.PolynomialDecay(0.5, _SPARSITY, begin_step=0, end_step=steps * 3 // 4, frequency=20)
    pruned = keras_mot.sparsity.prune_low_magnitude(model, schedule)
    pruned.compile(keras.optimizers.Adam(1e-3), "sparse_categorical_crossentropy", metrics=["accuracy"])
    fit(pruned, images[train], labels[train], "pruning", epochs=_PRUNING_EPOCHS, batch_size=_BATCH)
    small = keras_mot.sparsity.strip_pruning(pruned)

    model.save(folder / "float.keras")
    small.save(folder / "pruned.keras")
    say("exporting to LiteRT")
    checked = {"verification_data": images[test][:64]}
    export = keras_mot.export.export_litert
    files = {
        "float": export(model, folder / "float.tflite", sparse_encoding=False, **checked),
        "pruned": export(small, folder / "pruned.tflite", sparse_encoding=False, **checked),
    }
    sparse = export(small, folder / "pruned_sparse.tflite", **checked)
    if sparse.sparse_encoding:
        files["pruned, sparse encoding"] = sparse
    else:
        sparse.path.unlink()
        say(f"no sparse encoding: {sparse.sparse_reason}")
    data = (images[test], labels[test])
    return keras_mot.analysis.measure(files, data=data, latency_runs=200)


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
