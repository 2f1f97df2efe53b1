"""`quantize`, `train-quantized`, `export` and `measure`: what ends in a file for LiteRT, or begins with one."""

import json

import keras
import numpy as np
import pytest

import keras_mot

on_tensorflow = pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="conversion is the same from every backend, and slow from these"
)


def _types(path):
    return {tensor.name: tensor.dtype for tensor in keras_mot.analysis.tensor_stats(path)}


@pytest.fixture(scope="module")
def float_file(model, tmp_path_factory):
    path = tmp_path_factory.mktemp("float") / "model.tflite"
    keras_mot.export.export_litert(keras.models.load_model(model), path)
    return path


@on_tensorflow
def test_quantizing_to_integers(run, model, data, tmp_path):
    output = tmp_path / "small.tflite"
    options = ("--input-type", "int8", "--output-type", "uint8", "--strict", "--keras", "--calibration-samples", 48)
    result = run("quantize", model, "--data", data, *options, "-o", output, "--json")
    assert result.code == 0, result.err
    values = json.loads(result.out)
    assert values["files"] == [str(output), str(output.with_suffix(".keras"))]
    assert (values["scheme"], values["evaluated_on"], values["float_operators"]) == ("int8", "x_test", [])
    before, after = values["measurements"]
    assert (before["name"], after["name"], after["path"]) == ("before (.tflite)", "after (.tflite)", str(output))
    assert after["bytes"] == output.stat().st_size
    assert after["metric"] == pytest.approx(before["metric"], abs=0.05)
    assert _types(output)["hidden/kernel"] == "int8"
    runner = keras_mot.export.LiteRTRunner(output)
    assert (runner.inputs[0].dtype, runner.outputs[0].dtype) == ("int8", "uint8")
    again = run("export", output.with_suffix(".keras"), "-o", tmp_path / "again.tflite")
    assert again.code == 0, again.err
    assert _types(tmp_path / "again.tflite") == _types(output)


@on_tensorflow
@pytest.mark.parametrize(
    ("scheme", "kernel", "has_data"),
    [("int16x8", "int8", True), ("int4-weights", "int4", True), ("float16", "float16", False)],
)
def test_other_schemes(run, model, data, tmp_path, scheme, kernel, has_data):
    output = tmp_path / "small.tflite"
    given = ("--data", data) if has_data else ()
    result = run("quantize", model, *given, "--scheme", scheme, "--batch-size", 1, "-o", output)
    assert result.code == 0, result.err
    assert _types(output)["hidden/kernel"] == kernel
    assert keras_mot.export.LiteRTRunner(output).inputs[0].shape[0] == 1
    assert ("accuracy" in result.out) == has_data
    assert f"Wrote {output}." in result.out


@on_tensorflow
def test_training_in_integers(run, model, data, tmp_path):
    output = tmp_path / "small.tflite"
    options = ("--batch-size", 32, "--learning-rate", 0.001, "--skip", "classes", "--keras")
    result = run("train-quantized", model, "--data", data, *options, "-o", output, "--json")
    assert result.code == 0, result.err
    values = json.loads(result.out)
    assert values["scheme"] == "int8"
    assert values["measurements"][1]["metric"] > 0.7
    assert values["files"] == [str(output), str(output.with_suffix(".keras"))]
    types = _types(output)
    assert (types["hidden/kernel"], types["classes/kernel"]) == ("int8", "float32")
    assert "training in integers: epoch 1/1" in result.err


@pytest.mark.parametrize(
    ("command", "options", "message"),
    [
        ("quantize", ["--data", None], "needs `--data FILE.npz`"),
        ("quantize", ["--scheme", "float16", "--strict"], "computes in floats: leave `--strict` out"),
        ("quantize", ["--scheme", "dynamic-range", "--keras"], "computes in floats: leave `--keras` out"),
        ("quantize", ["--scheme", "float16", "--input-type", "int8"], "computes in floats: leave `--input-type` out"),
        ("quantize", ["--scheme", "float16", "--placement", "integer"], "leave `--placement` out"),
        ("quantize", ["--scheme", "float16", "--rounding", "gptq"], "leave `--rounding` out"),
        ("quantize", ["--scheme", "int7"], "invalid choice: 'int7'"),
        ("quantize", ["--scheme", "float16", "--per-tensor"], "leave `--per-tensor` out"),
        ("quantize", ["--scheme", "dynamic-int8", "--per-tensor"], "leave `--per-tensor` out"),
        ("quantize", ["--skip", "dense_7"], "No layer matches 'dense_7'"),
        ("quantize", ["-o", "small.keras"], "should end in .tflite"),
        ("train-quantized", ["--data", None], "required: --data"),
        ("train-quantized", ["--scheme", "float16"], "invalid choice: 'float16'"),
        ("train-quantized", ["--scheme", "int16x8", "--learned-scales"], "`learned_scales` are for activations of 8"),
        ("train-quantized", ["--calibration-samples", "0"], "should be greater than 0"),
        ("export", ["--weights", "int4"], "invalid choice: 'int4'"),
        ("export", ["--input-type", "int8"], "are for quantized models"),
        ("export", ["--batch-size", "0"], "should be 1 or more"),
        ("export", ["--sparse", "yes", "--weights", "int8"], "`sparse_encoding=True` is for float weights"),
        ("export", ["-o", "nowhere/small.tflite"], "does not exist: create it first"),
    ],
)
def test_mistakes(run, model, data, tmp_path, command, options, message):
    given = {"--data": data, "-o": tmp_path / "small.tflite"}
    pairs = iter(options)
    flags = []
    for option in pairs:
        if option in ("--strict", "--keras", "--learned-scales", "--per-tensor"):
            flags.append(option)
        else:
            given[option] = next(pairs)
    flat = [item for pair in given.items() if pair[1] is not None for item in pair]
    result = run(command, model, *flat, *flags)
    assert result.code == 2
    assert message in result.err
    assert result.out == ""
    assert list(tmp_path.iterdir()) == []


def test_a_model_that_is_quantized_already(run, model, data, arrays, tmp_path):
    quantized = keras_mot.quantization.quantize_post_training(
        keras.models.load_model(model), calibration_data=arrays["x_train"][:32]
    )
    quantized.save(tmp_path / "quantized.keras")
    result = run("quantize", tmp_path / "quantized.keras", "--data", data, "-o", tmp_path / "small.tflite")
    assert result.code == 2
    assert "is quantized already: give the float model" in result.err


@on_tensorflow
def test_export(run, model, data, tmp_path):
    output = tmp_path / "half.tflite"
    options = ("--weights", "float16", "--batch-size", 2, "--data", data)
    result = run("export", model, *options, "-o", output, "--json")
    assert result.code == 0, result.err
    values = json.loads(result.out)
    assert (values["path"], values["weights"], values["batch_size"]) == (str(output), "float16", 2)
    assert values["bytes"] == output.stat().st_size
    assert _types(output)["hidden/kernel"] == "float16"
    assert str(output) in run("export", model, "-o", output).out


@on_tensorflow
def test_measuring_files_side_by_side(run, model, float_file, data):
    result = run("measure", model, float_file, "--data", data, "--latency-runs", 3, "--json")
    assert result.code == 0, result.err
    values = json.loads(result.out)
    first, second = values["measurements"]
    assert (first["name"], first["latency_ms"]) == ("model.keras", None)
    assert second["latency_ms"] > 0
    assert first["metric"] == second["metric"] > 0.7
    assert (values["metric_name"], values["samples"], values["latency_runs"]) == ("accuracy", 64, 3)
    text = run("measure", model, float_file, "--data", data, "--metric", "sparse_categorical_crossentropy").out
    assert "sparse_categorical_crossentropy" in text


def test_measuring_without_data(run, model):
    result = run("measure", model)
    assert result.code == 0
    assert f"{model.stat().st_size:,}" in result.out


def test_measuring_labels_that_are_no_classes(run, model, arrays, tmp_path):
    numbers = {**arrays, "y_train": arrays["y_train"] / 3, "y_test": arrays["y_test"] / 3}
    np.savez(tmp_path / "numbers.npz", **numbers)
    result = run("measure", model, "--data", tmp_path / "numbers.npz")
    assert result.code == 2
    assert "name a metric" in result.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["missing.tflite"], "'missing.tflite' does not exist"),
        (["MODEL", "--metric", "accuracy"], "`--metric` needs `--data FILE.npz`"),
        (["MODEL", "--latency-runs", "-1"], "should be 0 or more"),
        (["MODEL", "--threads", "0"], "should be 1 or more"),
        (["MODEL", "--data", "missing.npz"], "'missing.npz' does not exist"),
        ([], "required: FILE"),
    ],
)
def test_mistakes_in_measuring(run, model, arguments, message):
    result = run("measure", *(model if argument == "MODEL" else argument for argument in arguments))
    assert result.code == 2
    assert message in result.err
    assert result.out == ""


@on_tensorflow
def test_integers_where_floats_have_no_file(run, tmp_path, data):
    """A table stands for a function that the runtime has no kernel for; the model itself is compared with."""
    inputs = keras.Input((8,))
    outputs = keras.layers.Dense(4)(keras.ops.erf(keras.layers.Dense(8)(inputs)))
    keras.Model(inputs, outputs).save(tmp_path / "erf.keras")
    options = ("--data", data, "--placement", "integer")
    result = run("quantize", tmp_path / "erf.keras", *options, "-o", tmp_path / "e.tflite")
    assert result.code == 0, result.err
    assert (tmp_path / "e.tflite").is_file()
    assert "no file in floats to compare with" in result.err
