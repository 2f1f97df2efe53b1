"""Recurrent layers and attention that are called with masks."""

import keras
import numpy as np
import pytest
from keras import layers, ops

from keras_mot.export import LiteRTRunner, export_litert
from keras_mot.graph.rewrite import flatten
from keras_mot.layers.activation_quantizer import activation_quantizers
from keras_mot.layers.scores_quantizer import ScoresQuantizer
from keras_mot.quantization import INT8, quantize_post_training, reference_rounding
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


def by_hand(leave_out):
    """Attention of one head; `leave_out` says what becomes of its scores by a mask."""
    inputs, mask = keras.Input((4, 4)), keras.Input((4, 4), dtype="int32")
    query, key, value = (layers.Dense(4)(inputs) for _ in range(3))
    scores = leave_out(ops.matmul(query, ops.transpose(key, (0, 2, 1))), mask)
    return keras.Model([inputs, mask], layers.Dense(3)(ops.matmul(ops.softmax(scores), value)))


def attending_by_sums():
    return by_hand(lambda scores, mask: scores + (1.0 - ops.cast(mask, "float32")) * -1e9)


ATTENTION = {
    "causal": lambda: attending(layers.MultiHeadAttention(2, 4), use_causal_mask=True),
    "words": lambda: attending(layers.MultiHeadAttention(2, 4, dropout=0.1), masked=True),
    "both": lambda: attending(layers.GroupQueryAttention(4, 4, 2), masked=True, use_causal_mask=True),
    "given": lambda: attending_to_some(layers.MultiHeadAttention(2, 4)),
    "written": lambda: by_hand(lambda scores, mask: ops.where(mask > 0, scores, -1e9)),
}


def attended(name):
    if name not in ("given", "written"):
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
    reasons = {kind: reason for kind, _, reason in result.float_operators}
    assert "faster in floats" in reasons["SOFTMAX"]
    assert "FULLY_CONNECTED" not in reasons
    (received,) = LiteRTRunner(tmp_path / "model.tflite").run(x).values()
    steps = np.abs(received - outputs(quantized, x)) / activation_quantizers(quantized)[-1].parameters().scale
    assert steps.max() < 2.1  # a tie that floats decide otherwise goes on
    assert (steps < 0.1).mean() > 0.9


@only_tensorflow
@pytest.mark.parametrize("name", ["both", "written"])
def test_attention_with_masks_in_integers(name, tmp_path):
    keras.utils.set_random_seed(0)
    model, x = ATTENTION[name](), attended(name)
    quantized = quantize_post_training(model, INT8, x, placement="integer", **SETTINGS)
    assert np.abs(outputs(quantized, x) - outputs(model, x)).max() < 0.05 * np.abs(outputs(model, x)).max()
    result = export_litert(quantized, tmp_path / "model.tflite", verification_data=x)
    assert not {"BATCH_MATMUL", "SELECT_V2", "SOFTMAX"} & {kind for kind, _, _ in result.float_operators}
    with reference_rounding(quantized):
        expected = outputs(quantized, x)
    (received,) = LiteRTRunner(tmp_path / "model.tflite", kernels="reference").run(x).values()
    steps = np.abs(received - expected) / activation_quantizers(quantized)[-1].parameters().scale
    assert steps.max() < 1.1
    assert (steps < 0.1).mean() > 0.95


@only_tensorflow
def test_what_adds_minus_infinity_is_in_floats_for_want_of_an_integer(tmp_path):
    x = attended("given")
    quantized = quantize_post_training(attending_by_sums(), INT8, x, placement="integer", **SETTINGS)
    result = export_litert(quantized, tmp_path / "model.tflite", verification_data=x)
    reasons = {kind: reason for kind, _, reason in result.float_operators}
    assert "no integer stands for what is left out" in reasons["SOFTMAX"]
    with pytest.raises(ValueError, match="a softmax with a mask") as refused:
        export_litert(quantized, tmp_path / "model.tflite", verification_data=x, strict=True)
    assert "placement=" not in str(refused.value)


@pytest.mark.parametrize("bits", [8, 16])
def test_what_is_left_out_of_scores_gets_less_than_half_a_step(bits):
    generator = np.random.default_rng(3)
    scores = generator.normal(2.0, 3.0, (32, 2, 6, 12)).astype("float32")
    mask = generator.random(scores.shape) < 0.3
    mask[..., 0] = True
    mask[5] = False  # all is left out
    quantizer = ScoresQuantizer(bits)
    far = np.where(mask, scores, -1e9)
    quantizer(far, training=True)  # the first batch is the range
    low, high = quantizer.clipping_range
    greatest = np.where(mask, scores, -np.inf).max(-1)
    assert high == pytest.approx(greatest.max())
    assert low == pytest.approx(greatest[greatest > -np.inf].min() - np.log(2 * 2**bits * 12), rel=1e-5)
    weights = np.exp(ops.convert_to_numpy(quantizer(far)).astype("float64"))
    weights /= weights.sum(-1, keepdims=True)
    expected = np.where(mask, np.exp(scores.astype("float64")), 0.0)
    kept = mask.any(-1)
    expected = expected[kept] / expected[kept].sum(-1, keepdims=True)
    assert np.where(mask, 0.0, weights)[kept].sum(-1).max() < 0.6 / 2**bits
    np.testing.assert_allclose(weights[kept], expected, atol=0.6 * (high - low) / 2**bits)
    np.testing.assert_allclose(weights[5], 1 / 12, rtol=1e-6)
    assert quantizer.clipping_range == (low, high)


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
