"""Settings belong to layers, wherever these stand in nested models."""

import keras
import numpy as np
import pytest
from keras import layers

from keras_mot.layers import transformed_weights
from keras_mot.quantization import (
    INT4_WEIGHTS,
    LastValueQuantizer,
    QuantizeConfig,
    quantize_annotate_layer,
    quantize_annotate_model,
    quantize_apply,
    quantize_model,
    quantize_post_training,
)
from keras_mot.transforms import FakeQuantize

X = np.random.default_rng(0).standard_normal((32, 6)).astype("float32")


def branch(name, depth=3, mark=()):
    inputs = x = keras.Input((6,))
    for number in range(depth):
        layer = layers.Dense(6, name=f"{name}_d{number}")
        x = (quantize_annotate_layer(layer) if layer.name in mark else layer)(x)
    return keras.Model(inputs, x, name=name)


def two_branches(depths=(3, 3), mark=()):
    """Nested models side by side: their layers have the same depths in the flat model."""
    inputs = keras.Input((6,))
    left, right = branch("left", depths[0], mark), branch("right", depths[1], mark)
    return keras.Model(inputs, layers.Add()([left(inputs), right(inputs)]))


def three_levels():
    inputs = keras.Input((6,))
    inner = two_branches()
    inner.name = "inner"
    return keras.Model(inputs, layers.Dense(6, name="top_d0")(inner(branch("front", 2)(inputs))))


def bits(model):
    weights = transformed_weights(model)
    return {weight.owner.name: weight.transform_of(FakeQuantize).bits for weight in weights}


def names(model):
    return {layer.name for layer in model._flatten_layers() if isinstance(layer, layers.Dense)}


@pytest.mark.parametrize("make", [two_branches, lambda: two_branches((1, 4)), three_levels])
def test_each_layer_gets_its_own_settings(make):
    model = make()
    for name in sorted(names(model)):
        others = dict.fromkeys(names(model) - {name}, 8)
        assert bits(quantize_model(model, overrides={f"{name}$": None})) == others
        assert bits(quantize_model(model, overrides={f"{name}$": INT4_WEIGHTS})) == {**others, name: 4}
    by_object = next(layer for layer in model._flatten_layers() if layer.name == name)
    assert bits(quantize_model(model, overrides={by_object: None})) == others
    assert bits(quantize_model(model, selected=lambda layer: layer.name != name)) == others


def test_after_training_too():
    quantized = quantize_post_training(two_branches(), calibration_data=X, overrides={"left_d1": None})
    assert bits(quantized) == dict.fromkeys(["left_d0", "left_d2", "right_d0", "right_d1", "right_d2"], 8)


def test_annotated_layers_are_those_that_were_annotated():
    mark = ("left_d1", "right_d2")
    assert set(bits(quantize_apply(two_branches(mark=mark)))) == set(mark)
    whole = quantize_annotate_model(two_branches())
    assert set(bits(quantize_apply(whole))) == names(whole)


def test_a_configuration_of_its_own():
    inputs = keras.Input((6,))
    left, right = branch("left"), branch("right")
    model = keras.Model(inputs, layers.Add()([left(inputs), right(inputs)]))
    five = QuantizeConfig(weights=LastValueQuantizer(num_bits=5, per_axis=True))
    settings = bits(quantize_model(model, overrides={"right_d1$": five}))
    assert settings.pop("right_d1") == 5
    assert set(settings.values()) == {8}


def test_a_nested_model_stands_for_all_its_layers():
    model = three_levels()
    left = next(part for part in model._flatten_layers() if part.name == "left")
    assert set(bits(quantize_model(model, overrides={left: None}))) == names(model) - names(left)
