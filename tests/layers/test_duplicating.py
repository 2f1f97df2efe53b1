"""Layers whose configuration does not say how to make them are copied all the same, with the values that they have."""

import keras
import numpy as np
import pytest
from keras import layers, ops

from keras_mot.layers import attach, copy_model, strip, transformed_weights
from keras_mot.sparsity import ConstantSparsity, prune_low_magnitude, strip_pruning, update_pruning_step
from keras_mot.transforms import Mask


class TakesLayers(layers.Layer):
    """No `get_config`: Keras cannot tell the layers that the constructor takes."""

    def __init__(self, blocks, function):
        super().__init__(name="takes_layers")
        self.blocks = blocks
        self.named = {"head": layers.Dense(4)}
        self.scaled = lambda x: self.named["head"](x) * 2.0
        self.function = function
        self.dropout = layers.Dropout(0.5)

    def call(self, inputs, training=None):
        for block in self.blocks:
            inputs = block(inputs)
        return self.scaled(self.dropout(self.function(inputs), training=training))


class Forgets(layers.Layer):
    """A `get_config` that forgets an argument: the rebuilt layer computes something else."""

    def __init__(self, units=4, scale=1.0, **kwargs):
        super().__init__(**kwargs)
        self.units, self.scale = units, scale

    def build(self, input_shape):
        self.dense = layers.Dense(self.units)
        self.dense.build(input_shape)
        self.shift = self.add_weight(shape=(self.units,), name="shift")

    def call(self, inputs):
        return self.dense(inputs) * self.scale + self.shift

    def get_config(self):
        return {**super().get_config(), "units": self.units}


class WrongConfig(layers.Layer):
    """A `get_config` with a name that the constructor does not take."""

    def __init__(self, width, **kwargs):
        super().__init__(**kwargs)
        self.dense = layers.Dense(width)

    def build(self, input_shape):
        self.dense.build(input_shape)

    def call(self, inputs):
        return self.dense(inputs)

    def get_config(self):
        return {**super().get_config(), "units": 1}


class Tied(layers.Layer):
    """Reads the weights of another layer of the model."""

    def __init__(self, embedding):
        super().__init__()
        self.embedding = embedding

    def call(self, inputs):
        return ops.matmul(inputs, ops.transpose(ops.convert_to_tensor(self.embedding.embeddings)))


class NoWeights(layers.Layer):
    """Has no weights, no `get_config`, and an attribute that cannot be copied."""

    def __init__(self, thing):
        super().__init__()
        self.words = (word for word in "ab")

    def call(self, inputs):
        return inputs + 1.0


class Cell(layers.Layer):
    """A recurrent cell without `get_config`, whose constructor takes a list."""

    def __init__(self, sizes, **kwargs):
        super().__init__(**kwargs)
        self.state_size = sizes[0]
        self.gate = layers.Dense(sizes[0])

    def build(self, input_shape):
        self.gate.build((input_shape[0], input_shape[-1] + self.state_size))

    def call(self, inputs, states):
        output = ops.tanh(self.gate(ops.concatenate([inputs, states[0]], axis=-1)))
        return output, [output]

    def get_config(self):
        raise NotImplementedError("A cell that says nothing of itself.")


class Outer(keras.Model):
    """A subclassed model that takes another one."""

    def __init__(self, inner):
        super().__init__()
        self.inner, self.head = inner, layers.Dense(2)
        self.mean = keras.metrics.Mean()

    def call(self, inputs):
        return self.head(self.inner(inputs))


def _functional(function, shape=(6,), dtype="float32"):
    inputs = keras.Input(shape, dtype=dtype)
    return keras.Model(inputs, function(inputs))


def _tied():
    def call(tokens):
        embedding = layers.Embedding(9, 4)
        return Tied(embedding)(layers.Dense(4)(embedding(tokens)))

    return _functional(call, (5,), "int32")


def _outer():
    inner = _functional(lambda x: TakesLayers([layers.Dense(4)], ops.relu)(x))
    model = Outer(inner)
    model(np.zeros((1, 6), "float32"))
    return model


# name -> (function that makes the model, how many weights are pruned)
MODELS = {
    "takes_layers": (lambda: _functional(lambda x: TakesLayers([layers.Dense(4), layers.Dense(3)], ops.tanh)(x)), 3),
    "forgets": (lambda: _functional(lambda x: layers.Dense(2)(Forgets(4, 3.0)(x))), 2),
    "wrong_config": (lambda: _functional(lambda x: WrongConfig(4)(x)), 1),
    "no_weights": (lambda: _functional(lambda x: layers.Dense(2)(NoWeights(object())(x))), 1),
    "own_cell": (lambda: _functional(lambda x: layers.RNN(Cell([4]))(x), (3, 6)), 1),
    "takes_a_model": (_outer, 3),
}


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.filterwarnings("ignore:Not pruned")
def test_layers_that_configurations_do_not_tell(name, rng):
    make, count = MODELS[name]
    model = make()
    (spec,) = getattr(model, "inputs", None) or [keras.KerasTensor((None, 6))]
    x = rng.integers(0, 9, (4, *spec.shape[1:])) if spec.dtype == "int32" else rng.normal(size=(4, *spec.shape[1:]))
    expected = ops.convert_to_numpy(model(x))
    before = [ops.convert_to_numpy(variable) for variable in model.variables]

    pruned = prune_low_magnitude(model, ConstantSparsity(0.5))
    np.testing.assert_allclose(ops.convert_to_numpy(pruned(x)), expected, rtol=1e-5, atol=1e-6)
    assert len(transformed_weights(pruned)) == count
    assert not {id(variable) for variable in pruned.variables} & {id(variable) for variable in model.variables}
    update_pruning_step(pruned, 0)
    pruned.compile(keras.optimizers.SGD(0.1), "mse")
    pruned.train_on_batch(x, np.ones_like(expected))
    stripped = strip_pruning(pruned)
    np.testing.assert_allclose(ops.convert_to_numpy(stripped(x)), ops.convert_to_numpy(pruned(x)), rtol=1e-5, atol=1e-6)
    assert [type(layer) for layer in stripped.layers] == [type(layer) for layer in model.layers]
    for old, variable in zip(before, model.variables, strict=True):
        np.testing.assert_array_equal(old, ops.convert_to_numpy(variable))


def test_a_composite_layer_by_itself(rng):
    layer = TakesLayers([layers.Dense(4)], ops.relu)
    x = rng.normal(size=(2, 6)).astype("float32")
    expected = ops.convert_to_numpy(layer(x))
    pruned = prune_low_magnitude(layer, ConstantSparsity(0.5))
    np.testing.assert_allclose(ops.convert_to_numpy(pruned(x)), expected, rtol=1e-5)
    update_pruning_step(pruned, 0)
    assert all(np.mean(ops.convert_to_numpy(w.effective_value()) == 0) == 0.5 for w in transformed_weights(pruned))
    np.testing.assert_allclose(ops.convert_to_numpy(layer(x)), expected)


def test_a_layer_that_holds_another_one_of_the_model_holds_its_copy():
    model = _tied()
    x = np.array([[1, 2, 3, 4, 5]])
    copied = copy_model(model)
    assert copied.layers[-1].embedding is copied.layers[1]
    copied.layers[1].embeddings.assign(copied.layers[1].embeddings * 2.0)
    np.testing.assert_allclose(
        ops.convert_to_numpy(copied(x)), 4 * ops.convert_to_numpy(model(x)), rtol=1e-5, atol=1e-6
    )


def test_what_cannot_be_copied_says_why_and_what_to_do():
    class Stubborn(layers.Layer):
        def __init__(self, thing):
            super().__init__()
            self.words = (word for word in "ab")
            self.dense = layers.Dense(2)

        def call(self, inputs):
            return self.dense(inputs)

    model = _functional(lambda x: Stubborn(object())(x))
    with pytest.raises(ValueError, match="inplace=True") as raised:
        prune_low_magnitude(model)
    assert "must override `get_config()`" in str(raised.value)  # Keras's own words, to the end
    assert "Please implement `get_config()`" in str(raised.value)
    assert "cannot pickle 'generator' object" in str(raised.value)
    pruned = prune_low_magnitude(model, inplace=True)
    assert pruned is model
    assert len(transformed_weights(model)) == 1
    strip(model, inplace=True)


@pytest.mark.skipif(keras.backend.backend() == "jax", reason="JAX has no variables of its own")
@pytest.mark.parametrize("lazily", [False, True])
def test_variables_of_the_backend_keep_their_values(lazily):
    class Raw(layers.Layer):
        def build(self, input_shape):
            self.kernel = self.add_weight(shape=(input_shape[-1], 3), name="kernel")
            if not lazily:
                self.make()

        def make(self):
            if keras.backend.backend() == "tensorflow":
                import tensorflow as tf

                self.factor = tf.Variable(np.random.random((3,)).astype("float32"))
            else:
                import torch

                self.factor = torch.nn.Parameter(torch.rand(3))
                self.register_buffer("offset", torch.rand(3))

        def call(self, inputs):
            if not hasattr(self, "factor") and not isinstance(inputs, keras.KerasTensor):
                self.make()
            return ops.matmul(inputs, self.kernel) * self.factor + getattr(self, "offset", 0.0)

        def transformable_weights(self):
            return [self.kernel]

    model = keras.Sequential([Raw()]) if lazily else _functional(lambda x: Raw()(x))
    x = np.ones((2, 6), "float32")
    expected = ops.convert_to_numpy(model(x))
    copied = copy_model(model)
    np.testing.assert_allclose(ops.convert_to_numpy(copied(x)), expected, rtol=1e-6)
    assert copied.layers[-1].factor is not model.layers[-1].factor
    attach(copied.layers[-1], {"kernel": [Mask(name="kernel_mask")]})
    np.testing.assert_allclose(ops.convert_to_numpy(strip(copied)(x)), expected, rtol=1e-6)


@pytest.mark.filterwarnings("ignore:The object being serialized includes a `lambda`")
def test_lambdas_as_arguments(rng):
    double, half = lambda x: 2.0 * x, lambda x: ops.clip(x, -0.5, 0.5)
    regular = layers.Dense(3, activation=half, kernel_regularizer=lambda kernel: 0.1 * ops.sum(kernel**2))
    model = keras.Sequential([keras.Input((4,)), layers.Dense(3, activation=double), regular])
    data = rng.standard_normal((5, 4)).astype("float32")
    pruned = prune_low_magnitude(model, ConstantSparsity(0.5))
    np.testing.assert_array_equal(*(ops.convert_to_numpy(each(data)) for each in (pruned, model)))
    np.testing.assert_allclose(*(ops.convert_to_numpy(each.losses[0]) for each in (pruned, model)), rtol=1e-6)
    update_pruning_step(pruned, steps=0)
    copied = copy_model(pruned)
    np.testing.assert_array_equal(*(ops.convert_to_numpy(each(data)) for each in (copied, pruned)))
    assert strip_pruning(copied).layers[0].activation is double


def test_a_layer_of_keras_without_configuration():
    """Keras has none of layers without arguments of their own that are given a policy of types."""
    inputs = keras.Input((3,))
    outputs = layers.Identity(dtype=keras.DTypePolicy("float32"))(layers.Dense(2)(inputs))
    model = keras.Model(inputs, outputs)
    copied = copy_model(model)
    assert type(copied.layers[-1]) is layers.Identity
    assert copied.layers[-1] is not model.layers[-1]
    assert copied.layers[-1].get_config()["dtype"]["config"]["name"] == "float32"  # which can be saved
    x = np.ones((2, 3), "float32")
    np.testing.assert_array_equal(
        ops.convert_to_numpy(copied(x)),
        ops.convert_to_numpy(model(x)),
    )
