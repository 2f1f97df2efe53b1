"""Rewriting models: what is called again computes the same, and nested models are dissolved."""

import keras
import numpy as np
import pytest
from keras import layers, ops

from keras_mot.graph import flatten, operations_of, rewrite


def inner(name):
    return keras.Sequential(
        [keras.Input((6,)), layers.Dense(6, activation="relu", name="dense"), layers.Dropout(0.9)], name=name
    )


def nested():
    inputs = {"a": keras.Input((6,), name="a"), "b": keras.Input((6,), name="b")}
    first, second = inner("first"), inner("second")
    x = first(inputs["a"]) + second(inputs["b"], training=False)
    return keras.Model(inputs, {"sum": first(x), "mean": ops.mean(x, axis=-1)})


@pytest.fixture
def data(rng):
    return {name: rng.standard_normal((5, 6)).astype("float32") for name in "ab"}


def test_flattening_keeps_the_function_and_the_structures(data):
    model = nested()
    flat = flatten(model)
    names = [operation.name for operation in operations_of(flat)]
    assert len(set(names)) == len(names)
    assert {"dense", "dense_1"} <= set(names)
    assert not any(isinstance(layer, keras.Model) for layer in flat.layers)
    expected, received = model.predict(data, verbose=0), flat.predict(data, verbose=0)
    for name in ("sum", "mean"):
        np.testing.assert_allclose(received[name], expected[name], rtol=1e-6)
    assert len(flat.trainable_variables) == len(model.trainable_variables)  # a shared layer stays one


def test_flattening_shares_no_variables(data):
    model = nested()
    before = model.predict(data, verbose=0)["sum"]
    for variable in flatten(model).trainable_variables:
        variable.assign(np.zeros(variable.shape))
    np.testing.assert_allclose(model.predict(data, verbose=0)["sum"], before, rtol=1e-6)


def test_operations_are_replaced(data):
    inputs = keras.Input((6,))
    model = keras.Model(inputs, layers.ReLU()(layers.Dense(4)(inputs)))

    def call(operation, *args, **kwargs):
        return ops.tanh(args[0]) if isinstance(operation, layers.ReLU) else operation(*args, **kwargs)

    changed = rewrite(model, call)
    expected = np.tanh(data["a"] @ ops.convert_to_numpy(model.layers[1].kernel))
    np.testing.assert_allclose(changed.predict(data["a"], verbose=0), expected, atol=1e-5)


def test_models_without_a_graph_are_refused():
    class Own(keras.Model):
        def call(self, inputs):
            return inputs

    with pytest.raises(ValueError, match="only sequential and functional models"):
        rewrite(Own(), lambda operation, *args: operation(*args))


def test_inputs_keep_their_names_before_layers_of_nested_models():
    """A nested model may call a layer as its outer model calls an input: users name inputs, and Keras layers."""
    first, second = keras.Input((6,), name="dense"), keras.Input((6,), name="sparse")
    nested = keras.Sequential([keras.layers.Dense(4, name="dense")])
    outputs = keras.layers.Concatenate()([nested(first), second])
    flat = flatten(keras.Model({"dense": first, "sparse": second}, outputs))
    assert {tensor.name for tensor in flat.inputs} == {"dense", "sparse"}
    assert [layer.name for layer in flat.layers if isinstance(layer, keras.layers.Dense)] == ["dense_1"]
