"""Tests of `reference_rounding`: the simulation rounds twice, as LiteRT's reference kernels do."""

import warnings

import keras
import numpy as np
import pytest

from keras_mot.analysis import measure_drift
from keras_mot.export import LiteRTRunner, export_litert
from keras_mot.layers.activation_quantizer import activation_quantizers
from keras_mot.quantization import quantize_post_training, reference_rounding
from keras_mot.quantization.simulation.reference_kernels import _Rescaling
from tests.quantization.models import small_network
from tests.quantization.test_coverage import only_tensorflow


def by_integers(number, factor):
    """What a reference kernel makes of an integer sum, with Python's integers: two roundings, half away from zero."""
    share, exponent = np.frexp(factor)
    product = abs(number) * 2 ** max(int(exponent), 0) * int(np.round(share * 2**31))
    first = (product + 2**30) // 2**31
    bits = max(-int(exponent), 0)
    return (1 if number >= 0 else -1) * ((first + (2**bits >> 1)) >> bits)


@pytest.mark.parametrize("factor", [1.7, 0.9, 0.4, 0.2137, 0.03, 0.0061, 0.000712])
def test_sums_are_rounded_twice(factor):
    sums = (np.random.default_rng(0).uniform(-200, 200, 5000) / factor).astype("int64")
    unit = 0.0123
    received = _Rescaling(unit, factor)(sums * unit * (1 + 1e-7))
    np.testing.assert_array_equal(received, [by_integers(int(number), factor) for number in sums])
    if factor < 0.1:
        assert 0 < np.mean(received != np.rint(sums * factor)) < 0.02


def test_channels_have_factors_of_their_own():
    values = np.arange(-30.0, 30.0).reshape(10, 6)
    factors = np.geomspace(0.01, 0.7, 6)
    received = _Rescaling(np.ones(6), factors)(values)
    expected = [
        [by_integers(int(number), factor) for number, factor in zip(row, factors, strict=True)] for row in values
    ]
    np.testing.assert_array_equal(received, expected)


def joined_network():
    """All that reference kernels round twice: convolutions, products, means, conversions, a lone ReLU."""
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
    keras.utils.set_random_seed(5)
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
    np.testing.assert_allclose(received, twice, atol=1e-3 * step)
    assert np.mean(np.round(np.abs(received - plain) / step) != 0) > 0.01
    assert all(tensor.largest == 0 for tensor in measure_drift(quantized, tmp_path / "model.tflite", x).tensors)


POOLED = {
    "a sum": lambda x, y: keras.layers.MaxPooling2D()(keras.layers.ReLU()(x + y)),
    "a difference": lambda x, y: keras.layers.GlobalMaxPooling2D()(x - y),
    "a sum of what has moved": lambda x, y: keras.layers.MaxPooling2D()(keras.layers.Permute((2, 1, 3))(x) + y),
    "channels side by side": lambda x, y: keras.layers.GlobalMaxPooling2D()(keras.layers.Concatenate()([x, y])),
    "rows side by side": lambda x, y: keras.layers.GlobalMaxPooling2D()(keras.layers.Concatenate(1)([x, y])),
}


@only_tensorflow
@pytest.mark.parametrize("name", POOLED)
def test_what_is_pooled_behind_a_sum_or_a_concatenation(name, tmp_path):
    keras.utils.set_random_seed(5)
    inputs = keras.Input((6, 6, 3))
    x, y = (keras.layers.Conv2D(4, 3, padding="same", activation=f)(inputs) for f in (None, "relu"))
    model = keras.Model(inputs, POOLED[name](x, y))
    images = np.random.default_rng(3).normal(size=(16, 6, 6, 3)).astype("float32")
    quantized = quantize_post_training(model, calibration_data=images)
    export_litert(quantized, tmp_path / "model.tflite")
    (received,) = LiteRTRunner(tmp_path / "model.tflite", kernels="reference").run(images).values()
    with reference_rounding(quantized):
        expected = keras.ops.convert_to_numpy(quantized(images, training=False))
    assert received.shape == expected.shape
    step = max(layer.parameters().scale for layer in activation_quantizers(quantized))
    np.testing.assert_allclose(received, expected, atol=1.01 * step)
    assert np.mean(np.abs(received - expected) > 0.5 * step) < 0.05


def test_a_quantized_model_within_another():
    keras.utils.set_random_seed(5)
    x = np.random.default_rng(3).normal(size=(16, 12, 12, 3)).astype("float32")
    quantized = quantize_post_training(joined_network(), calibration_data=x)
    inputs = keras.Input((12, 12, 3))
    around = keras.Model(inputs, [keras.Sequential([keras.Input((12, 12, 3)), quantized])(inputs), quantized(-inputs)])
    with reference_rounding(quantized):
        expected = [keras.ops.convert_to_numpy(quantized(sign * x, training=False)) for sign in (1, -1)]
    with reference_rounding(around):
        received = [keras.ops.convert_to_numpy(output) for output in around(x, training=False)]
    np.testing.assert_array_equal(received, expected)


def test_channels_of_zeros_are_not_divided_by():
    with np.errstate(all="raise"):
        assert not _Rescaling(np.zeros(1), np.zeros(1))(np.zeros((2, 1))).any()


def test_sizes_may_be_open():
    """How many numbers a mean is of, and where parts begin, is known in a call alone."""
    inputs = keras.Input((None, None, 3))
    x = keras.layers.Conv2D(4, 3)(inputs)
    x = keras.layers.Concatenate(axis=1)([x, keras.layers.Conv2D(4, 3)(inputs)])
    model = keras.Model(inputs, keras.layers.Dense(2)(keras.layers.GlobalAveragePooling2D()(x)))
    images = np.random.default_rng(0).normal(size=(8, 6, 5, 3)).astype("float32")
    quantized = quantize_post_training(model, calibration_data=images)
    expected = keras.ops.convert_to_numpy(quantized(images))
    with reference_rounding(quantized):
        received = keras.ops.convert_to_numpy(quantized(images))
    assert np.abs(received - expected).max() < 0.05 * np.abs(expected).max()


def test_it_ends_with_the_context():
    keras.utils.set_random_seed(5)
    x = np.random.default_rng(3).normal(size=(64, 12, 12, 3)).astype("float32")
    quantized = quantize_post_training(joined_network(), calibration_data=x)
    before = keras.ops.convert_to_numpy(quantized(x, training=False))
    with reference_rounding(quantized):
        within = keras.ops.convert_to_numpy(quantized(x, training=False))
    after = keras.ops.convert_to_numpy(quantized(x, training=False))
    np.testing.assert_array_equal(before, after)
    step = activation_quantizers(quantized)[-1].parameters().scale
    steps = np.rint(np.abs(before - within) / step)
    assert 0 < np.mean(steps > 0) < 0.5
    assert steps.max() <= 3


def test_a_float_model_is_refused():
    with pytest.raises(ValueError, match="quantized model"):
        reference_rounding(small_network())


@only_tensorflow
def test_of_sums_of_int8_the_runtime_is_known_to_be_wrong(tmp_path):
    inputs = keras.Input((4, 6))
    model = keras.Model(inputs, keras.ops.sum(keras.layers.Dense(6)(inputs), axis=1))
    x = np.random.default_rng(0).normal(size=(32, 4, 6)).astype("float32")
    quantized = quantize_post_training(model, calibration_data=x, placement="integer", progress=False)
    path = export_litert(quantized, tmp_path / "sum.tflite", strict=True).path
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        runner = LiteRTRunner(path)
    (received,) = runner.run(x).values()
    steps = (received - keras.ops.convert_to_numpy(quantized(x))) / quantized.layers[-1].parameters().scale
    assert np.abs(steps).max() < 1.1
    with pytest.warns(UserWarning, match="takes them for unsigned ones"):
        LiteRTRunner(path, kernels="reference")
