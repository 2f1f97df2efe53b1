"""Layers of a user's own that compute in integers, by one row of the table of kinds each."""

import keras
import numpy as np
import pytest
from keras import ops

from keras_mot.export import LiteRTRunner, export_litert
from keras_mot.graph.kinds import ACTIVATION, ELEMENTWISE, Kind, register_kind
from keras_mot.layers import WeightAxes, transformed_weights
from keras_mot.layers.activation_quantizer import activation_quantizers
from keras_mot.quantization import (
    INT4_WEIGHTS,
    INT8,
    INT16X8,
    MinMax,
    QuantizationScheme,
    quantize_model,
    quantize_post_training,
    reference_rounding,
)
from keras_mot.transforms import FakeQuantize
from tests.quantization.test_coverage import only_tensorflow

X = np.random.default_rng(0).normal(size=(256, 20)).astype("float32")


@keras.saving.register_keras_serializable("test_own_layers")
class Linear(keras.layers.Layer):
    """A product with a matrix of (outputs, inputs)."""

    def __init__(self, features, **kwargs):
        super().__init__(**kwargs)
        self.features = features

    def build(self, input_shape):
        self.matrix = self.add_weight(shape=(self.features, input_shape[-1]), name="matrix")
        self.offset = self.add_weight(shape=(self.features,), initializer="random_normal", name="offset")

    def call(self, inputs):
        return ops.matmul(inputs, ops.transpose(self.matrix)) + self.offset

    def get_config(self):
        return {**super().get_config(), "features": self.features}


@keras.saving.register_keras_serializable("test_own_layers")
class SquaredReLU(keras.layers.Layer):
    def call(self, inputs):
        return ops.relu(inputs) ** 2


@keras.saving.register_keras_serializable("test_own_layers")
class Magnitude(keras.layers.Layer):
    def call(self, inputs):
        return ops.abs(inputs)


def _two_steps(layer, inputs):
    positive = ops.relu(inputs)
    return positive * positive


register_kind(Linear, keras.layers.Dense, kernel="matrix", axes=WeightAxes(inputs=(1,), outputs=(0,)), bias="offset")
register_kind(SquaredReLU, Kind("squared_relu", ACTIVATION, steps=_two_steps))
register_kind(Magnitude, Kind("absolute", ELEMENTWISE))


def network():
    keras.utils.set_random_seed(0)
    parts = [Linear(16, name="first"), SquaredReLU(), Linear(8), keras.layers.ReLU(), Magnitude(), Linear(4)]
    return keras.Sequential([keras.Input((20,)), *parts])


def test_weights_and_biases_are_integers():
    quantized = quantize_post_training(network(), INT8, X)
    first = quantized.get_layer("first")
    (weight,) = transformed_weights(first)
    matrix = ops.convert_to_numpy(first.matrix)
    scales = np.abs(matrix).max(axis=1, keepdims=True) / 127  # one for each row
    rounded = ops.convert_to_numpy(weight.transform_of(FakeQuantize)(first.matrix))
    np.testing.assert_allclose(rounded, np.rint(matrix / scales) * scales, atol=1e-6)
    steps = activation_quantizers(quantized)[0].parameters().scale * scales.reshape(-1)
    biases = ops.convert_to_numpy(first.offset) / steps
    np.testing.assert_allclose(biases, np.rint(biases), atol=0.01)
    assert np.abs(biases).max() > 10


def test_it_is_rounded_in_one_step_with_what_follows():
    quantized = quantize_model(network())
    # Behind the input, the first matrix with its ReLU, the square, the second matrix with its ReLU, and the last two.
    assert len(activation_quantizers(quantized)) == 6
    expected = ops.convert_to_numpy(network()(X))
    received = ops.convert_to_numpy(quantize_post_training(network(), INT8, X, estimator=MinMax())(X))
    np.testing.assert_allclose(received, expected, atol=0.08 * np.abs(expected).max())


def test_it_trains_and_is_saved(tmp_path):
    quantized = quantize_post_training(network(), INT8, X)
    quantized.compile("sgd", "mse")
    before = ops.convert_to_numpy(quantized.get_layer("first").matrix)
    quantized.fit(X, np.zeros((256, 4), "float32"), batch_size=128, verbose=0)
    assert np.abs(before - ops.convert_to_numpy(quantized.get_layer("first").matrix)).max() > 0
    quantized.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(*(ops.convert_to_numpy(model(X, training=False)) for model in (quantized, loaded)))


def test_a_row_has_no_other_attributes_than_kinds():
    with pytest.raises(TypeError, match=r"no argument 'kernl'.*kernel"):
        register_kind(Magnitude, keras.layers.Dense, kernl="matrix")


@only_tensorflow
@pytest.mark.parametrize(
    "scheme", [INT8, INT16X8, INT4_WEIGHTS, QuantizationScheme(weight_bits=6), QuantizationScheme(per_channel=False)]
)
def test_the_file_computes_in_integers(scheme, tmp_path):
    quantized = quantize_post_training(network(), scheme, X)
    assert export_litert(quantized, tmp_path / "model.tflite", strict=True).float_operators == ()
    (received,) = LiteRTRunner(tmp_path / "model.tflite", kernels="reference").run(X).values()
    with reference_rounding(quantized):
        expected = ops.convert_to_numpy(quantized(X, training=False))
    step = quantized.layers[-1].parameters().scale
    steps = np.rint(received / step) - np.rint(expected / step)
    assert np.abs(steps).max() == 0 if scheme is INT8 else np.abs(steps).max() <= 4


class AveragedSquares(keras.layers.Average):
    """A subclass of a layer that has steps of its own, which are not those of this one."""

    def call(self, inputs):
        return ops.square(inputs[0] + inputs[1])


class ScaledShift(keras.layers.Layer):
    def call(self, inputs, scale=None, training=None, shift=None):
        inputs = inputs if scale is None else inputs * scale
        return inputs if shift is None else inputs + shift


def _square_of_sum(layer, inputs):
    total = inputs[0] + inputs[1]
    return total * total


def _scaled_shift(layer, inputs, scale=None, shift=None):
    inputs = inputs if scale is None else inputs * scale
    return inputs if shift is None else inputs + shift


register_kind(AveragedSquares, Kind("averaged_squares", ELEMENTWISE, steps=_square_of_sum))
register_kind(ScaledShift, Kind("scaled_shift", ELEMENTWISE, steps=_scaled_shift))


def test_steps_of_a_subclass_go_before_those_of_what_it_inherits_from():
    inputs = keras.Input((20,))
    model = keras.Model(inputs, keras.layers.Dense(2)(AveragedSquares()([inputs, inputs])))
    quantized = quantize_post_training(model, INT8, X, estimator=MinMax())
    assert not any(isinstance(layer, AveragedSquares) for layer in quantized.layers)
    expected = ops.convert_to_numpy(model(X))
    np.testing.assert_allclose(ops.convert_to_numpy(quantized(X)), expected, atol=0.05 * np.abs(expected).max())


@pytest.mark.parametrize("arguments", [{"scale": 3.0}, {"scale": 3.0, "shift": 2.0}, {"shift": 2.0}])
def test_steps_get_the_arguments_of_the_call_or_are_not_taken(arguments):
    inputs = keras.Input((20,))
    model = keras.Model(inputs, keras.layers.Dense(2)(ScaledShift()(inputs, **arguments)))
    quantized = quantize_post_training(model, INT8, X, estimator=MinMax())
    in_floats = any(isinstance(layer, ScaledShift) for layer in quantized.layers)
    assert in_floats == (list(arguments) == ["shift"])
    expected = ops.convert_to_numpy(model(X))
    np.testing.assert_allclose(ops.convert_to_numpy(quantized(X)), expected, atol=0.05 * np.abs(expected).max())
