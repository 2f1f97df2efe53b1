"""Tests of `reference_rounding`: the simulation rounds twice, as LiteRT's reference kernels do."""

import keras
import numpy as np
import pytest

from keras_mot.export import LiteRTRunner, export_litert
from keras_mot.layers.activation_quantizer import activation_quantizers
from keras_mot.quantization import quantize_post_training, reference_rounding
from keras_mot.quantization.reference_kernels import _beyond
from tests.quantization.models import images, small_network
from tests.quantization.test_coverage import only_tensorflow


def by_integers(sums, factor):
    """What a reference kernel makes of integer sums: two roundings, half away from zero."""
    share, exponent = np.frexp(factor)
    assert exponent <= 0
    multiplier = int(np.round(share * 2**31))
    first = [(int(value) * multiplier * 2 + (1 << 31) * (1 if value >= 0 else -1)) for value in sums]
    first = np.array([abs(value) // (1 << 32) * (1 if value >= 0 else -1) for value in first])
    return np.array([(abs(value) + (1 << -exponent >> 1) >> -exponent) * (1 if value >= 0 else -1) for value in first])


@pytest.mark.parametrize("factor", [0.91373, 0.41371, 0.21379, 0.031377, 0.0061373, 0.00071237])
def test_one_rounding_after_the_move_is_two_roundings(factor):
    sums = np.random.default_rng(0).integers(-200, 200, 20000) / factor
    sums = np.round(sums + np.random.default_rng(1).uniform(-1, 1, 20000) / factor).astype("int64")
    exact = sums * factor
    moved = exact + np.sign(exact) * _beyond(factor)
    once = np.sign(moved) * np.floor(np.abs(moved) + 0.5)
    expected = by_integers(sums, factor)
    assert np.mean(once == expected) > 0.9999
    if factor < 0.5:
        plain = np.sign(exact) * np.floor(np.abs(exact) + 0.5)
        assert np.mean(plain != expected) == pytest.approx(float(_beyond(factor)), rel=0.3)


def joined_network():
    """All that reference kernels round twice: convolutions, products, means, conversions, a lone ReLU."""
    keras.utils.set_random_seed(5)
    inputs = keras.Input((12, 12, 3))
    x = keras.layers.Conv2D(8, 3, activation="relu", name="first")(inputs)
    left = keras.layers.DepthwiseConv2D(3, padding="same", name="depthwise")(x)
    gate = keras.layers.GlobalAveragePooling2D(keepdims=True, name="gate_mean")(x)
    gate = keras.layers.Conv2D(8, 1, activation="sigmoid", name="gate")(gate)
    left = keras.layers.Multiply(name="gated")([left, gate])
    both = keras.layers.Concatenate(name="both")([x, left])
    x = keras.layers.ReLU(name="lone")(keras.layers.Add(name="sum")([both, both * 0.25]))
    x = keras.layers.GlobalAveragePooling2D(name="mean")(x)
    return keras.Model(inputs, keras.layers.Dense(10, name="head")(x))


@only_tensorflow
@pytest.mark.parametrize("build", [joined_network, small_network])
def test_the_file_on_reference_kernels_computes_the_same(build, tmp_path):
    model = build()
    shape = model.input_shape[1:]
    x = np.random.default_rng(3).normal(size=(64, *shape)).astype("float32")
    quantized = quantize_post_training(model, calibration_data=x)
    export_litert(quantized, tmp_path / "model.tflite")
    (received,) = LiteRTRunner(tmp_path / "model.tflite", kernels="reference").run(x).values()
    step = activation_quantizers(quantized)[-1].parameters().scale
    plain = keras.ops.convert_to_numpy(quantized(x, training=False))
    with reference_rounding(quantized):
        twice = keras.ops.convert_to_numpy(quantized(x, training=False))
    once, same = (np.round(np.abs(received - outputs) / step) for outputs in (plain, twice))
    assert np.mean(same == 0) > 0.97 > np.mean(once == 0)
    assert same.max() <= 1


def test_it_ends_with_the_context():
    quantized = quantize_post_training(small_network(), calibration_data=images())
    before = keras.ops.convert_to_numpy(quantized(images(8), training=False))
    with reference_rounding(quantized):
        within = keras.ops.convert_to_numpy(quantized(images(8), training=False))
    after = keras.ops.convert_to_numpy(quantized(images(8), training=False))
    np.testing.assert_array_equal(before, after)
    assert not np.array_equal(before, within)
    np.testing.assert_allclose(before, within, atol=0.1 * np.abs(before).max())


def test_a_float_model_is_refused():
    with pytest.raises(ValueError, match="quantized model"):
        reference_rounding(small_network())
