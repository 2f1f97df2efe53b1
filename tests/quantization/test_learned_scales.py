"""Learned scales: the gradients are those of the paper, and what is learned is what ships."""

import keras
import numpy as np
import pytest
from keras import ops

from keras_mot.export import LiteRTRunner, export_litert
from keras_mot.layers.activation_quantizer import ActivationQuantizer, activation_quantizers
from keras_mot.quantization import INT8, QuantizationScheme, quantize_model, quantize_post_training
from keras_mot.transforms import FakeQuantize
from tests.quantization.models import compiled, images, small_network

LEARNED = QuantizationScheme(learned_scales=True)
LABELS = np.random.default_rng(8).integers(0, 4, 48)


def after_a_step(layer, x, upstream):
    """What one step of SGD at rate 1 takes from each trainable variable, for the loss sum(layer(x) * upstream)."""
    inputs = keras.Input(x.shape[1:])
    model = keras.Model(inputs, layer(inputs))
    model.compile(keras.optimizers.SGD(1.0), lambda y, outputs: ops.sum(y * outputs) / x.shape[0])
    before = [ops.convert_to_numpy(variable).copy() for variable in model.trainable_variables]
    model.fit(x, upstream * x.shape[0], batch_size=len(x), verbose=0)
    after = [ops.convert_to_numpy(variable) for variable in model.trainable_variables]
    return {v.name: old - new for v, old, new in zip(model.trainable_variables, before, after, strict=True)}


@keras.saving.register_keras_serializable("tests")
class Weight(keras.layers.Layer):
    """A layer whose output is its rounded weight, for each sample."""

    def __init__(self, transform, value):
        super().__init__()
        self.transform = transform
        self.value = self.add_weight(name="value", shape=value.shape, initializer=lambda *a, **k: value)

    def build(self, input_shape):
        self.transform.build(self.value.shape)

    def call(self, inputs):
        """The rounded weight."""
        return inputs * self.transform(ops.convert_to_tensor(self.value.value))


def test_gradients_of_weights_against_the_paper(rng):
    """Equations 2, 3 and 5; `reach` is the scale times the largest integer."""
    value, upstream = rng.standard_normal(40).astype("float32"), rng.standard_normal((1, 40)).astype("float32")
    transform = FakeQuantize(bits=4, per_channel=False, learned=True)
    layer = Weight(transform, value)
    layer.build((None, 40))
    transform.reach.assign([1.05])
    scale = 1.05 / 7
    ratio = value / scale
    inside = np.abs(ratio) < 7
    assert 0 < inside.sum() < 40
    slope = np.where(inside, np.round(ratio) - ratio, 7 * np.sign(ratio))
    step_of_scale = (upstream[0] * slope).sum() / np.sqrt(40 * 7)
    steps = after_a_step(layer, np.ones((1, 40), "float32"), upstream)
    np.testing.assert_allclose(steps["value"], upstream[0] * inside, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(steps["reach"] / 7, step_of_scale, rtol=1e-3)


def test_gradients_of_activations_against_the_paper(rng):
    x, upstream = rng.uniform(-1, 3, (1, 50)).astype("float32"), rng.standard_normal((1, 50)).astype("float32")
    layer = ActivationQuantizer(4, learned=True)
    layer.set_range(0.0, 2.0)
    scale = 2.0 / 15
    ratio = x / scale
    slope = np.where(ratio > 15, 15, np.where(ratio < 0, 0, np.round(ratio) - ratio))
    step_of_scale = (upstream * slope).sum() / np.sqrt(50 * 15)
    steps = after_a_step(layer, x, upstream)
    assert steps["low"] == 0
    np.testing.assert_allclose(steps["high"] / 15, step_of_scale, rtol=2e-3)


def test_gradients_of_both_ends(rng):
    """What is cut off moves its end; what is within moves both, by the rounding errors."""
    x, upstream = rng.uniform(-2, 3, (1, 60)).astype("float32"), rng.standard_normal((1, 60)).astype("float32")
    layer = ActivationQuantizer(4, learned=True)
    layer.set_range(-1.0, 2.0)
    ratio = x / 0.2
    rounding = np.where((np.round(ratio) >= -5) & (np.round(ratio) <= 10), (np.round(ratio) - ratio) / 15, 0)
    factor = 15**1.5 / np.sqrt(60)
    steps = after_a_step(layer, x, upstream)
    low = (upstream * ((np.round(ratio) < -5) - rounding)).sum() * factor
    high = (upstream * ((np.round(ratio) > 10) + rounding)).sum() * factor
    np.testing.assert_allclose([steps["low"], steps["high"]], [low, high], rtol=2e-3)


@pytest.mark.parametrize(("low", "high"), [(-1.0, 3.0), (0.0, 6.0), (-2.0, 0.0)])
def test_values_are_those_of_plain_rounding(low, high, rng):
    x = rng.uniform(low - 1, high + 1, (4, 500)).astype("float32")
    plain, learned = ActivationQuantizer(8), ActivationQuantizer(8, learned=True)
    for quantizer in (plain, learned):
        quantizer.set_range(low, high)
    difference = np.abs(ops.convert_to_numpy(plain(x)) - ops.convert_to_numpy(learned(x)))
    assert (difference < 1e-5).mean() > 0.99  # a value half between two steps may go either way
    assert difference.max() < 1.01 * plain.parameters().scale
    weight = rng.standard_normal((3, 3, 4, 5)).astype("float32")
    for bits in (4, 8):
        pair = [FakeQuantize(bits, learned=learned) for learned in (False, True)]
        for transform in pair:
            transform.build(weight.shape)
            transform.fit(weight)
        np.testing.assert_allclose(*(ops.convert_to_numpy(transform(weight)) for transform in pair), atol=1e-5)


def test_training_saving_and_exporting(tmp_path):
    x = images()
    model = small_network()
    quantized = quantize_model(model, LEARNED, calibration_data=x)
    twin = quantize_post_training(model, INT8, x)
    np.testing.assert_allclose(quantized.predict(x, verbose=0), twin.predict(x, verbose=0), atol=0.005)
    before = {v.path: ops.convert_to_numpy(v).copy() for v in quantized.trainable_variables}
    assert any(path.endswith("reach") for path in before)
    history = compiled(quantized).fit(x, LABELS, batch_size=16, epochs=3, verbose=0).history["loss"]
    assert history[-1] < history[0]
    moved = [v.path for v in quantized.trainable_variables if np.any(ops.convert_to_numpy(v) != before[v.path])]
    assert len([path for path in moved if path.endswith(("reach", "low", "high"))]) > 8
    quantized.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    simulated = loaded.predict(x, verbose=0)
    np.testing.assert_allclose(simulated, quantized.predict(x, verbose=0), atol=1e-6)
    export_litert(loaded, tmp_path / "model.tflite", strict=True)
    (received,) = LiteRTRunner(tmp_path / "model.tflite").run(x).values()
    assert np.abs(received - simulated).max() < 2.5 / 256
    assert activation_quantizers(loaded)[0].learned


def test_settings():
    with pytest.raises(ValueError, match="need `calibration_data`"):
        quantize_model(small_network(), LEARNED)
    with pytest.raises(ValueError, match="activations of 8 bits"):
        QuantizationScheme(activation_bits=16, learned_scales=True)
    with pytest.raises(TypeError, match="`learned_scales` should be"):
        QuantizationScheme(learned_scales=1)
