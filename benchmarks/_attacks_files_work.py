"""What the forked processes of `_attacks_files.py` do."""

import pathlib

_RECIPE = """\
name: tiny
stages:
  - prune: {sparsity: 0.5, fine_tune: {epochs: 1, batch_size: 32}}
  - post_training: {calibration_samples: 32}
"""
_OTHER_RECIPE = "name: other\nstages:\n  - store_weights: {weights: float16}\n"


def prepare():
    """Imports what the calls need, but computes nothing: what forks must have no threads at work."""
    import ai_edge_litert.interpreter  # noqa: F401
    import tensorflow  # noqa: F401

    import keras_mot
    from keras_mot.cli import main

    assert callable(main)
    assert keras_mot.compress
    assert keras_mot.export.export_litert
    assert keras_mot.analysis.measure


def make_inputs(folder):
    """A model, data and recipes."""
    import keras
    import numpy as np

    folder = pathlib.Path(folder)
    keras.utils.set_random_seed(0)
    layers = keras.layers
    model = keras.Sequential(
        [keras.Input((8,)), layers.Dense(64, activation="relu"), layers.Dense(3, activation="softmax")], name="tiny"
    )
    model.save(folder / "model.keras")
    generator = np.random.default_rng(0)
    labels = generator.integers(0, 3, 64)
    x = generator.standard_normal((64, 8)).astype("float32")
    x[np.arange(64), labels] += 4.0
    np.savez(folder / "data.npz", x_train=x, y_train=labels)
    (folder / "tiny.yaml").write_text(_RECIPE)
    (folder / "other.yaml").write_text(_OTHER_RECIPE)


def command(*arguments):
    """The command line."""
    from keras_mot.cli import main

    return main(list(arguments))


def write_again_and_again(folder):
    """Replaces a file, and goes through a run of stages that cost nothing, until it is killed."""
    from keras_mot._files import write_bytes
    from keras_mot.recipes.result import StageResult
    from keras_mot.recipes.run_folder import run_folder

    class Content:
        def __init__(self, number):
            self.number = number

        def save(self, path):
            path.write_bytes(bytes([self.number % 256]) * 20_000)

    folder, number = pathlib.Path(folder), 0
    names = ("float", "prune", "cluster")
    while True:
        number += 1
        write_bytes(folder / "file", bytes([number % 256]) * 100_000)
        with run_folder(folder / "run", {"recipe": "r"}, names, resume=number % 2 == 0) as run:
            for name in names[len(run.stages) :]:
                content = Content(number)
                checkpoint, file, _ = run.add(name, content, content.save)
                run.finish(StageResult(name, 0.5, 0.5, 1, 1, 1, 0.0, 1, {}, None, 0.0, file, checkpoint))


def write_to(kind, path, model):
    """Writes an export or a recipe."""
    import keras

    import keras_mot

    if kind == "recipe":
        keras_mot.recipes.PRESETS["size"].to_yaml(path)
    else:
        keras_mot.export.export_litert(keras.models.load_model(model), path)
