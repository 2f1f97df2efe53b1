"""Integer files of models that the converter turns into something unlike them."""

import keras
import numpy as np
import pytest
from keras import layers, ops

from keras_mot.export import LiteRTRunner, export_litert
from keras_mot.export.litert.litert_file import parse_model
from keras_mot.quantization import INT8, INT16X8, QuantizationScheme, quantize_post_training
from tests.quantization.test_coverage import chain, data, last_scale, only_tensorflow, outputs, random_weights

pytestmark = only_tensorflow

UNFUSED = {
    "transposed, no bias": lambda: [layers.Conv2DTranspose(4, 3, use_bias=False), layers.ReLU(), layers.Conv2D(2, 1)],
    "transposed, ReLU6": lambda: [layers.Conv2DTranspose(4, 3, use_bias=False), layers.ReLU(6.0), layers.Conv2D(2, 1)],
    "transposed, 1 channel": lambda: [layers.Conv2DTranspose(1, 3), layers.ReLU(), layers.Conv2D(2, 1)],
    "transposed, strides": lambda: [layers.Conv2DTranspose(4, 3, strides=2, use_bias=False, activation="relu")],
    "dilated": lambda: [layers.Conv2D(4, 3, dilation_rate=2, padding="same", activation="relu"), layers.Conv2D(2, 1)],
    "dilated, valid": lambda: [layers.Conv2D(4, 3, dilation_rate=2, activation="relu6"), layers.Conv2D(2, 1)],
    "dilated depthwise": lambda: [layers.DepthwiseConv2D(3, dilation_rate=2, padding="same"), layers.ReLU()],
}
UNFUSED_1D = {
    "transposed, 1 filter": lambda: [layers.Conv1DTranspose(1, 3), layers.ReLU()],
    "dilated, causal": lambda: [layers.Conv1D(4, 3, padding="causal", dilation_rate=2, activation="relu")],
    "nearest": lambda: [layers.UpSampling1D(2), layers.Conv1D(3, 3)],
}
CASES = {name: (make, (8, 8, 3)) for name, make in UNFUSED.items()} | {
    name: (make, (12, 3)) for name, make in UNFUSED_1D.items()
}


@pytest.mark.parametrize("scheme", [INT8, INT16X8], ids=["int8", "int16x8"])
@pytest.mark.parametrize("name", CASES)
def test_what_the_converter_does_not_fuse_is_in_integers_with_an_open_batch(name, scheme, tmp_path):
    make, shape = CASES[name]
    model = random_weights(chain(*make(), shape=shape))
    x = data(model)
    quantized = quantize_post_training(model, scheme, x, equalize=False, correct_biases=False)
    result = export_litert(quantized, tmp_path / "model.tflite")
    assert result.float_operators == ()
    assert result.batch_size is None
    (received,) = LiteRTRunner(tmp_path / "model.tflite", kernels="reference").run(x).values()
    steps = np.abs(received - outputs(quantized, x)) / last_scale(quantized)
    assert steps.max() < (1.1 if scheme is INT8 else 3.1)  # kernels of 16 bits round twice
    assert (steps < 0.1).mean() > (0.9 if scheme is INT8 else 0.5)


def test_a_mark_that_several_read(tmp_path):
    """Attention in floats, with a residual: operators read the first half of its input's mark, or both."""
    inputs = keras.Input((6, 8))
    x = layers.Dense(16, name="projection")(inputs)
    attended = layers.MultiHeadAttention(2, 8, name="attention")(x, x)
    model = keras.Model(inputs, layers.LayerNormalization()(x + attended))
    samples = data(model)
    quantized = quantize_post_training(model, INT8, samples, overrides={"attention": None})
    result = export_litert(quantized, tmp_path / "model.tflite")
    assert "LAYER_NORM" not in {name for name, _, _ in result.float_operators}
    (received,) = LiteRTRunner(tmp_path / "model.tflite").run(samples).values()
    np.testing.assert_allclose(received, outputs(quantized, samples), atol=1e-3)


def test_one_scale_has_no_axis(tmp_path):
    """Runtimes for microcontrollers refuse depthwise weights of one scale along axis 3."""
    model = random_weights(chain(layers.DepthwiseConv2D(3), layers.Conv2D(2, 1), shape=(8, 8, 3)))
    quantized = quantize_post_training(model, QuantizationScheme(per_channel=False), data(model))
    export_litert(quantized, tmp_path / "model.tflite")
    kernels = [
        tensor.quantization
        for tensor in parse_model(tmp_path / "model.tflite").subgraphs[0].tensors
        if tensor.quantization is not None and tensor.quantization.scale is not None and len(tensor.shape) == 4
    ]
    assert {(len(item.scale), item.quantizedDimension) for item in kernels} == {(1, 0)}


def test_sums_of_16_bits_stay_in_floats(tmp_path):
    inputs = keras.Input((6, 4))
    model = random_weights(keras.Model(inputs, ops.sum(layers.Dense(3)(inputs), axis=1)))
    x = data(model)
    for scheme, expected in ((INT8, set()), (INT16X8, {"SUM"})):
        quantized = quantize_post_training(model, scheme, x)
        result = export_litert(quantized, tmp_path / "model.tflite")
        assert {name for name, _, _ in result.float_operators} == expected
        (received,) = LiteRTRunner(tmp_path / "model.tflite").run(x).values()
        np.testing.assert_allclose(received, outputs(quantized, x), atol=2.1 * last_scale(quantized))
