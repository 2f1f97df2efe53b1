"""Files with dynamic ranges: the integers of the model, and what LiteRT makes of them."""

import dataclasses
import pathlib

import keras
import numpy as np
import pytest
from keras import layers, ops

from keras_mot import analysis
from keras_mot._arrays import numpy_value
from keras_mot.cli import main
from keras_mot.export import LiteRTRunner, export_litert, export_onnx
from keras_mot.export.dependencies import require
from keras_mot.export.litert.litert_file import (
    blocks_of,
    dense_values,
    enum_name,
    operator_codes,
    pack_model,
    parse_model,
)
from keras_mot.layers import transformed_weights
from keras_mot.quantization import DYNAMIC_INT4, DYNAMIC_INT8, quantize_model, quantize_post_training
from keras_mot.recipes import PostTraining, Recipe, compress
from keras_mot.transforms import FakeQuantize
from tests.quantization.test_coverage import only_tensorflow

BLOCKS = dataclasses.replace(DYNAMIC_INT4, block_size=32)
SCHEMES = {"int8": DYNAMIC_INT8, "int4": DYNAMIC_INT4, "blocks": BLOCKS}


def encoder(length=6):
    """A small text encoder: embeddings, attention, and dense layers whose results are computed on with constants."""
    keras.utils.set_random_seed(3)
    numbers = keras.Input((length,), dtype="int32", name="numbers")
    x = layers.Embedding(20, 32, name="table")(numbers)
    x = layers.LayerNormalization(name="norm")(x)
    x = x + layers.MultiHeadAttention(2, 16, name="attention")(x, x)
    x = layers.Dense(64, activation="gelu", name="wide")(layers.LayerNormalization()(x))
    x = layers.Dense(32, name="narrow")(x) * np.linspace(0.5, 2.0, 32).astype("float32")
    x = layers.ReLU()(layers.Dense(64, name="cut")(x))
    outputs = layers.Dense(5, activation="relu", name="head")(layers.GlobalAveragePooling1D()(x))
    model = keras.Model(numbers, outputs, name="encoder")
    for weight in model.weights:  # no bias is 0, no gain 1
        if len(weight.shape) == 1:
            weight.assign(numpy_value(weight) + np.linspace(-0.2, 0.3, weight.shape[0]))
    return model


def numbers(count=12, length=6):
    return np.random.default_rng(0).integers(0, 20, (count, length)).astype("int32")


def predicted(model, inputs):
    return np.asarray(ops.convert_to_numpy(model(inputs, training=False)))


def tensors_of(path):
    """By the name of an operator, its inputs in a file: (type, blocks, values) of each."""
    schema, found = require("ai_edge_litert.schema_py_generated"), {}
    model = parse_model(path)
    graph, names = model.subgraphs[0], [enum_name(schema.BuiltinOperator, code) for code in operator_codes(model)]
    for operator in graph.operators:
        inputs = [graph.tensors[index] for index in operator.inputs if index >= 0]
        found.setdefault(names[operator.opcodeIndex], []).append(
            [
                (
                    enum_name(schema.TensorType, tensor.type),
                    blocks_of(tensor),
                    dense_values(model, tensor) if model.buffers[tensor.buffer].data is not None else None,
                )
                for tensor in inputs
            ]
        )
    return found


@only_tensorflow
@pytest.mark.parametrize("scheme", SCHEMES)
def test_files_compute_what_the_model_does(scheme, tmp_path):
    quantized = quantize_post_training(encoder(), SCHEMES[scheme], numbers())
    exported = export_litert(quantized, tmp_path / "encoder.tflite", strict=True)
    assert exported.weights == "dynamic"
    assert exported.float_operators == ()
    expected = predicted(quantized, numbers())
    (received,) = LiteRTRunner(exported.path).run(numbers()).values()
    # Sums of floats differ by processor: an input that lies between two integers may become the other one.
    assert np.isclose(received, expected, atol=1e-3).mean() > 0.9
    np.testing.assert_allclose(received, expected, atol=0.02)
    if scheme != "blocks":
        (received,) = LiteRTRunner(exported.path, kernels="reference").run(numbers()).values()
        np.testing.assert_allclose(received, expected, atol=0.02)


@only_tensorflow
@pytest.mark.parametrize("scheme", SCHEMES)
def test_files_hold_the_integers_of_the_model(scheme, tmp_path):
    quantized = quantize_post_training(encoder(), SCHEMES[scheme])
    found = tensors_of(export_litert(quantized, tmp_path / "encoder.tflite").path)
    assert all(inputs[0][0] == "INT32" for inputs in found.get("GATHER", ()))  # of shapes
    assert not {"QUANTIZE", "DEQUANTIZE"} & set(found)
    stored = [inputs[1] for inputs in (*found["FULLY_CONNECTED"], *found["EMBEDDING_LOOKUP"])]
    weights = [each for each in transformed_weights(quantized) if each.transform_of(FakeQuantize)]
    assert len(stored) == len(weights) == 9
    assert {kind for kind, _, _ in stored} == {"INT8" if scheme == "int8" else "INT4"}
    assert {blocks and blocks.blockSize for _, blocks, _ in stored} == {32 if scheme == "blocks" else None}
    for weight in weights:
        transform = weight.transform_of(FakeQuantize)
        integers, _ = transform.integers(numpy_value(weight.value_before(transform)))
        assert any(np.array_equal(integers, each) or np.array_equal(integers.T, each) for _, _, each in stored)


@only_tensorflow
@pytest.mark.parametrize("batch_size", [None, 1, 4])
def test_tables_are_read_for_any_batch(batch_size, tmp_path):
    keras.utils.set_random_seed(0)
    given = keras.Input((None,), dtype="int32", name="numbers")
    x = layers.Embedding(20, 32, name="table")(given)
    model = keras.Model(given, layers.Dense(3, name="head")(x))
    quantized = quantize_post_training(model, DYNAMIC_INT4)
    exported = export_litert(
        quantized, tmp_path / "model.tflite", batch_size=batch_size, verification_data=numbers(4, 5), strict=True
    )
    runner = LiteRTRunner(exported.path)
    for length in (5, 9):
        if batch_size is None:
            (received,) = runner.run(numbers(4, length)).values()
            np.testing.assert_allclose(received, predicted(quantized, numbers(4, length)), atol=1e-4)


@only_tensorflow
def test_odd_sizes_take_whole_bytes(tmp_path):
    keras.utils.set_random_seed(0)
    inputs = keras.Input((), dtype="int32")
    x = layers.Dense(8, name="odd")(layers.Embedding(6, 33, name="table")(inputs))
    model = keras.Model(inputs, layers.Dense(2, name="even")(x))
    quantized = quantize_post_training(model, DYNAMIC_INT4)
    exported = export_litert(quantized, tmp_path / "model.tflite", verification_data=np.arange(6))
    found = tensors_of(exported.path)
    assert [inputs[1][0] for inputs in found["FULLY_CONNECTED"]] == ["INT8", "INT4"]
    assert [inputs[1][0] for inputs in found["EMBEDDING_LOOKUP"]] == ["INT8"]
    (received,) = LiteRTRunner(exported.path).run(np.arange(6)).values()
    np.testing.assert_allclose(received, predicted(quantized, np.arange(6)), atol=1e-4)


def test_each_backend_exports(tmp_path):
    model = keras.Sequential([keras.Input((64,)), layers.Dense(32, activation="relu"), layers.Dense(3)], name="small")
    x = np.random.default_rng(0).standard_normal((8, 64)).astype("float32")
    quantized = quantize_post_training(model, BLOCKS, x)
    quantized.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    exported = export_litert(loaded, tmp_path / "model.tflite", verification_data=x)
    np.testing.assert_allclose(exported.run(x), predicted(quantized, x), atol=1e-4)


@only_tensorflow
def test_what_stays_in_floats_is_listed(tmp_path):
    quantized = quantize_post_training(encoder(), DYNAMIC_INT8, overrides={"table|wide": None})
    exported = export_litert(quantized, tmp_path / "encoder.tflite")
    assert {(name, reason) for _, name, reason in exported.float_operators} == {
        ("table", "it is left in floats, as asked"),
        ("wide", "it is left in floats, as asked"),
    }
    assert "in floats: Embedding (table); Dense (wide): it is left" in str(exported)
    with pytest.raises(ValueError, match="not all weights of 'encoder' are integers"):
        export_litert(quantized, tmp_path / "strict.tflite", strict=True)
    assert not (tmp_path / "strict.tflite").exists()
    given = keras.Input((None, 32))
    model = keras.Model(
        given, layers.Dense(2, name="head")(layers.MultiHeadAttention(2, 16, name="open")(given, given))
    )
    exported = export_litert(
        quantize_post_training(model, DYNAMIC_INT8),
        tmp_path / "open.tflite",
        verification_data=np.ones((2, 5, 32), "float32"),
    )
    ((kind, name, reason),) = exported.float_operators
    assert (kind, name) == ("MultiHeadAttention", "open")
    assert "sizes of its inputs are open" in reason


@only_tensorflow
def test_options_that_do_not_fit_are_refused(tmp_path):
    quantized = quantize_post_training(encoder(), DYNAMIC_INT8)
    with pytest.raises(ValueError, match="takes and returns floats"):
        export_litert(quantized, tmp_path / "model.tflite", output_type="int8")
    with pytest.raises(ValueError, match="leave `weights` at its default"):
        export_litert(quantized, tmp_path / "model.tflite", weights="float16")
    with pytest.raises(ValueError, match="exported to LiteRT alone"):
        export_onnx(quantized, tmp_path / "model.onnx")
    assert not list(tmp_path.iterdir())


@only_tensorflow
def test_trained_models_are_exported(tmp_path):
    model = keras.Sequential(
        [
            keras.Input((64,)),
            layers.Dense(32, use_bias=False),
            layers.BatchNormalization(),
            layers.ReLU(),
            layers.Dense(4),
        ]
    )
    x = np.random.default_rng(0).standard_normal((64, 64)).astype("float32")
    quantized = quantize_model(model, DYNAMIC_INT4)
    quantized.compile(keras.optimizers.Adam(1e-3), "mse")
    quantized.fit(x, np.zeros((64, 4)), verbose=0)
    exported = export_litert(quantized, tmp_path / "model.tflite", verification_data=x[:8], strict=True)
    np.testing.assert_allclose(exported.run(x), predicted(quantized, x), atol=1e-3)


@only_tensorflow
def test_files_are_measured(tmp_path, capsys):
    model, x = encoder(), numbers()
    y = predicted(model, x).argmax(axis=1)
    quantized = quantize_post_training(model, BLOCKS, x)
    floats = export_litert(model, tmp_path / "float.tflite")
    small = export_litert(quantized, tmp_path / "blocks.tflite")
    report = analysis.measure({"float": floats, "blocks": small}, data=(x, y), latency_runs=2, progress=False)
    assert report["blocks"].metric > 0.6
    kernels = [each for each in report["blocks"].tensors if each.dtype == "int4"]
    assert sum(each.size for each in kernels) == 32 * (20 + 4 * 32 + 64 + 64 + 64) + 64 * 5
    assert not [each for each in report["blocks"].tensors if "scales" in each.name]
    assert main(["inspect", str(small.path)]) == 0
    assert "int4" in capsys.readouterr().out


@only_tensorflow
@pytest.mark.parametrize(("field", "value"), [("scales", 10**6), ("blockSize", 64), ("blockSize", 0)])
def test_damaged_blocks_are_refused(field, value, tmp_path):
    model = keras.Sequential([keras.Input((64,)), layers.Dense(4)])
    exported = export_litert(quantize_post_training(model, BLOCKS), tmp_path / "model.tflite")
    parsed = parse_model(exported.path)
    (blocks,) = [each for each in map(blocks_of, parsed.subgraphs[0].tensors) if each is not None]
    setattr(blocks, field, value)
    (tmp_path / "damaged.tflite").write_bytes(pack_model(parsed))
    with pytest.raises(ValueError, match="damaged"):
        LiteRTRunner(tmp_path / "damaged.tflite")


@only_tensorflow
def test_reference_kernels_are_warned_of(tmp_path):
    model = keras.Sequential([keras.Input((64,)), layers.Dense(4)])
    exported = export_litert(quantize_post_training(model, BLOCKS), tmp_path / "model.tflite")
    with pytest.warns(UserWarning, match="return zeros"):
        LiteRTRunner(exported.path, kernels="reference")


@only_tensorflow
def test_recipes_take_dynamic_ranges(tmp_path):
    model, x = encoder(), numbers(64)
    y = predicted(model, x).argmax(axis=1)
    stage = PostTraining(weight_bits=4, activation_bits="dynamic", block_size=32, overrides={"head": 8}, strict=True)
    recipe = Recipe([stage], "few_bits")
    path = tmp_path / "recipe.yaml"
    path.write_text(recipe.to_yaml())
    result = compress(model, str(path), (x, y), (x, y), output_dir=tmp_path / "run", latency_runs=0, progress=False)
    found = [inputs[1] for inputs in tensors_of(pathlib.Path(result.artifact))["FULLY_CONNECTED"]]
    assert sorted((kind, blocks and blocks.blockSize) for kind, blocks, _ in found)[-1] == ("INT8", None)
    assert {(kind, blocks and blocks.blockSize) for kind, blocks, _ in found} == {("INT4", 32), ("INT8", None)}
    with pytest.raises(ValueError, match="one of \\('float32',\\)"):
        PostTraining(activation_bits="dynamic", input_type="int8")
    with pytest.raises(ValueError, match="kernels with dynamic ranges for none"):
        PostTraining(activation_bits="dynamic", target="micro")
    with pytest.raises(ValueError, match="blocks of no size"):
        PostTraining(activation_bits="dynamic", block_size=32)
    with pytest.raises(ValueError, match="`estimator` chooses ranges"):
        PostTraining(activation_bits="dynamic", calibration={"estimator": "min_max"})


@only_tensorflow
def test_the_command_line_takes_dynamic_ranges(tmp_path, capsys):
    model, x = encoder(), numbers(64)
    model.save(tmp_path / "model.keras")
    np.savez(tmp_path / "data.npz", x_train=x, y_train=predicted(model, x).argmax(axis=1))
    given, small = str(tmp_path / "model.keras"), str(tmp_path / "small.tflite")
    assert main(["quantize", given, "--scheme", "dynamic-int8", "--skip", "head", "-o", small]) == 0
    assert "In floats: Dense (head)" in capsys.readouterr().out
    data = ["--data", str(tmp_path / "data.npz")]
    assert (
        main(["quantize", given, "--scheme", "dynamic-int4", "--block-size", "32", *data, "--strict", "-o", small]) == 0
    )
    assert has_blocks_of(small) == {32}
    for wrong, message in (
        (["--scheme", "int8", "--block-size", "32", *data], "has no blocks"),
        (["--scheme", "dynamic-int8", "--block-size", "32"], "no kernels for blocks of 8 bits"),
        (["--scheme", "dynamic-int4", "--input-type", "int8"], "takes and returns floats"),
        (["--scheme", "dynamic-int4", "--target", "micro"], "needs floats"),
        (["--scheme", "dynamic-int4", "--placement", "fast"], "and nothing else"),
        (["--scheme", "dynamic-int4", "--rounding", "gptq"], "to round by"),
    ):
        assert main(["quantize", given, *wrong, "-o", str(tmp_path / "other.tflite")]) != 0
        assert message in capsys.readouterr().err
    assert not (tmp_path / "other.tflite").exists()


def has_blocks_of(path):
    return {blocks.blockSize for tensor in parse_model(path).subgraphs[0].tensors if (blocks := blocks_of(tensor))}


@only_tensorflow
def test_tables_alone_are_exported(tmp_path):
    keras.utils.set_random_seed(0)
    inputs = keras.Input((4,), dtype="int32")
    model = keras.Model(inputs, layers.GlobalAveragePooling1D()(layers.Embedding(20, 32)(inputs) * 8.0))
    quantized = quantize_post_training(model, DYNAMIC_INT4)
    quantized.save(tmp_path / "model.keras")
    exported = export_litert(
        keras.models.load_model(tmp_path / "model.keras"), tmp_path / "model.tflite", verification_data=numbers(4, 4)
    )
    assert exported.weights == "dynamic"
    assert "EMBEDDING_LOOKUP" in tensors_of(exported.path)
    np.testing.assert_allclose(exported.run(numbers(4, 4)), predicted(quantized, numbers(4, 4)), atol=1e-5)
