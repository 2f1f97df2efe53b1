"""What users' layers do in training alone, by branches of their own, in models for training with quantization."""

import warnings

import keras
import numpy as np
import pytest
from keras import layers, ops

from keras_mot.clustering import cluster_weights
from keras_mot.layers.in_training import InTraining
from keras_mot.quantization import INT8, quantize_model, quantize_post_training, strip_quantization
from keras_mot.sparsity import prune_low_magnitude
from tests.graph.test_opening import functional

PLAIN = {"equalize": False, "correct_biases": False}


@keras.saving.register_keras_serializable("test_training_branches")
class DropPath(layers.Layer):
    """Stochastic depth: drops samples."""

    def __init__(self, rate=0.5, **kwargs):
        super().__init__(**kwargs)
        self.rate = rate
        self.seeds = keras.random.SeedGenerator(1)

    def call(self, inputs, training=None):
        if not training:
            return inputs
        shape = (ops.shape(inputs)[0], *[1] * (len(inputs.shape) - 1))
        kept = ops.floor(keras.random.uniform(shape, seed=self.seeds) + 1 - self.rate)
        return inputs * kept / (1 - self.rate)

    def get_config(self):
        return {**super().get_config(), "rate": self.rate}


class Defaulted(DropPath):
    """The same with another default, which Keras notes in each symbolic call."""

    def call(self, inputs, training=False):
        return super().call(inputs, training=training)


class Block(layers.Layer):
    """A branch on `training` around layers with weights."""

    def __init__(self, what, **kwargs):
        super().__init__(**kwargs)
        self.what = what
        self.dense, self.dropout = layers.Dense(6), layers.Dropout(0.5)
        self.seeds = keras.random.SeedGenerator(1)

    def build(self, shape):
        self.dense.build(shape)
        self.mean = self.add_weight(shape=(6,), initializer="zeros", trainable=False, name="mean")

    def call(self, inputs, training=None):
        x = self.dense(inputs)
        if self.what == "dropout":
            return inputs + self.dropout(x, training=training)
        if training and self.what == "noise":
            x = x + keras.random.normal((6,), seed=self.seeds)
        elif training and self.what == "average":
            self.mean.assign(0.9 * self.mean + 0.1 * ops.mean(x, axis=0))
        elif training and self.what == "scale":
            x = ops.tanh(x)
        return inputs + x

    def compute_output_shape(self, shape):
        return shape


class Whole(keras.Model):
    """A subclassed model with a branch of its own."""

    def __init__(self):
        super().__init__()
        self.first, self.second = layers.Dense(6, activation="relu"), layers.Dense(2)

    def call(self, inputs, training=False):
        x = self.first(inputs)
        return self.second(2 * x if training else x)


class Penalised(layers.Layer):
    """Adds losses."""

    def __init__(self, what, **kwargs):
        super().__init__(**kwargs)
        self.what, self.dense = what, layers.Dense(6)
        if what == "regularizer":
            self.activity_regularizer = keras.regularizers.L2(0.1)

    def call(self, inputs):
        x = inputs if self.what == "input" else self.dense(inputs)
        if self.what != "regularizer":
            self.add_loss(0.1 * ops.mean(x**2))
        return x

    def get_config(self):
        return {**super().get_config(), "what": self.what}


@pytest.fixture
def data(rng):
    return rng.standard_normal((16, 6)).astype("float32")


def silently(function, *args, **kwargs):
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        return function(*args, **kwargs)


def in_floats(model):
    return [layer for layer in model.layers if isinstance(layer, Block)]


def test_a_default_of_false_decides_nothing(data):
    model = functional(layers.Dense(6), Defaulted(name="drop"), layers.Dense(2))
    assert isinstance(silently(quantize_model, model).get_layer("drop"), InTraining)


def test_a_layer_that_returns_its_input_in_inference_is_kept(data, tmp_path):
    model = functional(layers.Dense(6), DropPath(name="drop"), layers.Dense(2))
    quantized = silently(quantize_model, model, INT8, calibration_data=data, **PLAIN)
    reference = silently(quantize_post_training, model, INT8, data, **PLAIN)
    expected = ops.convert_to_numpy(reference(data))
    np.testing.assert_array_equal(ops.convert_to_numpy(quantized(data, training=False)), expected)
    assert np.abs(ops.convert_to_numpy(quantized(data, training=True)) - expected).max() > 0
    kept = quantized.get_layer("drop")
    assert isinstance(kept, InTraining)
    assert kept.layer is not model.get_layer("drop")
    quantized.compile("sgd", "mse")
    quantized.fit(data, np.zeros((16, 2)), verbose=0)
    quantized.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(*[ops.convert_to_numpy(each(data)) for each in (loaded, quantized)])
    assert type(strip_quantization(quantized).get_layer("drop")) is DropPath


@pytest.mark.parametrize(
    ("what", "reason"), [("noise", "random"), ("average", "own state"), ("scale", "with `Tanh`"), ("dropout", None)]
)
def test_a_branch_around_weights_is_named(what, reason, data):
    model = functional(Block(what, name="block"), layers.Dense(2))
    silently(quantize_post_training, model, INT8, data, **PLAIN)
    if reason is None:
        assert not in_floats(silently(quantize_model, model))
        return
    with pytest.warns(UserWarning, match=rf"'block' \(Block\): .*{reason}(.|\n)*overrides={{layer: None}}"):
        quantized = quantize_model(model)
    assert not in_floats(quantized)
    whole = silently(quantize_model, model, overrides={"^block$": None})
    (block,) = in_floats(whole)
    assert block is not model.get_layer("block")
    first, second = (ops.convert_to_numpy(whole(data, training=mode)) for mode in (True, False))
    assert what == "average" or np.abs(first - second).max() > 0
    assert what != "average" or np.abs(ops.convert_to_numpy(block.mean)).max() > 0


def test_the_branch_of_a_subclassed_model_is_named(data):
    model = Whole()
    model(data)
    silently(quantize_post_training, model, INT8, data, **PLAIN)
    with pytest.warns(UserWarning, match="(?s)Whole.*with `Multiply`"):
        quantize_model(model)


def test_a_part_that_never_trains_loses_nothing(data):
    block = Block("noise", name="block")
    inputs = keras.Input((6,))
    model = keras.Model(inputs, layers.Dense(2)(block(inputs, training=False)))
    silently(quantize_model, model)


def losses_of(model, data):
    model(data, training=True)
    return [float(loss) for loss in model.losses]


@pytest.mark.parametrize("what", ["regularizer", "input", "loss"])
def test_losses_that_layers_add_are_kept_or_named(what, data):
    model = functional(Penalised(what, name="penalised"), layers.Dense(2))
    expected = losses_of(model, data)
    reference = silently(quantize_post_training, model, INT8, data, **PLAIN)
    assert not any(isinstance(layer, Penalised) for layer in reference.layers)
    for copied in (prune_low_magnitude(model), cluster_weights(model, 64)):
        np.testing.assert_allclose(losses_of(copied, data), expected, rtol=1e-2)
    if what == "loss":
        with pytest.warns(UserWarning, match=r"'penalised' \(Penalised\): its `call` adds a loss"):
            quantize_model(model)
        quantized = silently(quantize_model, model, overrides={"penalised": None})
    else:
        quantized = silently(quantize_model, model, INT8, calibration_data=data, **PLAIN)
        np.testing.assert_array_equal(*[ops.convert_to_numpy(each(data)) for each in (quantized, reference)])
        assert losses_of(strip_quantization(quantized), data) == (expected if what == "input" else [])
    np.testing.assert_allclose(losses_of(quantized, data), expected, rtol=0.02)
