"""The ranges of a quantized model against data, checked with NumPy alone."""

import keras
import numpy as np
import pytest

from keras_mot.analysis import activation_ranges
from keras_mot.quantization import INT8, quantize_post_training

DATA = np.random.default_rng(0).normal(size=(96, 6)).astype("float32")


@pytest.fixture(scope="module")
def model():
    keras.utils.set_random_seed(0)
    return keras.Sequential(
        [
            keras.Input((6,), name="given"),
            keras.layers.Dense(8, activation="relu", name="hidden"),
            keras.layers.Dense(3, activation="softmax", name="classes"),
        ]
    )


@pytest.fixture(scope="module")
def quantized(model):
    return quantize_post_training(model, INT8, DATA, placement="integer")


def hidden(model, x):
    kernel, bias = map(keras.ops.convert_to_numpy, model.get_layer("hidden").weights)
    return np.maximum(x @ kernel + bias, 0.0)


@pytest.mark.parametrize("factor", [1.0, 3.0, 0.1])
def test_what_data_have_where_activations_are_rounded(model, quantized, factor):
    rows = {row.name: row for row in activation_ranges(quantized, factor * DATA)}
    row, values = rows["hidden_quantizer"], hidden(model, factor * DATA)
    assert (row.bits, row.fixed) == (8, False)
    np.testing.assert_allclose((row.seen_low, row.seen_high), (values.min(), values.max()), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(row.usual_high, np.percentile(values, 99.9), rtol=1e-4)
    step = (row.high - row.low) / 255
    assert row.clipped == pytest.approx(np.mean(values > row.high + step / 2), abs=2e-3)
    assert row.used == pytest.approx(min(values.max(), row.high) / row.high, rel=1e-4)
    assert rows["classes_softmax_quantizer"].fixed
    assert list(rows)[-1] == "classes_softmax_quantizer"  # in the order of the computation


def test_the_model_rounds_as_before(quantized):
    before = keras.ops.convert_to_numpy(quantized(DATA, training=False))
    activation_ranges(quantized, DATA[:32])
    np.testing.assert_array_equal(keras.ops.convert_to_numpy(quantized(DATA, training=False)), before)


def test_what_is_no_quantized_model(model):
    with pytest.raises(ValueError, match="is not quantized"):
        activation_ranges(model, DATA)
    with pytest.raises(TypeError, match="expects a Keras model"):
        activation_ranges("model.keras", DATA)


def test_data_that_are_no_numbers(quantized):
    with pytest.raises(ValueError, match="NaN"):
        activation_ranges(quantized, np.full_like(DATA, np.nan))
