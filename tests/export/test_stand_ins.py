"""Files that were converted with stand-ins hold what they would hold without."""

import keras
import numpy as np
import pytest
from keras import layers

from keras_mot.export import export_litert
from keras_mot.export.litert.engines import in_process
from keras_mot.export.litert.engines import stand_ins as engine
from keras_mot.export.litert.engines.filling import fill
from keras_mot.export.litert.litert_file import dense_values, operator_codes, parse_model
from keras_mot.export.litert.signature import read_signature
from keras_mot.quantization import quantize_post_training

pytestmark = pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="the converter is TensorFlow's")


def normalized(x, layer, **arguments):
    """A layer with batch normalization behind it, whose statistics matter."""
    random = {
        name: keras.initializers.RandomUniform(0.5, 1.5, seed=number)
        for number, name in enumerate(
            ("gamma_initializer", "beta_initializer", "moving_mean_initializer", "moving_variance_initializer")
        )
    }
    for name in ("scale", "center"):
        if arguments.get(name) is False:
            del random[{"scale": "gamma_initializer", "center": "beta_initializer"}[name]]
    return layers.ReLU()(layers.BatchNormalization(**random, **arguments)(layer(x)))


def convolutions(x):
    x = normalized(x, layers.Conv2D(16, 3, use_bias=False))
    x = normalized(x, layers.Conv2D(16, 3, bias_initializer="ones", groups=2), center=False)
    x = normalized(x, layers.DepthwiseConv2D(3, depth_multiplier=2, padding="same"), scale=False)
    x = layers.SeparableConv2D(12, 3, padding="same", dilation_rate=2)(x)
    x = layers.Conv2DTranspose(8, 2, strides=2)(x)
    return layers.Dense(5)(layers.Flatten()(x))


def one_size(x):
    """Kernels of one shape, which are one in 8 bits."""
    for _ in range(4):
        x = layers.Conv2D(8, 3, padding="same", activation="relu")(x)
    return x


def one_dimension(x):
    x = layers.Reshape((12, 96))(x)
    x = layers.Conv1D(16, 3, padding="causal")(x)
    return normalized(layers.Dense(24)(x), layers.Dense(24))


def square(x):
    return layers.Dense(96)(layers.Dense(96)(layers.Reshape((12, 96))(x)[:, 0]))


def sequences(x):
    x = layers.Dense(16)(layers.Reshape((12, 96))(x))
    return layers.GRU(8)(x + layers.MultiHeadAttention(2, 8)(x, x))


class Tied(keras.layers.Layer):
    """Multiplies by a kernel, and by what it is turned round."""

    def build(self, shape):
        """One square kernel."""
        self.kernel = self.add_weight(shape=(shape[-1], shape[-1]), name="kernel")

    def call(self, x):
        """Both products."""
        return keras.ops.relu(x @ self.kernel) @ keras.ops.transpose(self.kernel)


def tied(x):
    return Tied()(layers.Reshape((12, 96))(x)[:, 0])


def shared(x):
    dense = layers.Dense(96, activation="relu")
    x = layers.Reshape((12, 96))(x)[:, 0]
    return dense(dense(x))


def nested(x):
    inner = keras.Sequential([keras.Input((12, 12, 8)), layers.Conv2D(16, 3), layers.BatchNormalization()])
    return layers.Conv2D(4, 1)(inner(x, training=False))


MODELS = (convolutions, one_size, one_dimension, square, sequences, tied, shared, nested)


def built(function):
    inputs = keras.Input((12, 12, 8))
    return keras.Model(inputs, function(inputs))


def files(model, tmp_path, monkeypatch, **options):
    """The contents with and without stand-ins."""
    contents = []
    for least in (32, 10**9):
        monkeypatch.setattr(engine, "_LEAST_SIZE", least)
        result = export_litert(model, tmp_path / "model.tflite", sparse_encoding=False, batch_size=1, **options)
        contents.append(result.path.read_bytes())
    return contents


def constants(content):
    """(code of the operator, scales, values) of what each operator reads, in their order."""
    model = parse_model(content)
    codes = operator_codes(model)
    for graph in model.subgraphs:
        for operator in graph.operators:
            tensors = [graph.tensors[index] for index in operator.inputs if index >= 0]
            yield codes[operator.opcodeIndex], None, np.array([len(tensors)])
            for tensor in tensors:
                if model.buffers[tensor.buffer].data is not None:
                    quantization = tensor.quantization
                    scale = None if quantization is None else quantization.scale
                    yield codes[operator.opcodeIndex], scale, dense_values(model, tensor).astype("float64")


def _place(constant):
    code, scale, values = constant
    return str(code), scale is not None, values.shape, float(np.mean(values))


def assert_same(contents, tolerance):
    """The same operators with the same numbers and scales, in files of about one size.

    The converter is free in the order of what does not depend on each other, such as conversions of halves.
    """
    ordered = [sorted(constants(content), key=_place) for content in contents]
    for (code, scale, values), (expected, wanted, numbers) in zip(*ordered, strict=True):
        assert (code, scale is None) == (expected, wanted is None)
        if scale is not None:
            np.testing.assert_allclose(scale, wanted, rtol=1e-6)
        np.testing.assert_allclose(values, numbers, atol=tolerance * max(1.0, np.abs(numbers).max(initial=0.0)))
    sizes = [len(content) for content in contents]
    assert sizes[0] < 1.02 * sizes[1] + 1000


@pytest.mark.parametrize("function", MODELS, ids=lambda function: function.__name__)
def test_files_in_floats(function, tmp_path, monkeypatch):
    assert_same(files(built(function), tmp_path, monkeypatch), 1e-6)


@pytest.mark.parametrize("function", [convolutions, one_size], ids=lambda function: function.__name__)
def test_half_precision(function, tmp_path, monkeypatch):
    assert_same(files(built(function), tmp_path, monkeypatch, weights="float16"), 1e-3)


@pytest.mark.parametrize("function", [convolutions, one_size, square], ids=lambda function: function.__name__)
def test_dynamic_range(function, tmp_path, monkeypatch):
    contents = files(built(function), tmp_path, monkeypatch, weights="int8")
    assert_same(contents, 1.01 / 127)  # one step, where rounding is decided by the last bit of a folded kernel


def test_integers(tmp_path, monkeypatch):
    model = built(convolutions)
    data = np.random.default_rng(0).standard_normal((16, 12, 12, 8)).astype("float32")
    contents = files(quantize_post_training(model, calibration_data=data), tmp_path, monkeypatch)
    assert contents[0] == contents[1]


def test_large_numbers_do_not_overflow(tmp_path, monkeypatch):
    model = keras.Sequential([keras.Input((96,)), layers.Dense(4)])
    model.layers[0].kernel.assign(np.where(np.arange(384).reshape(96, 4) % 7, 1.0, 1e6))
    contents = files(model, tmp_path, monkeypatch, weights="float16", verify=False)
    assert_same(contents, 1e-3)


def test_what_is_read_in_unknown_ways_is_converted_as_it_is(monkeypatch):
    monkeypatch.setattr(engine, "_LEAST_SIZE", 32)
    model = built(tied)
    stand_ins = engine.StandIns(model)
    _, _, unknown, _ = in_process._freeze(model, read_signature(model), None, stand_ins)
    assert unknown == {id(model.layers[-1].kernel)}


def test_a_stand_in_that_is_not_found_is_reported(tmp_path):
    model = keras.Sequential([keras.Input((96,)), layers.Dense(96)])
    content = export_litert(model, tmp_path / "model.tflite").path.read_bytes()
    (stand_in,) = stand_ins = engine.StandIns(model).filled
    stand_in.operator, stand_in.view = "FULLY_CONNECTED", ((96, 96), (1, 0))
    assert fill(content, stand_ins) == (content, {id(model.layers[0].kernel)})


def test_weights_do_not_multiply_in_the_converter(monkeypatch, tmp_path):
    """The graph that is converted has none of the numbers of a large kernel."""
    sizes = []
    convert = in_process._run_converter

    def measured(converter, function, *rest):
        sizes.append(function.graph.as_graph_def().ByteSize())
        return convert(converter, function, *rest)

    monkeypatch.setattr(in_process, "_run_converter", measured)
    model = keras.Sequential([keras.Input((256,)), layers.Dense(256)])
    export_litert(model, tmp_path / "model.tflite")
    assert sizes[0] < 256 * 256
