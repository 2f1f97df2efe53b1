"""Calibration data of inputs and labels, as `fit` takes it."""

import keras
import numpy as np
import pytest
from keras import layers, ops

from keras_mot.layers.activation_quantizer import activation_quantizers
from keras_mot.quantization import quantize_post_training

X = np.random.default_rng(0).standard_normal((64, 5)).astype("float32")


def autoencoder():
    return keras.Sequential([keras.Input((5,)), layers.Dense(8, activation="relu"), layers.Dense(5)])


def ranges(model):
    return [quantizer.parameters().range for quantizer in activation_quantizers(model)]


@pytest.mark.parametrize(
    "data",
    [(X, 1000.0 * X), (X, np.arange(64)), (X, 1000.0 * X, np.ones(64)), [(X[:32], X[:32]), (X[32:], X[32:])]],
    ids=["labels like inputs", "classes", "weights", "batches"],
)
def test_labels_are_no_inputs(data):
    model = autoencoder()
    expected = quantize_post_training(model, calibration_data=X)
    assert ranges(quantize_post_training(model, calibration_data=data)) == ranges(expected)


def test_a_list_is_batches():
    model = autoencoder()
    quantized = quantize_post_training(model, calibration_data=[X, 10.0 * X])
    np.testing.assert_allclose(ranges(quantized)[0][1], 10 * X.max(), rtol=0.02)


def test_a_tuple_of_other_lengths_says_what_a_tuple_is():
    with pytest.raises(ValueError, match=r"inputs and of labels.*Give batches as a list"):
        quantize_post_training(autoencoder(), calibration_data=(X, X[:10]))


def test_two_inputs_are_inputs():
    a, b = keras.Input((5,)), keras.Input((5,))
    model = keras.Model([a, b], layers.Dense(3)(layers.Add()([a, b])))
    quantized = quantize_post_training(model, calibration_data=(X, X))
    expected = quantize_post_training(model, calibration_data=([X, X], np.arange(64)))
    assert ranges(quantized) == ranges(expected)
    assert ops.convert_to_numpy(quantized([X, X])).shape == (64, 3)
