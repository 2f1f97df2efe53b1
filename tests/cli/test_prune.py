import importlib.util
import json
import math
import os
import types
import zipfile

import keras
import numpy as np
import pytest

import keras_mot
from keras_mot import _formats
from keras_mot.cli import _models, prune
from tests.cli.cli_models import build_model

FAST = ("--batch-size", 32, "--frequency", 2)


def _zeros(path):
    model = keras.models.load_model(path)
    kernels = {layer.name: keras.ops.convert_to_numpy(layer.kernel) for layer in model.layers}
    return {name: int((kernel == 0).sum()) for name, kernel in kernels.items()}


def test_keras_and_tflite(both_files, run, data):
    keras_file, tflite_file = both_files
    assert _zeros(keras_file) == {"hidden": 96, "classes": 48}
    assert keras_mot.analysis.sparsity(tflite_file) == 0.75
    model = keras.models.load_model(keras_file)
    assert [type(layer) for layer in model.layers] == [keras.layers.Dense] * 2
    with zipfile.ZipFile(keras_file) as archive:
        assert b"keras_mot" not in archive.read("config.json")
    assert sorted(os.listdir(keras_file.parent)) == ["small.keras", "small.tflite"]


def test_json_table_and_the_given_model(run, model, data, tmp_path):
    before = model.read_bytes()
    output = tmp_path / "small.keras"
    result = run("prune", model, "--data", data, "--sparsity", 0.5, *FAST, "-o", output, "--json")
    assert result.code == 0
    values = json.loads(result.out)
    assert values["files"] == [str(output)]
    assert values["evaluated_on"] == "x_test"
    assert values["loss"] == "sparse_categorical_crossentropy, from the saved model"
    assert values["training"]["sparsity"] == 0.5
    first, second = values["measurements"]
    assert (first["name"], first["sparsity"]) == ("before (.keras)", 0.0)
    assert (second["name"], second["sparsity"]) == ("after (.keras)", 0.5)
    assert 0.5 < second["metric"] <= 1.0
    assert "pruning: epoch 2/2" in result.err
    assert model.read_bytes() == before

    result = run("prune", model, "--data", data, "--sparsity", 0.5, *FAST, "-o", output)
    assert result.code == 0
    assert "after (.keras)" in result.out
    assert f"Wrote {output}." in result.out


def test_channels_are_cut_out(run, model, data, tmp_path):
    output = tmp_path / "small.keras"
    result = run("prune", model, "--data", data, "--sparsity", 0.5, "--channels", *FAST, "-o", output)
    assert result.code == 0
    before, after = keras.models.load_model(model), keras.models.load_model(output)
    shapes = [[tuple(layer.kernel.shape) for layer in each.layers if layer.weights] for each in (before, after)]
    (inputs, hidden), (_, classes) = shapes[0]
    assert shapes[1] == [(inputs, hidden // 2), (hidden // 2, classes)]


def test_channels_are_cut_out_before_the_training_in_multiples(run, model, data, tmp_path):
    output = tmp_path / "small.keras"
    options = ("--sparsity", 0.7, "--channels", "--round-to", 2, "--batch-size", 32)
    result = run("prune", model, "--data", data, *options, "-o", output)
    assert result.code == 0, result.err
    before, after = keras.models.load_model(model), keras.models.load_model(output)
    hidden = [each.get_layer("hidden").units for each in (before, after)]
    assert hidden[1] == math.ceil(0.3 * hidden[0] / 2) * 2


def test_the_seed_decides(run, model, data, tmp_path):
    weights = []
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        output = tmp_path / f"{name}.keras"
        assert run("prune", model, "--data", data, "--sparsity", 0.5, *FAST, "--seed", seed, "-o", output).code == 0
        weights.append(keras.models.load_model(output).get_weights())
    for a, b in zip(weights[0], weights[1], strict=True):
        np.testing.assert_array_equal(a, b)
    assert not np.array_equal(weights[0][0], weights[2][0])


@pytest.mark.parametrize(
    ("arguments", "zeros"),
    [
        (["--sparsity", "0.5", "--skip", "classes"], {"hidden": 64, "classes": 0}),
        (["--n-m", "3:4"], {"hidden": 96, "classes": 48}),
        (["--n-m", "2:4", "--sparsity", "0.5"], {"hidden": 64, "classes": 32}),
        (
            ["--sparsity", "0.75", "--block", "1x2", "--initial-sparsity", "0.25"],
            {"hidden": 96, "classes": 48},
        ),
        (["--sparsity", "0.5", "--epochs", "1", "--frequency", "1000"], {"hidden": 64, "classes": 32}),
    ],
)
def test_what_is_pruned(run, model, data, tmp_path, arguments, zeros):
    output = tmp_path / "small.keras"
    assert run("prune", model, "--data", data, *FAST, *arguments, "-o", output).code == 0
    assert _zeros(output) == zeros


def test_one_ranking_over_the_model(run, model, data, tmp_path):
    output = tmp_path / "small.keras"
    assert run("prune", model, "--data", data, *FAST, "--sparsity", "0.5", "--scope", "model", "-o", output).code == 0
    zeros = _zeros(output)
    assert sum(zeros.values()) == 96  # half of 128 + 64
    assert zeros["hidden"] != 64


def test_layers_that_were_skipped_are_named(run, model, data, tmp_path):
    arguments = ["--sparsity", "0.5", "--skip", "classes", "-o", tmp_path / "small.keras"]
    assert "Not pruned: classes/kernel (not selected)." in run("prune", model, "--data", data, *FAST, *arguments).out


@pytest.mark.parametrize(("command", "how"), [("prune", ("--sparsity", "0.5")), ("cluster", ("--clusters", "4"))])
def test_depthwise_kernels_are_taken_on_request(command, how, run, data, tmp_path):
    layers = keras.layers
    parts = [layers.Reshape((2, 2, 2)), layers.DepthwiseConv2D(2, name="depthwise"), layers.Flatten(), layers.Dense(4)]
    keras.Sequential([keras.Input((8,)), *parts]).save(tmp_path / "model.keras")
    arguments = (command, tmp_path / "model.keras", "--data", data, *FAST, *how, "-o", tmp_path / "small.keras")
    assert "depthwise/kernel (depthwise: few weights" in run(*arguments).out.replace("\n", " ")
    assert "depthwise/kernel" not in run(*arguments, "--include-depthwise").out


def test_without_test_arrays_it_says_so(run, model, arrays, tmp_path):
    np.savez(tmp_path / "data.npz", x_train=arrays["x_train"], y_train=arrays["y_train"])
    arguments = ["--data", tmp_path / "data.npz", "--sparsity", "0.5", "-o", tmp_path / "small.keras"]
    result = run("prune", model, *FAST, *arguments)
    assert result.code == 0
    assert "evaluating on the training data" in result.err


def test_uncompiled_model_gets_an_inferred_loss(run, data, tmp_path):
    build_model().save(tmp_path / "plain.keras")
    arguments = ["--data", data, "--sparsity", "0.5", "-o", tmp_path / "small.keras"]
    result = run("prune", tmp_path / "plain.keras", *FAST, *arguments)
    assert result.code == 0
    assert "loss: sparse_categorical_crossentropy, inferred from labels (classes) and output" in result.err


def test_a_loss_that_cannot_be_loaded_is_inferred(data, tmp_path):
    def own_loss(y_true, y_pred):
        return keras.losses.sparse_categorical_crossentropy(y_true, y_pred)

    build_model(optimizer="adam", loss=own_loss).save(tmp_path / "own.keras")
    assert not _models.load_model(tmp_path / "own.keras", compile=True).compiled


BAD = [
    ([], 2, "Give the sparsity to reach"),
    (["--sparsity", "1"], 2, "`--sparsity` should be in [0, 1)"),
    (["--sparsity", "-0.1"], 2, "`--sparsity` should be in [0, 1)"),
    (["--sparsity", "nan"], 2, "`--sparsity` should be in [0, 1)"),
    (["--sparsity", "most"], 2, "invalid float value"),
    (["--sparsity", "0.5", "--initial-sparsity", "0.8"], 2, "should not be above `--sparsity 0.5`"),
    (["--sparsity", "0.5", "--initial-sparsity", "-1"], 2, "`--initial-sparsity` should be in [0, 1)"),
    (["--sparsity", "0.9", "--n-m", "2:4"], 2, "`--n-m` fixes the sparsity at 0.5"),
    (["--initial-sparsity", "0.1", "--n-m", "2:4"], 2, "leave `--initial-sparsity` out"),
    (["--n-m", "4:4"], 2, "N should be smaller than M"),
    (["--n-m", "2/4"], 2, "two integers with a colon"),
    (["--n-m", "1:3"], 2, "Groups of 3 need a multiple of 3 inputs"),
    (["--n-m", "2:4", "--block", "1x2"], 2, "not allowed with argument"),
    (["--n-m", "2:4", "--channels"], 2, "not allowed with argument"),
    (["--sparsity", "0.5", "--round-to", "8"], 2, "give `--channels`, too"),
    (["--sparsity", "0.5", "--channels", "--round-to", "8", "--initial-sparsity", "0.1"], 2, "leave `--initial-spars"),
    (["--n-m", "2:4", "--scope", "model"], 2, "cannot go with `scope` 'model'"),
    (["--sparsity", "0.5", "--block", "2"], 2, "two positive integers"),
    (["--sparsity", "0.5", "--block", "0x2"], 2, "two positive integers"),
    (["--sparsity", "0.5", "--block", "9x1"], 2, "A block of 9x1 (inputs x outputs) is larger than"),
    (["--sparsity", "0.5", "--skip", "dense_7"], 2, "matches 'dense_7'"),
    (["--sparsity", "0.5", "--skip", "("], 2, "is not a regular expression"),
    (["--sparsity", "0.5", "--skip", "hidden|classes"], 2, "nothing to prune"),
    (["--sparsity", "0.5", "--epochs", "0"], 2, "should be greater than 0"),
    (["--sparsity", "0.5", "--batch-size", "2.5"], 2, "invalid integer value"),
    (["--sparsity", "0.5", "--learning-rate", "-1"], 2, "should be greater than 0"),
    (["--sparsity", "0.5", "--frequency", "0"], 2, "should be greater than 0"),
    (["--sparsity", "0.5", "--loss", "most_loss"], 2, "is not the name of a Keras loss"),
    (["--sparsity", "0.5", "--scope", "galaxy"], 2, "invalid choice"),
]


@pytest.fixture
def no_training(monkeypatch):
    def refuse(*args):
        raise AssertionError("the work has begun")

    monkeypatch.setattr(prune, "train_and_write", refuse)


@pytest.mark.usefixtures("no_training")
@pytest.mark.parametrize(("arguments", "code", "message"), BAD)
def test_bad_arguments(run, model, data, tmp_path, arguments, code, message):
    result = run("prune", model, "--data", data, *arguments, "-o", tmp_path / "small.keras")
    assert result.code == code
    assert message in result.err
    assert "Traceback" not in result.err
    assert result.out == ""
    assert os.listdir(tmp_path) == []


@pytest.mark.usefixtures("no_training")
@pytest.mark.parametrize(
    ("output", "message"),
    [
        ("small.h5", "should end in .keras or .tflite"),
        ("small", "should end in .keras or .tflite"),
        ("nowhere/small.keras", "does not exist: create it first"),
        (".", "is a folder; name a file"),
    ],
)
def test_bad_outputs(run, model, data, tmp_path, output, message):
    result = run("prune", model, "--data", data, "--sparsity", "0.5", "-o", tmp_path / output)
    assert result.code == 2
    assert message in result.err


@pytest.mark.usefixtures("no_training")
def test_the_given_model_is_not_overwritten(run, data, tmp_path):
    path = tmp_path / "model.keras"
    build_model().save(path)
    result = run("prune", path, "--data", data, "--sparsity", "0.5", "-o", path)
    assert result.code == 2
    assert "is the model itself" in result.err


@pytest.mark.usefixtures("no_training")
@pytest.mark.parametrize(("name", "content"), [("missing.keras", None), ("m.tflite", b"x"), ("m.keras", b"x")])
def test_bad_models(run, data, tmp_path, name, content):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    result = run("prune", tmp_path / name, "--data", data, "--sparsity", "0.5", "-o", tmp_path / "small.keras")
    assert result.code == 2
    assert name in result.err


@pytest.mark.usefixtures("no_training")
def test_bad_data(run, model, arrays, tmp_path):
    arguments = ["--sparsity", "0.5", "-o", tmp_path / "small.keras", "--data", tmp_path / "data.npz"]
    np.savez(tmp_path / "data.npz", images=arrays["x_train"])
    result = run("prune", model, *arguments)
    assert result.code == 2
    assert "lacks 'x_train', 'y_train'; it holds 'images'" in result.err
    np.savez(tmp_path / "data.npz", x_train=arrays["x_train"][:, :5], y_train=arrays["y_train"])
    result = run("prune", model, *arguments)
    assert result.code == 2
    assert "have shape (5,); the model takes (8,)" in result.err


@pytest.mark.usefixtures("no_training")
def test_model_in_the_middle_of_pruning(run, data, tmp_path):
    keras_mot.sparsity.prune_low_magnitude(build_model()).save(tmp_path / "half.keras")
    arguments = ["--data", data, "--sparsity", "0.5", "-o", tmp_path / "small.keras"]
    result = run("prune", tmp_path / "half.keras", *arguments)
    assert result.code == 2
    assert "in the middle of pruning" in result.err


@pytest.mark.usefixtures("no_training")
def test_model_that_is_broken_or_has_nothing_to_prune(run, data, tmp_path):
    arguments = ["--data", data, "--sparsity", "0.5", "-o", tmp_path / "small.keras"]
    broken = build_model()
    broken.layers[0].kernel.assign(np.full((8, 16), np.nan))
    broken.save(tmp_path / "broken.keras")
    result = run("prune", tmp_path / "broken.keras", *arguments)
    assert result.code == 2
    assert "contains NaN or infinite values" in result.err

    keras.Sequential([keras.Input((8,)), keras.layers.Softmax()]).save(tmp_path / "empty.keras")
    result = run("prune", tmp_path / "empty.keras", *arguments)
    assert result.code == 2
    assert "nothing to prune" in result.err


def test_diverging_training_writes_nothing(run, model, data, tmp_path):
    (tmp_path / "small.keras").write_text("older")
    arguments = ["--sparsity", "0.5", "--learning-rate", "1e38", "-o", tmp_path / "small.keras"]
    result = run("prune", model, "--data", data, *FAST, *arguments)
    assert result.code == 1
    assert "iverged" in result.err
    assert "Traceback" not in result.err
    assert (tmp_path / "small.keras").read_text() == "older"
    assert os.listdir(tmp_path) == ["small.keras"]


@pytest.mark.parametrize("failing", ["export of the pruned model", "measuring"])
def test_a_failure_after_the_training_leaves_neither_file(run, model, data, tmp_path, monkeypatch, failing):
    def export(given, path, **arguments):
        if failing != "measuring" and "before" not in path.name:
            assert any(name.endswith(".keras") for name in os.listdir(tmp_path))  # was saved already
            raise RuntimeError("the export broke down")
        path.write_bytes(b"a file")
        return types.SimpleNamespace(sparse_encoding=False, sparse_reason="of the test")

    def measure(*arguments, **options):
        raise RuntimeError("the measuring broke down")

    monkeypatch.setattr(_formats.DEFAULT.functions, "export", export)
    monkeypatch.setattr(keras_mot.analysis, "measure", measure)
    (tmp_path / "small.tflite").write_text("older")
    arguments = ["--sparsity", "0.5", "--epochs", 1, "--tflite", "-o", tmp_path / "small.keras"]
    result = run("prune", model, "--data", data, *FAST, *arguments)
    assert result.code == 1
    assert "broke down" in result.err
    assert os.listdir(tmp_path) == ["small.tflite"]
    assert (tmp_path / "small.tflite").read_text() == "older"


def test_a_missing_runtime_is_told_before_the_work(run, model, data, tmp_path, monkeypatch, no_training):
    plain = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util,
        "find_spec",
        lambda name: None if name == "ai_edge_litert" else plain(name),
    )
    result = run("prune", model, "--data", data, "--sparsity", "0.5", "-o", tmp_path / "small.tflite")
    assert result.code == 1
    assert "pip install ai-edge-litert" in result.err
