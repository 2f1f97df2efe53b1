import json
import os

import keras
import numpy as np
import pytest

from keras_mot.export.litert.runner import LiteRTRunner
from keras_mot.recipes import PRESETS, Recipe

RECIPE = """\
name: short
stages:
  - prune: {sparsity: 0.5, fine_tune: {epochs: 1, batch_size: 16, learning_rate: 0.01}}
  - post_training: {calibration_samples: 32}
"""


@pytest.fixture
def recipe(tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_text(RECIPE)
    return path


def test_a_run_and_its_continuation(run, model, data, recipe, tmp_path):
    output = tmp_path / "files"
    arguments = ["compress", model, "--recipe", recipe, "--data", data, "-o", output]
    result = run(*arguments, "--json")
    assert result.code == 0, result.err
    values = json.loads(result.out)
    assert [stage["name"] for stage in values["stages"]] == ["float", "prune", "post_training"]
    assert values["samples"] == 64
    assert all(stage["metric"] > 0.7 for stage in values["stages"])
    for stage in values["stages"]:  # by the model's layers, in each file
        assert set(stage["values_of_kernels"]) == {"hidden/kernel", "classes/kernel"}
    names = ["00-float", "01-prune", "02-post_training"]
    expected = [f"{name}.{kind}" for name in names for kind in ("keras", "tflite")]
    assert sorted(os.listdir(output)) == [*expected, "report.json", "report.md", "run.json"]
    assert json.loads((output / "report.json").read_text()) == values
    assert "| post_training |" in (output / "report.md").read_text()
    if keras.backend.backend() == "tensorflow":
        assert run(*arguments, "--metric", "sparse_categorical_accuracy").code == 2  # another run
        again = run(*arguments)
        assert again.code == 0
        assert "all stages are done" in again.err
        assert "post_training" in again.out
        assert "Smallest zipped: " in again.out
        assert "Best: " in again.out
        assert f"The last file: {output / '02-post_training.tflite'}" in again.out
        assert run(*arguments, "--seed", 3).code == 2
        assert run(*arguments, "--seed", 3, "--restart").code == 0
        given = ["compress", output / "00-float.keras", *arguments[2:]]
        refused = run(*given, "--restart")
        assert refused.code == 2
        assert "`--restart` removes the files of the run" in refused.err
        assert (output / "00-float.keras").exists()


def test_showing_a_recipe(run):
    result = run("compress", "--show", "size")
    assert result.code == 0
    assert Recipe.from_yaml(result.out) == PRESETS["size"]


def test_listing_the_presets(run):
    result = run("compress", "--list")
    assert result.code == 0
    lines = result.out.splitlines()
    assert [line.split()[0] for line in lines] == list(PRESETS)  # each, once
    assert all(len(line.split(maxsplit=1)[1]) > 20 for line in lines)
    assert list(json.loads(run("compress", "--list", "--json").out)["presets"]) == list(PRESETS)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"--recipe": None}, "required: --recipe"),
        ({"--recipe": "sise"}, "no preset, and no file, 'sise'. Did you mean 'size'?"),
        ({"--data": "missing.npz"}, "missing.npz"),
        ({"--metric": "acuracy"}, "`metric` should be 'accuracy', the name of a Keras metric"),
        ({"--metric": "kind=f1"}, "the model has one: give one metric"),
        ({"--seed": 2**40}, "`seed` should be an integer from 0 to 2**32 - 1"),
        (
            {"--recipe": "float16", "--input-type": "int8"},
            "'float16' has no stage that quantizes",
        ),
        ({"--input-type": "int16"}, "`input_type` should be one of"),
        ({"--loss": "most_loss"}, "is not the name of a Keras loss"),
        ({"--show": "sise"}, "Did you mean 'size'?"),
        ({"model": "missing.keras"}, "missing.keras"),
    ],
)
def test_mistakes(changes, message, run, model, data, tmp_path):
    options = {"--recipe": "int8", "--data": data, "-o": tmp_path / "files", **changes}
    given = options.pop("model", model)
    flat = [item for option, value in options.items() if value is not None for item in (option, value)]
    result = run("compress", given, *flat)
    assert result.code == 2
    assert message in result.err
    assert not (tmp_path / "files").exists()


def test_a_recipe_file_with_a_mistake(run, model, data, recipe, tmp_path):
    recipe.write_text(RECIPE.replace("sparsity", "sparcity"))
    result = run("compress", model, "--recipe", recipe, "--data", data, "-o", tmp_path / "files")
    assert result.code == 2
    assert "recipe.yaml:3: stage 'prune' has no setting 'sparcity'. Did you mean 'sparsity'?" in result.err


def test_several_inputs_and_outputs_in_integers(run, tmp_path):
    keras.utils.set_random_seed(0)
    first, second = keras.Input((4,), name="z"), keras.Input((3,), name="a")
    hidden = keras.layers.Dense(8, "relu")(keras.layers.Concatenate()([first, second]))
    outputs = [keras.layers.Dense(3, "softmax", name="kind")(hidden), keras.layers.Dense(1, name="age")(hidden)]
    keras.Model([first, second], outputs).save(tmp_path / "both.keras")
    generator = np.random.default_rng(0)
    arrays = {
        "x_train/a": generator.standard_normal((40, 3)).astype("float32"),
        "x_train/z": generator.standard_normal((40, 4)).astype("float32"),
        "y_train/age": generator.standard_normal(40),
        "y_train/kind": generator.integers(0, 3, 40),
    }
    np.savez(tmp_path / "data.npz", **arrays)
    command = ["compress", tmp_path / "both.keras", "--recipe", "int8", "--data", tmp_path / "data.npz", "--json"]
    options = ["--metric", "kind=f1", "--metric", "age=rmse", "--loss", "age=mae", "--input-type", "int8", "--strict"]
    mixed = run(*command, "-o", tmp_path / "files", "--metric", "f1", "--metric", "age=rmse")
    assert mixed.code == 2
    assert "`--metric` is one NAME, or OUTPUT=NAME for each of several outputs" in mixed.err
    result = run(*command, "-o", tmp_path / "files", *options)
    assert result.code == 0, result.err
    values = json.loads(result.out)
    assert values["metric_name"] == "f1 of 'kind'"
    assert [list(stage["metrics"]) for stage in values["stages"]] == [["kind", "age"]] * 2
    runner = LiteRTRunner(tmp_path / "files" / values["stages"][1]["artifact"])
    assert [tensor.dtype for tensor in (*runner.inputs, *runner.outputs)] == ["int8", "int8", "float32", "float32"]
    assert "mae, as asked for for 'age'" in result.err
