"""The integers and scales of a quantized model are those of its file: they are carried there, not read off values."""

import keras
import numpy as np
import pytest
from keras import layers

from keras_mot._arrays import numpy_value
from keras_mot.export import export_litert
from keras_mot.export.litert.engines import in_process
from keras_mot.export.litert.litert_file import dense_values, parse_model
from keras_mot.export.litert.marking import in_file_order, mark_of_weight, number_of_weight
from keras_mot.layers import transformed_weights
from keras_mot.quantization import INT4_WEIGHTS, INT8, INT16X8, QuantizationScheme, quantize_post_training
from keras_mot.transforms import FakeQuantize

only_tensorflow = pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="concerns the files alone")


def images():
    keras.utils.set_random_seed(0)
    dilated = layers.DepthwiseConv2D(3, depth_multiplier=2, dilation_rate=2, name="dilated")
    parts = [layers.Conv2D(8, (3, 2), groups=2, name="grouped"), dilated, layers.SeparableConv2D(6, 3)]
    parts += [layers.Conv2DTranspose(5, (2, 3), strides=2, use_bias=False), layers.ReLU(), layers.Flatten()]
    return keras.Sequential([keras.Input((12, 12, 4)), *parts, layers.Dense(1)])


def sequences():
    keras.utils.set_random_seed(0)
    parts = [layers.Conv1D(8, 3, padding="causal", dilation_rate=2), layers.DepthwiseConv1D(3, depth_multiplier=2)]
    parts += [layers.Conv1DTranspose(4, 3), layers.Dense(6), layers.GRU(5)]
    return keras.Sequential([keras.Input((8, 3)), *parts])


def stored(path):
    """(integers, scales that broadcast to them) by the names of the kernels in a file."""
    model, result = parse_model(path), {}
    for tensor in model.subgraphs[0].tensors:
        name = tensor.name.decode()
        if "kernel" not in name or model.buffers[tensor.buffer].data is None:
            continue
        integers = dense_values(model, tensor)
        shape = [1] * integers.ndim
        shape[tensor.quantization.quantizedDimension] = -1
        result[name] = integers, tensor.quantization.scale.reshape(shape)
    return result


def as_the_variable(array, shape, transposed):
    """A kernel of a file in Keras's order; in files, that is (out, in), (1, h, w, channels) or (out, h, w, in)."""
    if len(shape) == 2:
        return array.T
    if array.shape[0] == 1 and array.shape[-1] == shape[-1] * shape[-2]:
        return array.reshape(shape)
    order = (1, 2, 0, 3) if transposed else (1, 2, 3, 0)
    return array.transpose(order).reshape(shape)


@only_tensorflow
@pytest.mark.parametrize("make", [images, sequences], ids=lambda make: make.__name__)
@pytest.mark.parametrize(
    "scheme",
    [INT8, INT16X8, INT4_WEIGHTS, QuantizationScheme(learned_scales=True), QuantizationScheme(per_channel=False)],
    ids=["int8", "int16x8", "int4", "learned", "one scale"],
)
def test_integers_and_scales_are_those_of_the_model(make, scheme, tmp_path):
    model = make()
    x = np.random.default_rng(0).standard_normal((8, *model.input_shape[1:])).astype("float32")
    quantized = quantize_post_training(model, scheme, x, equalize=False, correct_biases=False)
    result = export_litert(quantized, tmp_path / "model.tflite")
    assert result.float_operators == ()
    kernels = stored(result.path)
    weights = [weight for weight in transformed_weights(quantized) if weight.transform_of(FakeQuantize)]
    assert {weight.path for weight in weights} == set(kernels)
    for weight in weights:
        transform = weight.transform_of(FakeQuantize)
        expected, scales = transform.integers(numpy_value(weight.value_before(transform)))
        transposed = isinstance(weight.owner, layers.Conv1DTranspose | layers.Conv2DTranspose)
        integers, scale = kernels[weight.path]
        scale = np.broadcast_to(scale, integers.shape)
        np.testing.assert_array_equal(as_the_variable(integers, expected.shape, transposed), expected)
        received = as_the_variable(scale, expected.shape, transposed)
        np.testing.assert_array_equal(received, np.broadcast_to(scales, expected.shape))


@only_tensorflow
def test_a_channel_of_zeros_keeps_a_learned_scale(tmp_path):
    """Its bias is a multiple of the scale that the model has, whatever the values say."""
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((6,)), layers.Dense(3, bias_initializer="ones", name="a"), layers.Dense(2)])
    x = np.random.default_rng(0).standard_normal((16, 6)).astype("float32")
    quantized = quantize_post_training(model, QuantizationScheme(learned_scales=True), x, equalize=False)
    weight = next(weight for weight in transformed_weights(quantized) if weight.path.startswith("a/"))
    values = numpy_value(weight.variable).copy()
    values[:, 1] = 0.0
    weight.variable.assign(values)
    expected = weight.transform_of(FakeQuantize).scales(values)
    export_litert(quantized, tmp_path / "model.tflite")
    np.testing.assert_array_equal(stored(tmp_path / "model.tflite")["a/kernel"][1].reshape(-1), expected.reshape(-1))


@only_tensorflow
def test_the_converter_sees_no_quantized_weight(tmp_path, monkeypatch):
    sizes = []
    convert = in_process._run_converter

    def measured(converter, function, *rest):
        sizes.append(function.graph.as_graph_def().ByteSize())
        return convert(converter, function, *rest)

    monkeypatch.setattr(in_process, "_run_converter", measured)
    model = keras.Sequential([keras.Input((80,)), layers.Dense(80), layers.Dense(80)])  # small ones, too
    x = np.random.default_rng(0).standard_normal((4, 80)).astype("float32")
    export_litert(quantize_post_training(model, INT8, x), tmp_path / "model.tflite")
    assert sizes[0] < 80 * 80


def test_marks_of_weights():
    for number in (0, 1, 77, 2**20 - 1):
        assert number_of_weight(np.full((3, 2), mark_of_weight(number), "float32")) == number
    for values in ([1.0, 1.0], [2.0, 2.0], [3.0], [1.5, 1.5], [mark_of_weight(3), mark_of_weight(4)], []):
        assert number_of_weight(np.array(values, "float32")) is None
    assert number_of_weight(np.full(3, 2)) is None


def test_kernels_in_the_order_of_the_file():
    kernel = np.arange(2 * 3 * 4 * 5).reshape(2, 3, 4, 5)
    moved = in_file_order(kernel, "CONV_2D", (5, 2, 3, 4))
    assert moved[4, 1, 2, 3] == kernel[1, 2, 3, 4]
    assert in_file_order(kernel, "DEPTHWISE_CONV_2D", (1, 2, 3, 20))[0, 1, 2, 19] == kernel[1, 2, 3, 4]
    assert in_file_order(kernel, "TRANSPOSE_CONV", (4, 2, 3, 5))[3, 1, 2, 4] == kernel[1, 2, 3, 4]
    with pytest.raises(ValueError, match="has become one of"):
        in_file_order(kernel, "CONV_2D", (4, 2, 3, 5))
