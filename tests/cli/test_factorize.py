"""`keras-mot factorize` and `keras-mot sensitivity`: what they write and say, and what they refuse."""

import json

import keras
import pytest

FAST = ("--batch-size", 32, "--learning-rate", 0.001)


def test_layers_become_two(run, model, data, tmp_path):
    output = tmp_path / "small.keras"
    result = run("factorize", model, "--data", data, "--rank", 2, "--skip", "classes", *FAST, "-o", output, "--json")
    assert result.code == 0, result.err
    values = json.loads(result.out)
    (row,) = values["factorized"]
    assert row["ranks"] == [2]
    assert row["layer"].endswith("hidden")
    assert [item["reason"] for item in values["left_alone"]] == ["it is not selected"]
    names = [layer.name for layer in keras.models.load_model(output).layers][-3:]
    assert names == ["hidden_factor1", "hidden", "classes"]
    assert "fine-tuning: epoch 1/1" in result.err


def test_without_training(run, model, data, tmp_path):
    output = tmp_path / "small.keras"
    options = ("--parameters", 0.6, "--calibration-samples", 0, "--no-training", "-o", output)
    result = run("factorize", model, "--data", data, *options)
    assert result.code == 0, result.err
    assert "OutputChannels" in result.out
    assert "epoch" not in result.err
    assert keras.models.load_model(output).count_params() < keras.models.load_model(model).count_params()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--parameters", "2"], "`--parameters` should be from above 0 to below 1; received 2"),
        (["--energy", "0"], "`--energy` should be from above 0 to 1; received 0"),
        (["--rank", "many"], "invalid integer value"),
        (["--rank", "2", "--energy", "0.5"], "not allowed with argument"),
        (["--decomposition", "qr"], "invalid choice"),
        (["--rank", "100"], "No layer of"),
    ],
)
def test_refusals(run, model, data, tmp_path, options, message):
    result = run("factorize", model, "--data", data, *options, *FAST, "-o", tmp_path / "small.keras")
    assert result.code == 2
    assert message in result.err
    assert not (tmp_path / "small.keras").exists()


def test_sensitivity(run, model, data, tmp_path):
    options = ("--weight-bits", "8,3", "--sparsity", "0.5", "--samples", 64)
    result = run("sensitivity", model, "--data", data, *options, "--json")
    assert result.code == 0, result.err
    values = json.loads(result.out)
    assert values["samples"] == 64
    assert {(row["layer"], row["technique"], row["setting"]) for row in values["rows"]} == {
        (layer, technique, setting)
        for layer in ("hidden", "classes")
        for technique, setting in (("weight_bits", 8), ("weight_bits", 3), ("sparsity", 0.5))
    }
    losses = {(row["layer"], row["setting"]): row["loss"] for row in values["rows"]}
    assert losses["hidden", 3] > losses["hidden", 8]
    with_labels = run("sensitivity", model, "--data", data, *options, "--loss", "sparse_categorical_crossentropy")
    assert with_labels.code == 0, with_labels.err
    assert "increase of the loss" in with_labels.out


def test_sensitivity_refuses(run, model, data):
    for options, message in (
        (("--weight-bits", "1"), "`weight_bits` should be a tuple of integers from 2 to 16; received (1,)"),
        (("--sparsity", "half"), "invalid list of numbers value"),
        (("--estimate-below", 2), "should be from 0 to 1"),
        (("--plot", "picture.txt"), ".png"),
    ):
        result = run("sensitivity", model, "--data", data, *options)
        assert result.code == 2, result.err
        assert message in result.err
