"""Layers and models of users' own in quantized models: what they are made of computes in integers."""

import warnings

import keras
import numpy as np
import pytest
from keras import layers, ops

from keras_mot.export import LiteRTRunner, export_litert
from keras_mot.layers import transformed_weights
from keras_mot.quantization import (
    INT8,
    quantize_annotate_layer,
    quantize_apply,
    quantize_model,
    quantize_post_training,
    reference_rounding,
)
from keras_mot.sparsity import prune_low_magnitude, update_pruning_step
from keras_mot.transforms import Mask
from tests.graph.test_opening import ClassToken, Counts, Linear, functional
from tests.layers.user_models import COMPOSITES, FeedForward, inputs_of
from tests.quantization.test_coverage import only_tensorflow

PLAIN = {"equalize": False, "correct_biases": False}


def values(model, *inputs):
    inputs = inputs[0] if len(inputs) == 1 else inputs
    return ops.convert_to_numpy(model(inputs, training=False))


def quantized(model, data, **settings):
    return quantize_post_training(model, INT8, data, **PLAIN, **settings)


def assert_near(model, other, data, share=0.1):
    expected = values(model, data)
    np.testing.assert_allclose(values(other, data), expected, atol=share * np.abs(expected).max())


def kernels(model):
    return [layer for layer in model.layers if isinstance(layer, layers.Dense)]


@pytest.fixture
def data(rng):
    return rng.standard_normal((32, 6)).astype("float32")


@pytest.fixture
def flat_pair():
    """A model with a composite layer, and the same one written flat."""
    block = FeedForward(name="block")
    composite = functional(block, layers.Dense(2, name="head"))
    inputs = keras.Input((6,))
    x = layers.Dense(6, activation="relu", name="first")(inputs)
    x = layers.Dropout(0.1)(x)
    flat = keras.Model(inputs, layers.Dense(2, name="head")(layers.Dense(6, name="second")(x)))
    flat.set_weights(composite.get_weights())
    return composite, flat


def test_as_the_same_model_written_flat(flat_pair, data):
    composite, flat = flat_pair
    first, second = quantized(composite, data), quantized(flat, data)
    np.testing.assert_array_equal(values(first, data), values(second, data))
    names = [layer.name for layer in kernels(first)]
    assert names == [f"block_{composite.layers[1].first.name}", f"block_{composite.layers[1].second.name}", "head"]


@only_tensorflow
def test_the_file_is_that_of_the_flat_model(flat_pair, data, tmp_path):
    contents = []
    for model in flat_pair:
        done = quantized(model, data)
        exported = export_litert(done, tmp_path / "model.tflite", strict=True, output_type="int8")
        (received,) = LiteRTRunner(exported.path, kernels="reference").run(data).values()
        with reference_rounding(done):
            expected = values(done, data)
        scale, zero = done.layers[-1].parameters().scale, done.layers[-1].parameters().zero_point
        received = received if received.dtype != np.int8 else (received.astype("float32") - zero) * scale
        np.testing.assert_allclose(received, expected, atol=1e-5)
        contents.append(received)
    np.testing.assert_array_equal(*contents)


@pytest.mark.parametrize("name", COMPOSITES)
def test_all_weights_are_rounded(name, rng, tmp_path):
    model = COMPOSITES[name][0]()
    data = inputs_of(model, rng, 24)
    before = [ops.convert_to_numpy(weight) for weight in model.weights]
    done = quantized(model, data)
    assert_near(model, done, data, 0.15)
    assert not any(type(layer).__module__.startswith("tests.") for layer in done.layers)
    for weight, value in zip(model.weights, before, strict=True):
        np.testing.assert_array_equal(ops.convert_to_numpy(weight), value)
    done.save(tmp_path / "model.keras")
    np.testing.assert_array_equal(values(keras.saving.load_model(tmp_path / "model.keras"), data), values(done, data))


def test_calls_of_the_users_layers_are_not_multiplied(data):
    model = functional(FeedForward(), layers.Dense(2))
    quantized(model, data)
    assert model.layers[-1].output is model.output  # Keras refuses it of layers with several calls


@pytest.mark.parametrize("selector", ["block$", FeedForward, "object", "predicate"])
def test_overrides_point_at_a_composite_layer(selector, data):
    block = FeedForward(name="block")
    model = functional(block, layers.Dense(2, name="head"))
    if selector == "object":
        selector = block
    elif selector == "predicate":
        selector = lambda layer: layer.name == "block"  # noqa: E731
    done = quantize_model(model, overrides={selector: None})
    assert [layer.name for layer in kernels(done) if hasattr(layer, "_weight_stacks")] == ["head"]
    done = quantize_model(model, overrides={block.second: None})
    assert len([layer for layer in kernels(done) if hasattr(layer, "_weight_stacks")]) == 2


def test_selected_and_marked_composite_layers(data):
    block = FeedForward(name="block")
    model = functional(block, layers.Dense(2, name="head"))
    done = quantize_model(model, selected=lambda operation: operation is block)
    assert len([layer for layer in kernels(done) if hasattr(layer, "_weight_stacks")]) == 2
    marked = keras.models.clone_model(
        model, clone_function=lambda layer: quantize_annotate_layer(layer) if layer.name == "block" else layer
    )
    done = quantize_apply(marked)
    assert len([layer for layer in kernels(done) if hasattr(layer, "_weight_stacks")]) == 2


def test_masks_of_composite_layers_are_carried(data):
    model = functional(FeedForward(name="block"), layers.Dense(2, name="head"))
    pruned = prune_low_magnitude(model)
    update_pruning_step(pruned)
    kept = {weight.owner.name: weight.transform_of(Mask) for weight in transformed_weights(pruned)}
    for weight in transformed_weights(quantized(pruned, data)):
        source = kept[weight.owner.name.removeprefix("block_")]
        np.testing.assert_array_equal(
            *(ops.convert_to_numpy(mask.mask) for mask in (weight.transform_of(Mask), source))
        )
    assert len(kept) == 3


def test_they_train(data):
    done = quantize_model(functional(FeedForward(), Linear(2)), calibration_data=data, **PLAIN)
    done.compile("sgd", "mse")
    before = [ops.convert_to_numpy(layer.kernel).copy() for layer in kernels(done)]
    done.fit(data, np.zeros((32, 2), "float32"), verbose=0)
    for layer, value in zip(kernels(done), before, strict=True):
        assert np.abs(ops.convert_to_numpy(layer.kernel) - value).max() > 0


def test_what_is_not_taken_apart_is_named(data):
    model = functional(layers.Dense(3), Counts(name="counting"), layers.Dense(2))
    with pytest.warns(UserWarning, match=r"in floats.*\n.*'counting' \(Counts\): .*changes its own state"):
        done = quantized(model, data)
    assert_near(model, done, data)


def test_weights_that_training_leaves_are_named(rng):
    model = functional(ClassToken(name="token"), layers.Dense(2), shape=(5, 4))
    with pytest.warns(UserWarning, match="not trained: token/token, token/rows"):
        quantize_model(model)


class Text(keras.Model):
    """Integers in."""

    def __init__(self):
        super().__init__()
        self.embedding, self.head = layers.Embedding(10, 4), layers.Dense(2)

    def call(self, tokens):
        return self.head(ops.mean(self.embedding(tokens), axis=1))


class Towers(keras.Model):
    """Two arguments."""

    def __init__(self):
        super().__init__()
        self.left, self.right = layers.Dense(3), layers.Dense(3)

    def call(self, users, items):
        return self.left(users) * self.right(items)


def test_a_subclassed_model_of_integers(rng):
    tokens = rng.integers(0, 10, (32, 5)).astype("int32")
    model = Text()
    model(tokens[:1])
    done = quantized(model, tokens)
    assert done.inputs[0].dtype == "int32"
    assert_near(model, done, tokens)


def test_a_subclassed_model_of_two_arguments(rng):
    users, items = (rng.standard_normal((32, size)).astype("float32") for size in (4, 5))
    model = Towers()
    expected = ops.convert_to_numpy(model(users, items))
    done = quantized(model, [users, items])
    assert [tensor.name for tensor in done.inputs] == ["users", "items"]
    np.testing.assert_allclose(values(done, [users, items]), expected, atol=0.1 * np.abs(expected).max())
    with pytest.raises(ValueError, match="as a list of arrays, one for each"):
        quantize_model(model)


class Autoencoder(keras.Model):
    """Trains other models, and has no `call`."""

    def __init__(self, encoder, decoder):
        super().__init__()
        self.encoder, self.decoder = encoder, decoder

    def train_step(self, data):
        """Nothing."""
        return {}


@keras.saving.register_keras_serializable("test_composites")
class Halved(keras.Model):
    """A functional model that trains in its own way."""

    def train_step(self, data):
        """The mean, as the loss."""
        return {"seen": 1.0}


def test_a_model_without_a_call_names_its_networks():
    model = Autoencoder(functional(layers.Dense(2)), functional(layers.Dense(6), shape=(2,)))
    with pytest.raises(ValueError, match=r"quantize_model\(model.encoder.*encoder, decoder"):
        quantize_model(model)


def test_a_functional_model_keeps_its_class(data, tmp_path):
    inputs = keras.Input((6,))
    done = quantize_model(Halved(inputs, layers.Dense(2)(inputs)), calibration_data=data, **PLAIN)
    assert isinstance(done, Halved)
    done.compile()
    done.save(tmp_path / "model.keras")
    assert isinstance(keras.saving.load_model(tmp_path / "model.keras"), Halved)


class Trained(Text):
    """Trains in its own way, and is made by its own `__init__`."""

    def train_step(self, data):
        """Nothing."""
        return {}


def test_a_class_that_cannot_be_kept_is_named(rng):
    tokens = rng.integers(0, 10, (32, 5)).astype("int32")
    model = Trained()
    model(tokens[:1])
    with pytest.warns(UserWarning, match="without the train_step of Trained"):
        quantize_model(model, calibration_data=tokens, **PLAIN)


def _shared_input():
    inputs = keras.Input((6,))
    inner = keras.Model(inputs, layers.Dense(4)(inputs))
    return keras.Model(inputs, layers.Dense(2)(inner(inputs)))


def _unbuilt():
    return functional(keras.Sequential([layers.Dense(4, activation="relu"), layers.Dense(3)]), layers.Dense(2))


def _wrapped():
    return functional(layers.SpectralNormalization(layers.Dense(4)), layers.Lambda(lambda x: x * 2.0), layers.Dense(2))


def _distributed():
    return functional(
        layers.Reshape((2, 3)), layers.TimeDistributed(Linear(4)), layers.Flatten(), ClassTokens(), layers.Dense(2)
    )


class ClassTokens(layers.Layer):
    """A composite layer in which the size of the batch is computed with."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.token = ClassToken()

    def call(self, inputs):
        return self.token(ops.reshape(inputs, (ops.shape(inputs)[0], 2, 4)))

    def compute_output_shape(self, shape):
        return (shape[0], 12)


@pytest.mark.parametrize("make", [_shared_input, _unbuilt, _wrapped, _distributed])
def test_models_as_they_are_written(make, data):
    model = make()
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="Some layers")
        done = quantized(model, data)
    assert_near(model, done, data)


@only_tensorflow
def test_an_open_batch_stays_open_in_files(data, tmp_path):
    done = quantized(_distributed(), data)
    exported = export_litert(done, tmp_path / "model.tflite")
    assert exported.batch_size is None
    (received,) = LiteRTRunner(exported.path, kernels="reference").run(data).values()
    with reference_rounding(done):
        np.testing.assert_allclose(received, values(done, data), atol=1e-5)


@only_tensorflow
def test_variables_of_the_backend_keep_their_values(data):
    import tensorflow as tf

    class Raw(layers.Layer):
        def __init__(self, traced, **kwargs):
            super().__init__(**kwargs)
            self.traced = traced
            self.factors = tf.Variable(np.arange(1.0, 4.0, dtype="float32"))

        def call(self, inputs):
            return inputs * self.factors if self.traced else tf.multiply(inputs, self.factors)

        def get_config(self):
            return {**super().get_config(), "traced": self.traced}

    for traced in (True, False):
        layer = Raw(traced)
        model = functional(layers.Dense(3), layer, layers.Dense(2))
        layer.factors.assign([3.0, -2.0, 0.5])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            assert_near(model, quantized(model, data), data)


class Forgetful(layers.Layer):
    """It draws random numbers in its `call`, so that it stays whole, and forgets an argument in `get_config`."""

    def __init__(self, units, remembers=False, **kwargs):
        super().__init__(**kwargs)
        self.units, self.remembers = units, remembers
        self.dense = layers.Dense(units)
        self.seed = keras.random.SeedGenerator(3)

    def build(self, input_shape):
        self.dense.build(input_shape)

    def call(self, inputs):
        return self.dense(inputs) + 0.0 * keras.random.normal(ops.shape(inputs)[:-1] + (self.units,), seed=self.seed)

    def get_config(self):
        known = {"units": self.units, "remembers": True} if self.remembers else {"width": self.units}
        return {**super().get_config(), **known}


@pytest.mark.filterwarnings("ignore:Some layers")
@pytest.mark.parametrize("remembers", [False, True])
def test_a_model_that_cannot_be_loaded_is_said_to_be(remembers, data, tmp_path):
    def make():
        keras.utils.set_random_seed(2)
        return functional(layers.Dense(5), Forgetful(4, remembers, name="forgetful"), layers.Dense(2))

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        done = quantize_model(make(), INT8, calibration_data=data, **PLAIN)
    told = [str(warning.message) for warning in caught if "save_weights" in str(warning.message)]
    scope = keras.saving.custom_object_scope({"Forgetful": Forgetful})
    done.save(tmp_path / "model.keras")
    if remembers:
        with scope:
            loaded = keras.models.load_model(tmp_path / "model.keras", compile=False)
        assert not told
    else:
        with scope, pytest.raises(TypeError):
            keras.models.load_model(tmp_path / "model.keras", compile=False)
        assert len(told) == 1
        assert "'forgetful' (Forgetful)" in told[0]
        # What it says to do.
        loaded = quantize_model(make(), INT8, calibration_data=data[::-1] * 0.5, **PLAIN)
        done.save_weights(tmp_path / "model.weights.h5")
        loaded.load_weights(tmp_path / "model.weights.h5")
    np.testing.assert_allclose(values(loaded, data), values(done, data), atol=1e-6)
