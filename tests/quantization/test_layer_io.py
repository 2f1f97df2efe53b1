"""The inputs and outputs of one layer, against a plain computation."""

import keras
import numpy as np
import pytest

from keras_mot._arrays import numpy_value
from keras_mot.layers.activation_quantizer import activation_quantizers
from keras_mot.layers.transformed import transformed_weights
from keras_mot.quantization import INT4_WEIGHTS, INT8, layer_io, quantize_post_training
from keras_mot.transforms import FakeQuantize


def _rounded(values, parameters):
    integers = np.round(values.astype("float64") / parameters.scale) + parameters.zero_point
    return (np.clip(integers, -128, 127) - parameters.zero_point) * parameters.scale


def _kernel(layer):
    (weight,) = transformed_weights(layer)
    integers, scale = weight.transform_of(FakeQuantize).integers(numpy_value(weight.variable))
    return numpy_value(weight.variable), integers * scale, numpy_value(layer.bias)


def test_against_a_plain_computation(rng):
    x = rng.standard_normal((50, 6)).astype("float32")
    first, second = keras.layers.Dense(5, "relu", name="a"), keras.layers.Dense(3, name="b")
    model = keras.Sequential([keras.Input((6,)), first, second])
    quantized = quantize_post_training(model, INT4_WEIGHTS, x, correct_biases=False)
    (seen,) = layer_io(quantized, "b", x, batch_size=16)
    quantizers = activation_quantizers(quantized)
    kernel, rounded_kernel, bias = _kernel(quantized.get_layer("a"))
    hidden = np.maximum(x @ kernel + bias, 0)
    rounded = np.maximum(_rounded(x, quantizers[0].parameters()) @ rounded_kernel + bias, 0)
    rounded = _rounded(rounded, quantizers[1].parameters())
    kernel, rounded_kernel, bias = _kernel(quantized.get_layer("b"))
    for (received,), expected in (
        (seen.inputs, hidden),
        (seen.outputs, hidden @ kernel + bias),
        (seen.rounded_inputs, rounded),
        (seen.rounded_outputs, rounded @ rounded_kernel + bias),
    ):
        np.testing.assert_allclose(received, expected, rtol=0, atol=1e-5)
    np.testing.assert_allclose(seen.outputs[0], model.predict(x, verbose=0), rtol=0, atol=1e-5)


def test_a_layer_that_is_called_twice(rng):
    shared = keras.layers.Dense(4, name="shared")
    inputs = keras.Input((4,))
    once = shared(inputs)
    model = keras.Model(inputs, shared(keras.layers.ReLU()(once)))
    x = rng.standard_normal((20, 4)).astype("float32")
    quantized = quantize_post_training(model, INT8, x)
    first, second = layer_io(quantized, quantized.get_layer("shared"), [x[:12], x[12:]])
    kernel, bias = (numpy_value(variable) for variable in (shared.kernel, shared.bias))
    np.testing.assert_array_equal(first.inputs[0], x)
    np.testing.assert_allclose(first.outputs[0], x @ kernel + bias, rtol=0, atol=1e-5)
    np.testing.assert_allclose(second.inputs[0], np.maximum(x @ kernel + bias, 0), rtol=0, atol=1e-5)
    np.testing.assert_allclose(second.outputs[0], model.predict(x, verbose=0), rtol=0, atol=1e-5)
    assert np.abs(second.rounded_outputs[0] - second.outputs[0]).max() > 0


def test_several_inputs(rng):
    inputs = keras.Input((4,))
    left, right = (keras.layers.Dense(3, name=name)(inputs) for name in ("left", "right"))
    model = keras.Model(inputs, keras.layers.Subtract(name="difference")([left, right]))
    x = rng.standard_normal((20, 4)).astype("float32")
    (seen,) = layer_io(quantize_post_training(model, INT8, x), "difference", x)
    assert len(seen.inputs) == len(seen.rounded_inputs) == 2
    np.testing.assert_allclose(seen.inputs[0] - seen.inputs[1], seen.outputs[0], rtol=0, atol=1e-6)


def test_what_it_refuses(rng):
    x = rng.standard_normal((20, 4)).astype("float32")
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, name="dense")])
    with pytest.raises(TypeError, match="expects a quantized Keras model"):
        layer_io("model", "dense", x)
    with pytest.raises(ValueError, match="is not quantized"):
        layer_io(model, "dense", x)
    with pytest.raises(ValueError, match="has no layer 'desne'; there are"):
        layer_io(quantize_post_training(model, INT8, x), "desne", x)
