"""Reading `.tflite` files, damaged ones too, and running them."""

import contextlib
import types

import keras
import numpy as np
import pytest
from keras import layers

from keras_mot.export import LiteRTRunner, export_litert
from keras_mot.export.litert.litert_file import _decode_sparse, _unpack, parameters, parse_model
from keras_mot.quantization import quantize_post_training


def level(size=None, segments=None, indices=None):
    """One level of the sparse format: dense of a size, or compressed by segments and indices."""
    vectors = [None if v is None else types.SimpleNamespace(values=v) for v in (segments, indices)]
    return types.SimpleNamespace(
        format=int(size is None), denseSize=size or 0, arraySegments=vectors[0], arrayIndices=vectors[1]
    )


MATRIX = [[1, 0, 2, 3], [0, 4, 0, 0], [0, 0, 5, 0], [0, 0, 0, 6]]


def test_decodes_compressed_rows():
    sparsity = types.SimpleNamespace(
        traversalOrder=[0, 1],
        blockMap=None,
        dimMetadata=[level(4), level(segments=[0, 3, 4, 5, 6], indices=[0, 2, 3, 1, 2, 3])],
    )
    stored = np.array([1, 2, 3, 4, 5, 6])
    assert _decode_sparse(stored, sparsity, [4, 4]).tolist() == MATRIX


def test_decodes_compressed_columns():
    sparsity = types.SimpleNamespace(
        traversalOrder=[1, 0],
        blockMap=None,
        dimMetadata=[level(4), level(segments=[0, 1, 2, 4, 6], indices=[0, 1, 0, 2, 0, 3])],
    )
    stored = np.array([1, 4, 2, 5, 3, 6])
    assert _decode_sparse(stored, sparsity, [4, 4]).tolist() == MATRIX


def test_decodes_blocks():
    sparsity = types.SimpleNamespace(
        traversalOrder=[0, 1, 2, 3],
        blockMap=[0, 1],
        dimMetadata=[level(2), level(segments=[0, 2, 3], indices=[0, 1, 1]), level(2), level(2)],
    )
    stored = np.array([1, 0, 0, 4, 2, 3, 0, 0, 5, 0, 0, 6])
    assert _decode_sparse(stored, sparsity, [4, 4]).tolist() == MATRIX


def test_unpacks_small_types():
    assert _unpack(np.array([0x7F, 0x81], np.uint8), "INT4").tolist() == [-1, 7, 1, -8]
    assert _unpack(np.array([0b11100100], np.uint8), "INT2").tolist() == [0, 1, -2, -1]
    assert _unpack(np.array([0x80, 0x3F, 0x20, 0xC0], np.uint8), "BFLOAT16").tolist() == [1.0, -2.5]


def test_parameters_are_the_weights_of_the_model(two_inputs):
    hidden = next(layer for layer in two_inputs.model.layers if layer.name == "hidden")
    kernel = keras.ops.convert_to_numpy(hidden.kernel).T  # LiteRT keeps the outputs first
    tensors = list(parameters(parse_model(two_inputs.result.path)))
    found = next(tensor for tensor in tensors if tensor.values.shape == kernel.shape)
    np.testing.assert_array_equal(found.values, kernel)
    assert found.sparse_encoding
    assert sum(tensor.values.size for tensor in tensors) == two_inputs.model.count_params()


@pytest.mark.parametrize("cut", [0, 3, 20, 100, 0.3, 0.9, 0.999])
def test_truncated_files(cut, two_inputs, tmp_path):
    content = two_inputs.result.path.read_bytes()
    path = tmp_path / "cut.tflite"
    path.write_bytes(content[: int(cut * len(content)) if isinstance(cut, float) else cut])
    with pytest.raises(ValueError, match=r"cut\.tflite"):
        LiteRTRunner(path)


def test_other_files(tmp_path):
    path = tmp_path / "text.tflite"
    path.write_text("this is not a model, but a text that is long enough")
    with pytest.raises(ValueError, match=r"Not a `\.tflite` file: '.*text\.tflite'.*Expected the identifier"):
        LiteRTRunner(path)
    with pytest.raises(ValueError, match="which is not a file"):
        LiteRTRunner(tmp_path / "missing.tflite")
    with pytest.raises(TypeError, match="Expected the path or the bytes"):
        LiteRTRunner(3)
    with pytest.raises(ValueError, match="`num_threads` must be an integer"):
        LiteRTRunner(path, num_threads=0)


def test_damaged_indices_are_found_before_the_runtime_follows_them(two_inputs):
    content = two_inputs.result.path.read_bytes()
    generator = np.random.default_rng(0)
    refused = 0
    for _ in range(20):
        damaged = bytearray(content)
        for position in generator.integers(8, len(content), 200):
            damaged[position] = generator.integers(0, 256)
        with contextlib.suppress(ValueError):
            parse_model(bytes(damaged))
            continue
        refused += 1
    assert refused >= 15


def test_runs_any_batch_by_name_or_in_order(two_inputs, two_input_data):
    names = two_inputs.result.input_names
    runner = LiteRTRunner(two_inputs.result.path, input_names=names)
    assert runner.batch_size is None
    assert [tensor.name for tensor in runner.inputs] == list(names)
    outputs = two_inputs.model(two_input_data, training=False)
    for data in (two_input_data, [two_input_data[name] for name in names]):
        received = runner.run(data)
        for name, expected in outputs.items():
            np.testing.assert_allclose(received[name], keras.ops.convert_to_numpy(expected), atol=1e-5)
    single = runner.run({name: value[:1] for name, value in two_input_data.items()})
    np.testing.assert_allclose(single["value"], received["value"][:1], atol=1e-6)


def test_runner_refuses_inputs_that_do_not_fit(two_inputs, two_input_data):
    runner = LiteRTRunner(two_inputs.result.path)
    features, ids = two_input_data["features"], two_input_data["ids"]
    with pytest.raises(ValueError, match="names of the inputs do not match"):
        runner.run({"features": features})
    with pytest.raises(ValueError, match=r"takes 2 input\(s\)"):
        runner.run(features)
    with pytest.raises(ValueError, match=r"'features'.*Expected: \(batch, 24\)"):
        runner.run({"features": features[:, :3], "ids": ids})
    with pytest.raises(ValueError, match="same number of samples"):
        runner.run({"features": features[:2], "ids": ids})
    with pytest.raises(ValueError, match="`input_names` must name the inputs"):
        LiteRTRunner(two_inputs.result.path, input_names=["a", "b"])


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="the file is the same on every backend")
def test_fixed_batch_is_run_in_parts(small_model, tmp_path):
    from keras_mot.export import export_litert

    result = export_litert(small_model, tmp_path / "model.tflite", batch_size=4)
    x = np.random.default_rng(0).standard_normal((10, 6)).astype("float32")
    runner = LiteRTRunner(result.path)
    assert runner.batch_size == 4
    received = runner.run(x)[result.output_names[0]]
    np.testing.assert_allclose(received, keras.ops.convert_to_numpy(small_model(x)), atol=1e-5)


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="converts with TensorFlow")
def test_quantized_inputs_and_outputs_are_floats_to_the_user():
    import tensorflow as tf

    weights = tf.constant(np.random.default_rng(0).uniform(-1, 1, (6, 2)).astype("float32"))
    function = tf.function(lambda x: tf.matmul(x, weights)).get_concrete_function(tf.TensorSpec((1, 6)))
    converter = tf.lite.TFLiteConverter.from_concrete_functions([function], tf.Module())
    data = np.random.default_rng(1).uniform(-1, 1, (100, 6)).astype("float32")
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = lambda: ([row[None]] for row in data)
    converter.inference_input_type = converter.inference_output_type = tf.int8
    runner = LiteRTRunner(converter.convert())
    assert runner.inputs[0].dtype == "int8"
    received = next(iter(runner.run(data).values()))
    np.testing.assert_allclose(received, data @ weights.numpy(), atol=0.1)


def test_equal_parameters_are_stored_once_and_contents_are_aligned(tmp_path):
    """A kernel and its bias have as many zero points as channels, all 0; the schema aligns contents to 16 bytes."""
    from ai_edge_litert import schema_py_generated as schema

    model = keras.Sequential([keras.Input((8,)), layers.Dense(12, name="one"), layers.Dense(12, name="two")])
    for layer in model.layers:
        layer.bias.assign(np.linspace(0.1, 1.0, 12))
    quantized = quantize_post_training(model, calibration_data=np.ones((4, 8), "float32"))
    content = export_litert(quantized, tmp_path / "model.tflite").path.read_bytes()
    file = schema.Model.GetRootAs(content)
    graph = file.Subgraphs(0)
    tensors = [graph.Tensors(number).Quantization() for number in range(graph.TensorsLength())]
    wide = [item for item in tensors if item is not None and item.ZeroPointLength() == 12]
    assert len(wide) == 4
    assert len({item._tab.Vector(item._tab.Offset(10)) for item in wide}) == 1  # 10: the field of zero points
    assert all(item.ZeroPointAsNumpy().tolist() == [0] * 12 for item in wide)
    assert len({item.ScaleAsNumpy().tobytes() for item in wide}) == 4
    filled = [file.Buffers(number) for number in range(file.BuffersLength()) if file.Buffers(number).DataLength()]
    assert filled
    assert all(buffer._tab.Vector(buffer._tab.Offset(4)) % 16 == 0 for buffer in filled)


def test_equal_biases_are_stored_once(tmp_path):
    """Biases that are 0 share their content, each with scales of its own; what the file computes is the same."""
    keras.utils.set_random_seed(0)
    hidden = [layers.Conv2D(24, 1, activation="relu", name=name) for name in ("one", "two", "three")]
    model = keras.Sequential([keras.Input((4, 4, 8)), *hidden])
    x = np.random.default_rng(0).standard_normal((16, 4, 4, 8)).astype("float32")
    quantized = quantize_post_training(model, calibration_data=x, correct_biases=False)
    path = export_litert(quantized, tmp_path / "model.tflite").path
    file = parse_model(path)
    biases = [tensor for tensor in file.subgraphs[0].tensors if tensor.type == 2 and list(tensor.shape) == [24]]
    assert len(biases) == 3
    assert len({tensor.buffer for tensor in biases}) == 1
    assert len({tensor.quantization.scale.tobytes() for tensor in biases}) == 3
    (received,) = LiteRTRunner(path).run(x).values()
    np.testing.assert_allclose(received, quantized.predict(x, verbose=0), atol=1e-6)
