"""Activations that are callables without a form to save: `functools.partial`, bound methods, objects."""

import functools

import keras
import numpy as np
import pytest
from keras import layers, ops

from keras_mot.layers import copy_model
from keras_mot.quantization import INT8, quantize_post_training
from keras_mot.sparsity import ConstantSparsity, prune_low_magnitude
from tests.graph.test_opening import functional


class Halved:
    """A callable object, with a method that is one, too."""

    def __call__(self, x):
        return ops.relu(x) * 0.5

    def bent(self, x):
        return ops.tanh(x) * 2.0


class Activated(layers.Layer):
    """A layer of a user's with an argument that its configuration does not name."""

    def __init__(self, activation, **kwargs):
        super().__init__(**kwargs)
        self.activation, self.dense = activation, layers.Dense(5, activation=activation)

    def build(self, shape):
        self.dense.build(shape)

    def call(self, inputs):
        return self.activation(self.dense(inputs))

    def compute_output_shape(self, shape):
        return (*shape[:-1], 5)


CALLABLES = [functools.partial(ops.leaky_relu, negative_slope=0.3), Halved(), Halved().bent]
LAYERS = {
    "dense": lambda function: layers.Dense(4, activation=function),
    "activation": layers.Activation,
    "lambda": layers.Lambda,
    "wrapped": lambda function: layers.TimeDistributed(layers.Dense(3, activation=function)),
    "own": Activated,
}


@pytest.mark.parametrize("make", LAYERS.values(), ids=LAYERS)
@pytest.mark.parametrize("function", CALLABLES, ids=["partial", "object", "method"])
def test_copies_compute_the_same(function, make, rng):
    layer = make(function)
    shape = (3, 2) if isinstance(layer, layers.TimeDistributed) else (6,)
    model = functional(layer, layers.Flatten(), layers.Dense(2), shape=shape)
    data = rng.standard_normal((16, *shape)).astype("float32")
    expected = ops.convert_to_numpy(model(data))
    for copied in (copy_model(model), prune_low_magnitude(model, ConstantSparsity(0.5, 0))):
        np.testing.assert_allclose(ops.convert_to_numpy(copied(data)), expected, rtol=1e-5, atol=1e-6)
    assert getattr(layer, "activation", function) in (function, keras.activations.linear)
    if function is CALLABLES[0]:
        quantized = quantize_post_training(model, INT8, data, equalize=False, correct_biases=False)
        difference = np.abs(ops.convert_to_numpy(quantized(data)) - expected).max()
        assert difference < 0.1 * np.abs(expected).max()
