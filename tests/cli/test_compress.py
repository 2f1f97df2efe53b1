import json
import os

import keras
import pytest

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
        assert "going on after stage 'post_training'" in again.err
        assert "post_training" in again.out
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
        ({"--metric": "acuracy"}, "`metric` must be 'accuracy', the name of a Keras metric"),
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
