"""Settings by layer: TFMOT's `QuantizeConfig` and quantizers, and overrides of the scheme."""

import keras
import numpy as np
import pytest
from keras import layers, ops

from keras_mot.export import LiteRTRunner, export_litert
from keras_mot.layers import transformed_weights
from keras_mot.layers.activation_quantizer import ActivationQuantizer
from keras_mot.quantization import (
    INT4_WEIGHTS,
    INT8,
    INT16X8,
    AllValuesQuantizer,
    FixedQuantizer,
    LastValueQuantizer,
    MovingAverageQuantizer,
    QuantizationScheme,
    QuantizeConfig,
    quantize_annotate_layer,
    quantize_apply,
    quantize_model,
    quantize_post_training,
)
from keras_mot.transforms import FakeQuantize
from tests.quantization.models import images, small_network


def bits_of(model):
    found = {weight.owner.name: weight.transform_of(FakeQuantize) for weight in transformed_weights(model)}
    return {name: (transform.bits, transform.per_channel) for name, transform in found.items()}


def test_mixed_precision_by_layer(tmp_path):
    """Each layer has its own bits, in the simulation and in the file."""
    model, x = small_network(), images()
    overrides = {
        "depthwise": QuantizationScheme(per_channel=False),
        layers.Dense: INT4_WEIGHTS,
        model.get_layer("separable"): QuantizeConfig(weights=LastValueQuantizer(num_bits=6, per_axis=True)),
    }
    quantized = quantize_post_training(model, INT8, x, overrides=overrides)
    assert bits_of(quantized) == {
        "conv": (8, True),
        "depthwise": (8, False),
        "alone": (8, True),
        "separable_depthwise": (6, True),
        "separable": (6, True),
        "head": (4, True),
    }
    simulated = quantized.predict(x, verbose=0)
    export_litert(quantized, tmp_path / "model.tflite", strict=True)
    (received,) = LiteRTRunner(tmp_path / "model.tflite").run(x).values()
    assert np.abs(received - simulated).max() < 1.5 / 256


def test_layers_left_in_floats():
    quantized = quantize_model(small_network(), calibration_data=images(8), overrides={"^(conv|head)$": None})
    assert set(bits_of(quantized)) == {"depthwise", "alone", "separable_depthwise", "separable"}


def annotated_model():
    config = QuantizeConfig(
        weights=LastValueQuantizer(num_bits=4, per_axis=True),
        activations=FixedQuantizer(num_bits=8, init_min=-1.0, init_max=3.0),
    )
    return keras.Sequential(
        [
            keras.Input((6,)),
            quantize_annotate_layer(layers.Dense(5, name="fixed"), quantize_config=config),
            quantize_annotate_layer(layers.Dense(4, activation="relu", name="plain")),
            layers.Dense(3, name="float"),
        ]
    )


def test_annotated_layers_with_a_config(tmp_path):
    x = np.random.default_rng(0).standard_normal((40, 6)).astype("float32")
    quantized = quantize_apply(annotated_model(), calibration_data=x)
    assert bits_of(quantized) == {"fixed": (4, True), "plain": (8, True)}
    behind = quantized.get_layer("fixed_quantizer")
    assert behind.parameters().range == pytest.approx((-1.0, 3.0), abs=0.01)
    quantized.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(loaded.predict(x, verbose=0), quantized.predict(x, verbose=0), atol=1e-6)


@pytest.mark.parametrize(
    ("quantizer", "expected"),
    [
        (AllValuesQuantizer(), (-3.0, 8.0)),
        (LastValueQuantizer(symmetric=False, narrow_range=False), (-3.0, 1.0)),
        (MovingAverageQuantizer(), (-2.0, 4.0)),
    ],
)
def test_how_ranges_follow(quantizer, expected):
    """Three batches: 0 to 3, 0 to 8, and -6 or -3 to 1."""
    layer = ActivationQuantizer(**QuantizeConfig(activations=quantizer).activation_settings())
    lowest = -6.0 if type(quantizer) is MovingAverageQuantizer else -3.0
    for batch in ([0.0, 3.0], [0.0, 8.0], [lowest, 1.0]):
        layer(np.array(batch, "float32"), training=True)
    assert layer.parameters().range == pytest.approx(expected, abs=0.05)


def test_the_activation_behind_a_layer_has_its_settings():
    """The range belongs to what is computed together, also where ReLU is a layer of its own."""
    inputs = keras.Input((6,))
    outputs = layers.Dense(2, name="last")(layers.ReLU(name="relu")(layers.Dense(5, name="dense")(inputs)))
    config = QuantizeConfig(activations=FixedQuantizer(init_min=0.0, init_max=2.0))
    quantized = quantize_model(keras.Model(inputs, outputs), overrides={"^dense$": config})
    assert quantized.get_layer("relu_quantizer").fixed == (0.0, 2.0)
    (kernel, *_) = transformed_weights(quantized)
    assert ops.shape(kernel.variable) == (6, 5)


def test_configs_survive_serialization():
    config = QuantizeConfig(LastValueQuantizer(4, True), FixedQuantizer(8, -2.0, 2.0))
    restored = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(config))
    assert restored == config


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: QuantizeConfig(weights=MovingAverageQuantizer()), "`weights` should be a `LastValueQuantizer`"),
        (lambda: QuantizeConfig(weights=LastValueQuantizer(symmetric=False)), "symmetric and of narrow range"),
        (lambda: QuantizeConfig(weights=LastValueQuantizer(num_bits=16)), "at most 8 bits"),
        (lambda: QuantizeConfig(activations=MovingAverageQuantizer(per_axis=True)), "no activations with per_axis"),
        (lambda: QuantizeConfig(activations=LastValueQuantizer()), "symmetric, narrow_range"),
        (lambda: QuantizeConfig(activations=8), "should be a quantizer"),
        (lambda: FixedQuantizer(init_min=1.0, init_max=1.0), "below `init_max`"),
        (lambda: MovingAverageQuantizer(num_bits=1), "`num_bits` should be"),
        (
            lambda: type("Old", (QuantizeConfig,), {"get_output_quantizers": None}),
            "inherit from",
        ),
        (lambda: quantize_annotate_layer(layers.Dense(2), quantize_config=4), "should be a `QuantizeConfig`"),
        (lambda: quantize_model(small_network(), overrides={"head": INT16X8}), "activations of 16 bits"),
        (lambda: quantize_model(small_network(), overrides={"heed": None}), "No layer matches 'heed'"),
        (lambda: quantize_model(small_network(), overrides={"head": 4}), "should be a `QuantizationScheme`"),
        (lambda: quantize_model(small_network(), overrides=[INT8]), "should be a dictionary"),
    ],
)
def test_what_is_refused(build, message):
    with pytest.raises((TypeError, ValueError), match=message):
        build()
