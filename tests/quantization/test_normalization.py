"""Normalization by statistics of the sample, in integers."""

import keras
import numpy as np
import pytest
from keras import layers, ops

from keras_mot.export import LiteRTRunner, export_litert
from keras_mot.graph.rewrite import flatten
from keras_mot.layers.activation_quantizer import activation_quantizers
from keras_mot.quantization import INT8, INT16X8, quantize_post_training
from keras_mot.quantization.lowering.lowering import lower

SETTINGS = {"equalize": False, "correct_biases": False, "progress": False}
SHAPE = (3, 4, 8)
LAYERS = {
    "layer": lambda: layers.LayerNormalization(),
    "layer, two axes": lambda: layers.LayerNormalization(axis=(-2, -1), center=False),
    "layer, plain": lambda: layers.LayerNormalization(center=False, scale=False),
    "group": lambda: layers.GroupNormalization(2),
    "instance": lambda: layers.GroupNormalization(-1, scale=False),
    "rms": lambda: layers.RMSNormalization(),
    "unit": lambda: layers.UnitNormalization(),
}


def build(name):
    inputs = keras.Input(SHAPE)
    layer = LAYERS[name]()
    x = layers.Dense(8)(inputs)
    model = keras.Model(inputs, layers.Dense(5)(layer(x)))
    generator = np.random.default_rng(1)
    for weight in layer.weights:
        weight.assign(generator.uniform(0.5, 1.5, weight.shape))
    return model


def data(count=24, size=SHAPE):
    return np.random.default_rng(0).standard_normal((count, *size)).astype("float32")


def outputs(model, x):
    return ops.convert_to_numpy(model(x, training=False))


def decibels(expected, received):
    return 10 * np.log10((expected**2).mean() / ((expected - received) ** 2).mean())


@pytest.mark.parametrize("name", LAYERS)
def test_it_is_broken_down_exactly(name):
    model, x = build(name), data()
    lowered = lower(flatten(model)).model
    assert not any(isinstance(layer, type(LAYERS[name]())) for layer in lowered.layers)
    np.testing.assert_allclose(outputs(lowered, x), outputs(model, x), atol=2e-5)


GAIN, SHIFT = np.random.default_rng(4).uniform(0.5, 1.5, (2, 8)).astype("float32")
OPERATIONS = {
    "LayerNorm": lambda x: ops.layer_normalization(x, GAIN, SHIFT),
    "RMSNorm": lambda x: ops.rms_normalization(x, GAIN),
    "Normalize": lambda x: ops.normalize(x),
}


@pytest.mark.parametrize("name", OPERATIONS)
def test_operations_are_broken_down_exactly(name):
    inputs, x = keras.Input(SHAPE), data()
    model = keras.Model(inputs, layers.Dense(5)(OPERATIONS[name](layers.Dense(8)(inputs))))
    lowered = lower(flatten(model)).model
    assert name not in [type(operation).__name__ for operation in lowered.operations]
    np.testing.assert_allclose(outputs(lowered, x), outputs(model, x), atol=2e-5)


@pytest.mark.parametrize("name", LAYERS)
def test_it_computes_in_integers(name, tmp_path):
    model, x = build(name), data()
    quantized = quantize_post_training(model, INT8, x, placement="integer", **SETTINGS)
    assert decibels(outputs(model, x), outputs(quantized, x)) > 25
    if keras.backend.backend() != "tensorflow":
        return
    export_litert(quantized, tmp_path / "model.tflite", strict=True)
    (received,) = LiteRTRunner(tmp_path / "model.tflite").run(x).values()
    steps = np.abs(received - outputs(quantized, x)) / activation_quantizers(quantized)[-1].parameters().scale
    assert (steps < 1.1).mean() > 0.98


def test_large_channels_do_not_drown_the_others():
    inputs = keras.Input((16, 32))
    model = keras.Model(inputs, layers.Dense(4)(layers.LayerNormalization()(inputs)))
    x = data(32, (16, 32)) * np.where(np.arange(32) == 5, 10.0, 1.0).astype("float32")
    quantized = quantize_post_training(model, INT8, x, placement="integer", **SETTINGS)
    # In floats between two roundings to 8 bits it is 25.
    assert decibels(outputs(model, x), outputs(quantized, x)) > 20


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (layers.LayerNormalization(axis=1), SHAPE),
        (layers.LayerNormalization(), (None, 4)),
        (layers.GroupNormalization(2, axis=1), (4, 6, 8)),
        (layers.GroupNormalization(1), (128, 128, 4)),
    ],
)
def test_what_stays_whole(layer, shape):
    inputs = keras.Input(shape)
    lowered = lower(flatten(keras.Model(inputs, layer(inputs)))).model
    assert any(type(each) is type(layer) for each in lowered.layers)


def test_16_bits_have_no_roots():
    quantized = quantize_post_training(build("layer"), INT16X8, data(), **SETTINGS)
    assert any(isinstance(layer, layers.LayerNormalization) for layer in quantized.layers)
