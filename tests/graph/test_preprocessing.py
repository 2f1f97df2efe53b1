"""Models with layers that look things up: split there, quantized behind them, and refused by the export.

Texts go through Keras's models on TensorFlow alone; numbers that are looked up, everywhere.
"""

import warnings

import keras
import numpy as np
import pytest
from keras import layers

from keras_mot._keras import calls_anywhere
from keras_mot.export import export_litert
from keras_mot.graph import split_preprocessing, trace
from keras_mot.quantization import quantize_model, quantize_post_training

RNG = np.random.default_rng(0)
only_tensorflow = pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="texts are TensorFlow's")
FAST = {"equalize": False, "correct_biases": False}


def numbers():
    """Integers that are looked up, and features beside them that are not."""
    keras.utils.set_random_seed(0)
    ids, features = keras.Input((1,), dtype="int32", name="id"), keras.Input((3,), name="features")
    found = layers.IntegerLookup(vocabulary=[12, 36, 1138], name="lookup")(ids)
    embedded = layers.Flatten()(layers.Embedding(4, 5)(found))
    joined = layers.Concatenate()([embedded, layers.Dense(4, activation="relu", name="hidden")(features)])
    model = keras.Model([ids, features], layers.Dense(2, name="out")(joined))
    data = [RNG.choice([12, 36, 1138, 7], (20, 1)).astype("int32"), RNG.normal(size=(20, 3)).astype("float32")]
    return model, data


def texts():
    """Texts, words and hashes, in a nested model too."""
    keras.utils.set_random_seed(0)
    vectors = layers.TextVectorization(max_tokens=20, output_sequence_length=5)
    vectors.adapt(["the cat sat", "a dog ran", "the dog sat"])
    text, word = keras.Input((), dtype="string", name="text"), keras.Input((1,), dtype="string", name="word")
    inner = keras.Sequential(
        [keras.Input((1,), dtype="string"), layers.StringLookup(vocabulary=["x", "y"])], name="inner"
    )
    counted = layers.CategoryEncoding(3, "multi_hot")(inner(word))
    embedded = layers.GlobalAveragePooling1D()(layers.Embedding(20, 6)(vectors(text)))
    hashed = layers.Flatten()(layers.Embedding(7, 2)(layers.Hashing(7)(word)))
    outputs = layers.Dense(2, name="out")(layers.Concatenate()([counted, embedded, hashed]))
    model = keras.Model({"text": text, "word": word}, outputs)
    return model, {
        "text": np.array(["the cat", "a dog sat", "zebra", ""] * 5, dtype=object),
        "word": np.array([["x"], ["y"], ["z"], ["x"]] * 5, dtype=object),
    }


def tensors(data):
    def tensor(array):
        if array.dtype != object:
            return keras.ops.convert_to_tensor(array)
        import tensorflow as tf

        return tf.constant(array.astype(str))

    return keras.tree.map_structure(tensor, data)


def values(outputs):
    return keras.ops.convert_to_numpy(outputs)


@pytest.mark.parametrize("build", [numbers, pytest.param(texts, marks=only_tensorflow)])
def test_lookups(build, tmp_path):
    model, data = build()
    expected = values(model(tensors(data)))
    with pytest.raises(ValueError, match=r"no kernel\. Split the model there.*split_preprocessing"):
        export_litert(model, tmp_path / "model.tflite")

    preprocessing, network = split_preprocessing(model)
    between = preprocessing(tensors(data))
    np.testing.assert_allclose(values(network(between)), expected, atol=1e-6)
    arrays = keras.tree.map_structure(values, between)
    result = export_litert(network, tmp_path / "model.tflite", verification_data=arrays)
    np.testing.assert_allclose(result.run(arrays), expected, atol=1e-5)

    # Labels beside the inputs, and batches, go through the lookups too.
    batches = [keras.tree.map_structure(lambda array, at=at: array[at : at + 10], data) for at in (0, 10)]
    for given in (data, (data, np.zeros(20)), [(batch, np.zeros(10)) for batch in batches]):
        quantized = quantize_post_training(model, calibration_data=given, **FAST)
        assert np.abs(values(quantized(tensors(data))) - expected).max() < 0.05 * np.abs(expected).max()
    preprocessing, network = split_preprocessing(quantized)
    exported = export_litert(network, tmp_path / "model.tflite", strict=True, verification_data=arrays)
    simulated = values(quantized(tensors(data)))
    assert np.abs(exported.run(arrays) - simulated).max() < 0.05 * np.abs(expected).max()


@only_tensorflow  # elsewhere Keras trains no model with lookups within
def test_training_and_saving(tmp_path):
    model, data = numbers()
    quantized = quantize_model(model, calibration_data=data, overrides={"hidden$": None}, **FAST)
    quantized.compile("sgd", "mse")
    quantized.fit(data, np.zeros((20, 2)), verbose=0)
    quantized.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(values(loaded(data)), values(quantized(data)), atol=1e-6)


class OwnSteps(keras.Model):
    """A model that says how it is trained."""

    def train_step(self, *args):
        return super().train_step(*args)


def test_a_model_with_lookups_stays_as_it_was_and_so_do_its_class_and_its_data():
    plain, data = numbers()
    model = OwnSteps(plain.inputs, plain.outputs)
    calls = [len(calls_anywhere(layer)) for layer in model.layers]
    many = [np.tile(data[0], (250, 1)), np.tile(data[1], (250, 1))]
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)  # of data without an end, and of a class that is not kept
        warnings.filterwarnings("ignore", message="Explicitly requested dtype int64")  # JAX's, of the lookup
        quantized = quantize_post_training(model, calibration_data=many, batch_size=1000, **FAST)
    assert type(quantized) is OwnSteps
    assert [len(calls_anywhere(layer)) for layer in model.layers] == calls


def test_what_cannot_be_split():
    model, _ = numbers()
    with pytest.raises(TypeError, match="expects a Keras model"):
        split_preprocessing("model")
    plain = keras.Sequential([keras.Input((3,)), layers.Dense(2, name="first"), layers.Dense(2)])
    with pytest.raises(ValueError, match="nothing to split at"):
        split_preprocessing(plain)
    with pytest.raises(ValueError, match="'first', in front"):
        split_preprocessing(plain, at="first")
    # Split behind a layer of one's own choice.
    inputs = keras.Input((3,))
    scaled = layers.Rescaling(2.0, name="scale")(inputs)
    model = keras.Model(inputs, layers.Dense(2)(layers.Concatenate()([scaled, inputs])))
    before, behind = split_preprocessing(model, at="scale")
    x = RNG.normal(size=(4, 3)).astype("float32")
    np.testing.assert_allclose(values(behind(before(x))), values(model(x)), atol=1e-6)
    assert behind.inputs[0].name == "scale"


class LooksUp(keras.Model):
    """Looks numbers or texts up in its `call`."""

    def __init__(self, lookup):
        super().__init__()
        self.lookup, self.embedding, self.dense = lookup, layers.Embedding(6, 4), layers.Dense(2)

    def call(self, inputs):
        return self.dense(self.embedding(self.lookup(inputs)))


@pytest.mark.parametrize("kind", ["numbers", pytest.param("texts", marks=only_tensorflow)])
def test_lookups_in_the_call_of_a_subclassed_model(kind):
    keras.utils.set_random_seed(0)
    if kind == "numbers":
        model = LooksUp(layers.IntegerLookup(vocabulary=[12, 36, 1138]))
        data = RNG.choice([12, 36, 1138, 7], (20, 3)).astype("int32")
    else:
        model = LooksUp(layers.StringLookup(vocabulary=["x", "y"]))
        data = np.array([["x", "y"], ["z", "x"]] * 10, dtype=object)
    expected = values(model(tensors(data)))
    # On JAX, Keras cannot trace lookups, and does not remember what such a model was called on.
    whole = trace(model, data) if keras.backend.backend() == "jax" else model
    preprocessing, network = split_preprocessing(whole)
    np.testing.assert_allclose(values(network(preprocessing(tensors(data)))), expected, atol=1e-6)
    quantized = quantize_post_training(model, calibration_data=data, **FAST)
    np.testing.assert_allclose(values(quantized(tensors(data))), expected, atol=0.1 * np.abs(expected).max())
    assert any(hasattr(layer, "_weight_stacks") for layer in quantized.layers)
