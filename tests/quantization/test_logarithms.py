"""Powers that logarithms alone read, as those of spectra."""

import keras
import numpy as np
import pytest
from keras import layers, ops

from keras_mot.export import export_litert
from keras_mot.graph.kinds import is_kind
from keras_mot.graph.logarithms import before_logarithms
from keras_mot.graph.model_graph import Graph
from keras_mot.layers.activation_quantizer import activation_quantizers
from keras_mot.quantization import INT8, quantize_post_training

SETTINGS = {"equalize": False, "correct_biases": False, "progress": False, "placement": "integer"}


@keras.saving.register_keras_serializable("test_logarithms")
class Spectrum(layers.Layer):
    """The logarithm of the power of some bands."""

    def call(self, inputs):
        """The spectrum."""
        generator = np.random.default_rng(5)
        real, imaginary = (ops.matmul(inputs, generator.normal(size=(8, 12)).astype("float32")) for _ in range(2))
        power = ops.square(real) + ops.square(imaginary)
        bands = ops.matmul(power, generator.uniform(size=(12, 6)).astype("float32"))
        return ops.log(bands + 1e-3)


def spectral():
    keras.utils.set_random_seed(0)
    return keras.Sequential([keras.Input((8,)), Spectrum(name="spectrum"), layers.Dense(4)])


def data():
    generator = np.random.default_rng(0)
    loudness = 10.0 ** generator.uniform(-1.5, 1.0, (64, 1))  # of 50 decibels
    return (loudness * generator.normal(size=(64, 8))).astype("float32")


def noise(quantized, model, x):
    expected = ops.convert_to_numpy(model(x))
    return 10 * np.log10(expected.var() / np.mean((ops.convert_to_numpy(quantized(x)) - expected) ** 2))


def test_they_stay_in_floats_unless_that_is_asked_for():
    model, x = spectral(), data()
    quantized = quantize_post_training(model, INT8, x, **SETTINGS)
    asked = quantize_post_training(model, INT8, x, overrides={"spectrum": INT8}, **SETTINGS)
    assert len(activation_quantizers(quantized)) < len(activation_quantizers(asked))
    assert noise(quantized, model, x) > noise(asked, model, x) + 6.0


def kinds_before(function):
    inputs = keras.Input((4,))
    graph = Graph(keras.Model(inputs, function(layers.Dense(4)(inputs))))
    found = before_logarithms(graph)
    return [type(call.operation).__name__ for call in graph.calls if id(call.operation) in found]


def test_what_is_found():
    assert kinds_before(lambda x: ops.log(ops.sum(ops.square(x), axis=-1) + 1.0)) == ["Square", "Sum", "Add", "Log"]
    assert kinds_before(lambda x: ops.log(ops.sum(ops.exp(x), axis=-1))) == ["Exp", "Sum", "Log"]
    assert kinds_before(lambda x: ops.log(layers.Dense(3, trainable=False)(x * x))) == ["Multiply", "Dense", "Log"]
    assert kinds_before(lambda x: ops.log(layers.Dense(3)(x * x))) == []
    assert kinds_before(lambda x: ops.log(ops.sigmoid(x) + 1e-3)) == []
    assert kinds_before(lambda x: [ops.log(y) + y for y in [ops.square(x)]]) == []


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="the file is made in the same way on each backend")
def test_a_file_says_why(tmp_path):
    quantized = quantize_post_training(spectral(), INT8, data(), **SETTINGS)
    assert not any(is_kind(operation, "square") for operation in quantized.operations)
    result = export_litert(quantized, tmp_path / "model.tflite")
    reasons = {kind: reason for kind, _, reason in result.float_operators}
    assert "a logarithm reads it" in reasons["LOG"]
    assert {"MUL", "ADD", "LOG"} <= set(reasons)
