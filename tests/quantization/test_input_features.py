"""Features of different size that a model normalizes itself: in floats, while images stay in integers."""

import keras
import numpy as np
import pytest
from keras import layers, ops

from keras_mot.export import LiteRTRunner, export_litert
from keras_mot.graph.kinds import is_kind
from keras_mot.graph.rewrite import operations_of
from keras_mot.quantization import quantize_post_training

SETTINGS = {"correct_biases": False}
RNG = np.random.default_rng(0)
SIZES = np.array([1.0, 1.0, 1e3, 1e4, 1e-2])
TABLE = (RNG.standard_normal((64, 5)) * SIZES + [0, 5, 0, 100, 0]).astype("float32")
IMAGES = RNG.integers(0, 256, (16, 4, 4, 3)).astype("float32")


def normalization(x):
    layer = layers.Normalization()
    layer.adapt(x)
    return layer


def batch_norm(x):
    layer = layers.BatchNormalization()
    layer.build(x.shape)
    layer.moving_mean.assign(x.mean(axis=0))
    layer.moving_variance.assign(x.var(axis=0) + 1e-3 - layer.epsilon)
    return layer


def model_on(x, layer, shape=None):
    inputs = keras.Input(x.shape[1:])
    outputs = layer(inputs if shape is None else layers.Reshape(shape)(inputs))
    return keras.Model(inputs, layers.Dense(4, name="last")(layers.Flatten()(outputs)))


def kept(model, layer):
    """Whether the quantized model has the layer as it is, in floats."""
    return any(type(each) is type(layer) for each in model.layers)


CONSTANT = np.where(np.arange(5) == 1, 0.3, TABLE / SIZES).astype("float32")


@pytest.mark.parametrize(
    ("x", "make", "shape"),
    [
        (TABLE, normalization, None),
        (TABLE, normalization, (1, 5)),
        (TABLE, batch_norm, None),
        (CONSTANT, normalization, None),
    ],
)
def test_features_of_different_size_are_normalized_in_floats(x, make, shape):
    layer = make(x)
    model = model_on(x, layer, shape)
    quantized = quantize_post_training(model, calibration_data=x, **SETTINGS)
    assert kept(quantized, layer)
    expected = ops.convert_to_numpy(model(x))
    noise = np.square(ops.convert_to_numpy(quantized(x)) - expected).mean()
    assert noise < 1e-3 * expected.var()  # 30 dB


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="concerns the file alone")
def test_files_say_why_and_take_floats(tmp_path):
    quantized = quantize_post_training(model_on(TABLE, normalization(TABLE)), calibration_data=TABLE, **SETTINGS)
    exported = export_litert(quantized, tmp_path / "table.tflite")
    assert {kind for kind, _, _ in exported.float_operators} == {"SUB", "MUL"}
    assert all("by default left in floats: the features" in reason for _, _, reason in exported.float_operators)
    (received,) = LiteRTRunner(exported.path).run(TABLE).values()
    assert np.abs(received - ops.convert_to_numpy(quantized(TABLE))).max() < 0.1
    with pytest.raises(ValueError, match="is in floats, and cannot be int8"):
        export_litert(quantized, tmp_path / "refused.tflite", input_type="int8")


def test_placement_takes_them_into_integers():
    layer = normalization(TABLE)
    quantized = quantize_post_training(model_on(TABLE, layer), calibration_data=TABLE, placement="integer", **SETTINGS)
    assert not kept(quantized, layer)


IN_INTEGERS = {
    "features of one size": (TABLE / SIZES.astype("float32"), normalization),
    "shades, one scale": (IMAGES, lambda x: layers.Rescaling(1 / 127.5, offset=-1.0)),
    "shades, a scale for each color": (
        IMAGES,
        lambda x: layers.Normalization(mean=[124, 116, 104], variance=[3400.0] * 3),
    ),
    "one mean for all features": (IMAGES, lambda x: layers.Normalization(axis=None, mean=120.0, variance=5000.0)),
    "a feature that is always 0": (np.where(np.arange(5) == 1, 0, TABLE / SIZES).astype("float32"), normalization),
}


@pytest.mark.parametrize("name", IN_INTEGERS)
def test_others_are_normalized_in_integers(name):
    x, make = IN_INTEGERS[name]
    layer = make(x)
    model = model_on(x, layer)
    quantized = quantize_post_training(model, calibration_data=x, **SETTINGS)
    assert not kept(quantized, layer)
    expected = ops.convert_to_numpy(model(x))
    assert np.square(ops.convert_to_numpy(quantized(x)) - expected).mean() < 1e-3 * expected.var()
    assert any(is_kind(each, "depthwise_conv", "add") for each in operations_of(quantized))


def test_what_is_computed_has_one_scale_already():
    inputs = keras.Input((5,))
    layer = batch_norm(TABLE)
    x = layers.LeakyReLU(1.0)(inputs)
    quantized = quantize_post_training(
        keras.Model(inputs, layers.Dense(2)(layer(x))), calibration_data=TABLE / SIZES, **SETTINGS
    )
    assert not kept(quantized, layer)
