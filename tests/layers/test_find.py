"""The table of weights, the walk over a model, and the copy."""

import keras
import numpy as np
import pytest
from keras import layers

from keras_mot.layers import WeightAxes, WeightSpec, attach, copy_model, find_weights, register_weights
from keras_mot.transforms import Mask, WeightTransform
from tests.layers.model_zoo import MODELS, Block


@pytest.mark.parametrize(
    ("layer", "shape", "expected"),
    [
        (lambda: layers.Dense(5), (None, 4), {"kernel": ((0,), (1,))}),
        (lambda: layers.Conv2D(5, 3), (None, 8, 8, 4), {"kernel": ((2,), (3,))}),
        (lambda: layers.Conv2DTranspose(5, 3), (None, 8, 8, 4), {"kernel": ((3,), (2,))}),
        (lambda: layers.DepthwiseConv2D(3), (None, 8, 8, 4), {"kernel": ((0, 1), (2, 3))}),
        (lambda: layers.EinsumDense("abcd,cde->abe", (None, 6)), (None, 3, 2, 4), {"kernel": ((0, 1), (2,))}),
        (lambda: layers.EinsumDense("...x,xy->...y", 6), (None, 3, 4), {"kernel": ((0,), (1,))}),
        (lambda: layers.GRU(3), (None, 5, 4), {"cell/kernel": ((0,), (1,)), "cell/recurrent_kernel": ((0,), (1,))}),
    ],
)
def test_axes_of_the_table(layer, shape, expected):
    layer = layer()
    layer.build(shape)
    found = {weight.key: (weight.axes.inputs, weight.axes.outputs) for weight in find_weights(layer)[0]}
    assert found == expected


def test_subclasses_inherit_the_entry():
    class Mine(layers.Dense):
        pass

    layer = Mine(3)
    layer.build((None, 4))
    assert [weight.key for weight in find_weights(layer)[0]] == ["kernel"]


def test_places_survive_a_rebuild_on_every_backend():
    """Attribute names, not layers' automatic names, which differ between processes."""
    layer = Block()
    layer.build((None, 5, 8))
    places = {weight.place for weight in find_weights(layer)[0]}
    assert places == {f"attention/_{n}_dense/kernel" for n in ("query", "key", "value", "output")} | {
        "feed_forward/0/kernel",
        "feed_forward/1/kernel",
    }


def test_layers_with_lora_or_already_quantized_are_left_alone():
    model = keras.Sequential([layers.Input((4,)), layers.Dense(3), layers.Dense(3)])
    model.layers[0].enable_lora(2)
    model.layers[1].quantize("int8")
    found, left_alone = find_weights(model)
    assert found == []
    assert ["LoRA" in item.reason for item in left_alone] == [True, False]
    assert "int8" in left_alone[1].reason


def test_registration_is_validated():
    with pytest.raises(TypeError, match="subclass of"):
        register_weights("Dense", ["kernel"])
    with pytest.raises(TypeError, match="WeightSpec"):
        register_weights(Block, [3])
    with pytest.raises(ValueError, match="overlap"):
        WeightSpec("w", WeightAxes((0,), (0,))).axes.normalized(2)


def test_attaching_to_a_place_that_does_not_exist_is_refused():
    layer = layers.Dense(3)
    layer.build((None, 4))
    with pytest.raises(ValueError, match=r"no transformable weight at \['kernal'\]; it has \['kernel'\]"):
        attach(layer, {"kernal": [Mask()]})


def test_a_transform_must_keep_shape_and_dtype():
    class Narrow(WeightTransform):
        def build(self, weight_shape):
            self.built = True

        def call(self, weight):
            return weight[:1]

    layer = layers.Dense(3)
    layer.build((None, 4))
    with pytest.raises(ValueError, match=r"must keep the shape and dtype of weight .* \(4, 3\)"):
        attach(layer, {"kernel": [Narrow()]})


@pytest.mark.parametrize("name", ["nested", "shared", "subclassed", "bidirectional", "composite"])
def test_a_copy_shares_nothing_and_is_the_same(name):
    model = MODELS[name][0]()
    copy = copy_model(model)
    for old, new in zip(model.variables, copy.variables, strict=True):
        assert old is not new
        assert old.path == new.path
        np.testing.assert_array_equal(keras.ops.convert_to_numpy(old), keras.ops.convert_to_numpy(new))
    assert [layer.name for layer in copy._flatten_layers()] == [layer.name for layer in model._flatten_layers()]


def test_a_copy_keeps_lambdas_unregistered_parts_and_frozen_layers():
    def double(x):
        return keras.ops.multiply(x, 2.0)

    class Offset(layers.Layer):
        def call(self, inputs):
            return inputs + offset

    offset = 3.0
    inputs = {"a": keras.Input((4,), name="a"), "b": keras.Input((4,), name="b")}
    x = layers.Dense(4, activation=double, trainable=False)(inputs["a"])
    x = layers.Lambda(lambda t: keras.ops.add(t, offset))(Offset()(x)) + inputs["b"]
    model = keras.Model(inputs, {"out": x})
    copy = copy_model(model)
    data = {"a": np.ones((2, 4), "float32"), "b": np.zeros((2, 4), "float32")}
    np.testing.assert_array_equal(model.predict(data, verbose=0)["out"], copy.predict(data, verbose=0)["out"])
    assert [layer.name for layer in copy.layers] == [layer.name for layer in model.layers]
    assert copy.trainable_variables == []


def test_a_copy_keeps_adapted_preprocessing():
    normalization = layers.Normalization()
    x = np.random.default_rng(0).normal(3, 5, (64, 4)).astype("float32")
    normalization.adapt(x)
    model = keras.Sequential([layers.Input((4,)), normalization, layers.Dense(3)])
    np.testing.assert_array_equal(model.predict(x, verbose=0), copy_model(model).predict(x, verbose=0))


def test_a_copy_keeps_functions_of_one_name_apart():
    def leaky(slope):
        def act(x):
            return keras.ops.leaky_relu(x, slope)

        return act

    model = keras.Sequential(
        [layers.Input((4,)), layers.Dense(4, activation=leaky(0.01)), layers.Dense(3, activation=leaky(0.9))]
    )
    x = np.random.default_rng(0).standard_normal((8, 4)).astype("float32")
    np.testing.assert_array_equal(model.predict(x, verbose=0), copy_model(model).predict(x, verbose=0))


def test_a_copy_keeps_what_is_frozen():
    model = MODELS["subclassed"][0]()
    model.hidden.trainable = False
    model.backbone.layers[0].kernel.trainable = False
    copy = copy_model(model)
    names = [variable.path for variable in model.trainable_variables]
    assert [variable.path for variable in copy.trainable_variables] == names
    assert len(names) == 2


def test_a_class_that_would_be_lost_is_an_error():
    class Special(keras.Model):
        def __init__(self, units, **kwargs):
            inputs = keras.Input((4,))
            super().__init__(inputs=inputs, outputs=layers.Dense(units)(inputs), **kwargs)

    with pytest.raises(ValueError, match="`inplace=True`"):
        copy_model(Special(3))
