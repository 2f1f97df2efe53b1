"""`Attention` and `AdditiveAttention` with masks, broken down into steps that compute the same."""

import keras
import numpy as np
import pytest
from keras import layers, ops

from keras_mot.layers.masked_softmax import MaskedSoftmax
from keras_mot.quantization import quantize_post_training
from keras_mot.quantization.lowering.lowering import lower

IDS = np.array([[3, 7, 0, 0, 0], [1, 2, 4, 8, 0], [9, 0, 0, 0, 0], [5, 6, 7, 8, 9]] * 4, "int32")
CASES = {
    "attention": lambda: layers.Attention(name="attention"),
    "with dropout": lambda: layers.Attention(dropout=0.1, name="attention"),
    "additive": lambda: layers.AdditiveAttention(name="attention"),
    "additive, not scaled": lambda: layers.AdditiveAttention(use_scale=False, name="attention"),
}


def model_of(attention, masked, **arguments):
    keras.utils.set_random_seed(0)
    inputs = keras.Input((5,), dtype="int32")
    x = layers.Embedding(10, 6, embeddings_initializer="normal", mask_zero=masked)(inputs)
    x = attention([x, layers.Dense(6)(x)], **arguments)
    return keras.Model(inputs, layers.Dense(3)(x))


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("make", CASES.values(), ids=CASES)
def test_the_steps_compute_the_same(make, causal, masked):
    model = model_of(make(), masked, use_causal_mask=causal)
    lowered = lower(model).model
    assert not any(isinstance(layer, layers.Attention) for layer in lowered.layers)
    assert any(isinstance(layer, MaskedSoftmax) for layer in lowered.layers) == (causal or masked)
    expected, received = (ops.convert_to_numpy(each(IDS)) for each in (model, lowered))
    np.testing.assert_allclose(received, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("make", [CASES["attention"], CASES["additive"]], ids=["attention", "additive"])
def test_in_integers(make):
    model = model_of(make(), True)
    quantized = quantize_post_training(
        model, calibration_data=IDS, placement="integer", equalize=False, correct_biases=False
    )
    assert not any(isinstance(layer, layers.Attention) for layer in quantized.layers)
    expected, received = (ops.convert_to_numpy(each(IDS)) for each in (model, quantized))
    np.testing.assert_allclose(received, expected, atol=0.1 * np.abs(expected).max())


def test_what_has_no_steps_stays():
    model = model_of(layers.Attention(score_mode="concat"), True)
    assert any(isinstance(layer, layers.Attention) for layer in lower(model).model.layers)
