"""Recurrent layers and attention that are called with masks."""

import keras
import numpy as np
import pytest
from keras import layers, ops

from keras_mot.export import LiteRTRunner, export_litert
from keras_mot.graph.rewrite import flatten
from keras_mot.layers.activation_quantizer import activation_quantizers
from keras_mot.quantization import INT8, quantize_post_training
from keras_mot.quantization.lowering.lowering import lower

only_tensorflow = pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="the file is made in the same way on every backend"
)
SETTINGS = {"equalize": False, "correct_biases": False, "progress": False}


def words(*parts):
    inputs = keras.Input((4,), dtype="int32")
    x = layers.Embedding(9, 4, keras.initializers.RandomNormal(stddev=1.5), mask_zero=True)(inputs)
    for part in parts:
        x = part(x)
    return keras.Model(inputs, x)


def with_states():
    inputs = keras.Input((4,), dtype="int32")
    x = layers.Embedding(9, 4, keras.initializers.RandomNormal(stddev=1.5), mask_zero=True)(inputs)
    _, *states = layers.LSTM(3, return_state=True)(x)
    outputs = layers.LSTM(3, return_sequences=True)(x, initial_state=states)
    return keras.Model(inputs, layers.Dense(2)(outputs))


RECURRENT = {
    "LSTM": lambda: words(layers.LSTM(3)),
    "GRU, sequences": lambda: words(layers.GRU(3, return_sequences=True), layers.SimpleRNN(2)),
    "zero outputs": lambda: words(layers.GRU(3, return_sequences=True, zero_output_for_mask=True)),
    "bidirectional": lambda: words(layers.Bidirectional(layers.LSTM(3, return_sequences=True)), layers.GRU(2)),
    "stacked cells": lambda: words(layers.RNN([layers.GRUCell(3), layers.LSTMCell(2)])),
    "initial states": with_states,
}


def data(count=24):
    generator = np.random.default_rng(0)
    lengths = generator.integers(1, 5, (count, 1))
    return np.where(np.arange(4) < lengths, generator.integers(1, 9, (count, 4)), 0).astype("int32")


def outputs(model, x):
    return ops.convert_to_numpy(model(x, training=False))


@pytest.mark.parametrize("name", RECURRENT)
def test_masked_timesteps_keep_the_state(name):
    keras.utils.set_random_seed(0)
    model, x = RECURRENT[name](), data()
    lowered = lower(flatten(model)).model
    assert not any(isinstance(layer, layers.RNN | layers.Bidirectional) for layer in lowered.layers)
    np.testing.assert_allclose(outputs(lowered, x), outputs(model, x), atol=1e-5)


def attending(layer, **arguments):
    inputs = keras.Input((4,), dtype="int32")
    x = layers.Embedding(9, 4, keras.initializers.RandomNormal(stddev=1.5), mask_zero="masked" in arguments)(inputs)
    arguments.pop("masked", None)
    return keras.Model(inputs, layers.Dense(3)(layers.GlobalAveragePooling1D()(layer(x, x, **arguments))))


def attending_to_some(layer):
    inputs, mask = keras.Input((4, 4)), keras.Input((4, 4), dtype="int32")
    return keras.Model([inputs, mask], layers.Dense(3)(layer(inputs, inputs, attention_mask=mask)))


ATTENTION = {
    "causal": lambda: attending(layers.MultiHeadAttention(2, 4), use_causal_mask=True),
    "words": lambda: attending(layers.MultiHeadAttention(2, 4, dropout=0.1), masked=True),
    "both": lambda: attending(layers.GroupQueryAttention(4, 4, 2), masked=True, use_causal_mask=True),
    "given": lambda: attending_to_some(layers.MultiHeadAttention(2, 4)),
}


def attended(name):
    if name != "given":
        return data()
    generator = np.random.default_rng(2)
    mask = generator.integers(0, 2, (24, 4, 4)) | np.eye(4, dtype=int)
    return [generator.standard_normal((24, 4, 4)).astype("float32"), mask.astype("int32")]


@pytest.mark.parametrize("name", ATTENTION)
def test_attention_with_masks_is_broken_down(name):
    keras.utils.set_random_seed(0)
    model, x = ATTENTION[name](), attended(name)
    lowered = lower(flatten(model)).model
    assert not any(
        isinstance(layer, layers.MultiHeadAttention | layers.GroupQueryAttention) for layer in lowered.layers
    )
    np.testing.assert_allclose(outputs(lowered, x), outputs(model, x), atol=1e-5)


@only_tensorflow
@pytest.mark.parametrize("name", ["both", "given"])
def test_attention_with_masks_in_a_file(name, tmp_path):
    keras.utils.set_random_seed(0)
    model, x = ATTENTION[name](), attended(name)
    quantized = quantize_post_training(model, INT8, x, **SETTINGS)
    assert np.abs(outputs(quantized, x) - outputs(model, x)).max() < 0.05 * np.abs(outputs(model, x)).max()
    result = export_litert(quantized, tmp_path / "model.tflite", verification_data=x)
    kinds = {kind for kind, _, _ in result.float_operators}
    assert "SOFTMAX" in kinds
    assert "FULLY_CONNECTED" not in kinds
    (received,) = LiteRTRunner(tmp_path / "model.tflite").run(x).values()
    steps = np.abs(received - outputs(quantized, x)) / activation_quantizers(quantized)[-1].parameters().scale
    assert steps.max() < 2.1  # a tie that floats decide otherwise goes on
    assert (steps < 0.1).mean() > 0.9


@only_tensorflow
def test_a_masked_softmax_is_in_floats_for_want_of_an_integer_and_not_for_speed(tmp_path):
    x = attended("given")
    quantized = quantize_post_training(ATTENTION["given"](), INT8, x, placement="integer", **SETTINGS)
    result = export_litert(quantized, tmp_path / "model.tflite", verification_data=x)
    reasons = {kind: reason for kind, _, reason in result.float_operators}
    assert "no integer stands for what is left out" in reasons["SOFTMAX"]
    assert not any("faster" in reason for reason in reasons.values())
    with pytest.raises(ValueError, match="a softmax with a mask") as refused:
        export_litert(quantized, tmp_path / "model.tflite", verification_data=x, strict=True)
    assert "placement=" not in str(refused.value)


@only_tensorflow
@pytest.mark.parametrize("name", ["LSTM", "initial states"])
def test_masked_timesteps_in_integers(name, tmp_path):
    keras.utils.set_random_seed(0)
    model, x = RECURRENT[name](), data()
    quantized = quantize_post_training(model, INT8, x, **SETTINGS)
    assert np.abs(outputs(quantized, x) - outputs(model, x)).max() < 0.08 * np.abs(outputs(model, x)).max()
    export_litert(quantized, tmp_path / "model.tflite", strict=True)
    (received,) = LiteRTRunner(tmp_path / "model.tflite").run(x).values()
    steps = np.abs(received - outputs(quantized, x)) / activation_quantizers(quantized)[-1].parameters().scale
    assert steps.max() < 2.1
