"""Where activations are rounded, and what is left in floats."""

import keras
import numpy as np
import pytest
from keras import layers, ops

from keras_mot.graph.model_graph import Graph
from keras_mot.layers.activation_quantizer import ActivationQuantizer, activation_quantizers
from keras_mot.layers.float_boundary import FloatBoundary
from keras_mot.quantization import INT8, INT16X8, quantize_model, quantize_post_training
from keras_mot.quantization.simulation.placement import quantizer_of

X = np.random.default_rng(0).standard_normal((32, 6)).astype("float32")
ACTIVATIONS = {
    "relu": layers.ReLU,
    "softmax": layers.Softmax,
    "gelu": lambda name: layers.Activation("gelu", name=name),
}


def chain(*parts, shape=(6,)):
    return keras.Sequential([keras.Input(shape, name="inputs"), *parts])


def operations(model):
    """Names of the operations of a chain, quantizers as "Q" and boundaries to floats as "F"."""
    marks = {ActivationQuantizer: "Q", FloatBoundary: "F"}
    return [marks.get(type(call.operation), call.operation.name) for call in Graph(model).calls]


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_an_activation_that_the_user_left_in_floats(name):
    model = chain(layers.Dense(5, name="one"), layers.Activation(name, name="act"), layers.Dense(4, name="other"))
    quantized = quantize_model(model, overrides={"act$": None})
    assert operations(quantized) == ["Q", "one", "Q", "F", "act", "Q", "other", "Q"]
    assert all(quantizer.fixed is None for quantizer in activation_quantizers(quantized))


def test_what_the_user_left_in_floats_reads_floats():
    inputs = keras.Input((6,), name="inputs")
    x = layers.Dense(5, name="one")(inputs)
    both = layers.Concatenate(name="both")([x, layers.Dense(5, name="other")(x)])
    model = keras.Model(inputs, layers.Dense(2, name="head")(both))
    graph = Graph(quantize_model(model, overrides={"both$": None, "head$": None}))
    (call,) = graph.calls_of(next(call.operation for call in graph.calls if call.operation.name == "both"))
    assert all(isinstance(graph.producer(tensor).operation, FloatBoundary) for tensor in call.inputs)
    (head,) = graph.readers(call.outputs[0])
    assert head.operation.name == "head"  # floats to floats, and nothing between
    assert graph.is_output(head.outputs[0])


class Named(layers.Layer):
    """A layer whose inputs have other names than most."""

    def call(self, left=None, right=None):
        return ops.relu(right if left is None else left)


@pytest.mark.parametrize("side", ["left", "right"])
def test_what_the_user_left_in_floats_reads_floats_by_name_too(side):
    inputs = keras.Input((6,), name="inputs")
    middle = Named(name="named")(**{side: layers.Dense(5, name="one")(inputs)})
    model = keras.Model(inputs, layers.Dense(4, name="other")(middle))
    quantized = quantize_model(model, overrides={"named$": None})
    assert operations(quantized) == ["Q", "one", "Q", "F", "named_relu", "Q", "other", "Q"]


def test_an_embedding_in_floats_gives_floats():
    model = keras.Sequential(
        [keras.Input((4,), dtype="int32"), layers.Embedding(9, 6, name="table"), layers.Conv1D(3, 2, name="conv")]
    )
    assert operations(quantize_model(model)) == ["table", "Q", "conv", "Q"]
    assert operations(quantize_model(model, overrides={"table$": None})) == ["table", "F", "Q", "conv", "Q"]


@pytest.mark.parametrize("scheme", [INT8, INT16X8])
def test_boundaries_change_nothing_and_are_saved(scheme, tmp_path):
    model = chain(layers.Dense(5, name="one"), layers.ReLU(name="act"), layers.Dense(4, name="other"))
    quantized = quantize_post_training(model, scheme, X, overrides={"act$": None})
    expected = ops.convert_to_numpy(quantized(X))
    quantized.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert operations(loaded) == operations(quantized)
    np.testing.assert_array_equal(ops.convert_to_numpy(loaded(X)), expected)


def test_one_step_is_rounded_once():
    model = chain(
        *(layers.Conv2D(3, 3, name="conv"), layers.ReLU(name="relu"), layers.MaxPooling2D(name="pool")),
        *(layers.Flatten(name="flat"), layers.Dense(2, name="head"), layers.Activation("tanh", name="tanh")),
        shape=(8, 8, 3),
    )
    quantized = quantize_model(model)
    assert operations(quantized) == ["Q", "conv", "relu", "pool", "Q", "flat", "head", "Q", "tanh", "Q"]
    after_pool, before_tanh, last = activation_quantizers(quantized)[1:]
    assert after_pool.name == "relu_quantizer"
    assert before_tanh.limits == (-4.0, 4.0)
    assert last.fixed == (-1.0, 127 / 128)
    graph = Graph(quantized)
    (head,) = graph.calls_of(quantized.get_layer("head"))
    assert quantizer_of(head.inputs[0]) is after_pool  # behind `flat`


def test_kernels_of_8_bits_alone():
    model = chain(layers.Dense(5, name="dense"), layers.Activation("gelu", name="act"))
    assert operations(quantize_model(model, INT8)) == ["Q", "dense", "Q", "act", "Q"]
    assert operations(quantize_model(model, INT16X8)) == ["Q", "dense", "Q", "act"]


def test_means_are_rounded_to_the_numbers_of_their_inputs():
    model = chain(layers.Conv2D(3, 3, name="conv"), layers.AveragePooling2D(2, name="pool"), shape=(8, 8, 3))
    graph = Graph(quantize_model(model))
    assert [call.operation.name for call in graph.calls][1:] == ["conv", "conv_quantizer", "pool", "conv_quantizer"]
    assert graph.calls[-1].kwargs.get("averages") is True


def test_a_join_of_equal_numbers_keeps_them():
    inputs = keras.Input((4, 4, 3), name="inputs")
    first, second = ops.split(layers.Conv2D(4, 1, name="conv")(inputs), 2, axis=-1)
    graph = Graph(quantize_model(keras.Model(inputs, ops.concatenate([second, first]))))
    quantizers = [call.operation for call in graph.calls if isinstance(call.operation, ActivationQuantizer)]
    assert quantizers[1] is quantizers[2]
    assert len(quantizers) == 3


def test_channels_first_computes_in_integers():
    model = chain(
        layers.Conv2D(3, 3, data_format="channels_first", name="conv"),
        *(layers.Flatten(name="flat"), layers.Dense(2, name="head")),
        shape=(3, 8, 8),
    )
    steps = operations(quantize_model(model))
    assert steps[0] == "Q"
    assert [step for step in steps if step in ("conv", "flat", "head")] == ["conv", "flat", "head"]
    assert len(steps) == 8, steps
