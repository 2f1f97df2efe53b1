"""What the user left in floats is computed in floats by the file, and as the simulation computes it."""

import keras
import numpy as np
import pytest
from keras import layers, ops

from keras_mot.export import LiteRTRunner, export_litert
from keras_mot.layers.activation_quantizer import activation_quantizers
from keras_mot.layers.float_boundary import FloatBoundary
from keras_mot.quantization import INT8, INT16X8, quantize_post_training, reference_rounding, strip_quantization

pytestmark = pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="concerns the files alone")

X = np.random.default_rng(0).standard_normal((32, 6)).astype("float32")


def between(*made):
    """Layers between two dense ones."""
    keras.utils.set_random_seed(0)
    return keras.Sequential([keras.Input((6,)), layers.Dense(8, name="a"), *made, layers.Dense(3, name="z")])


def joined():
    keras.utils.set_random_seed(0)
    inputs = keras.Input((6,))
    parts = [layers.Dense(4, name=name)(inputs) for name in ("a", "b")]
    return keras.Model(inputs, layers.Dense(3, name="z")(layers.Concatenate(name="left")(parts)))


def moved():
    """The operation reads what integers move about, and another one reads the same in integers."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input((6,))
    x = layers.Reshape((4, 2))(layers.Dense(8, name="a")(inputs))
    left = layers.ReLU(name="left")(x)
    return keras.Model(inputs, layers.Dense(3, name="z")(layers.Flatten()(layers.Add()([left, x]))))


# name -> (model, operators of the file that compute in floats because of it)
CASES = {
    "relu": (lambda: between(layers.Activation("relu", name="left")), {"RELU"}),
    "softmax": (lambda: between(layers.Activation("softmax", name="left")), {"SOFTMAX"}),
    "gelu": (lambda: between(layers.Activation("gelu", name="left")), None),
    "dense": (lambda: between(layers.Dense(8, name="left"), layers.ReLU()), {"FULLY_CONNECTED"}),
    "dense and its relu": (lambda: between(layers.Dense(8, activation="relu", name="left")), {"FULLY_CONNECTED"}),
    "concatenate": (joined, {"CONCATENATION"}),
    "reshape": (lambda: between(layers.Reshape((2, 4), name="left"), layers.Flatten()), {"RESHAPE"}),
    "moved": (moved, {"RELU"}),
}


@pytest.mark.parametrize(
    ("left", "kept"),
    [("^bn$", {"bn"}), (layers.BatchNormalization, {"bn", "second_bn"}), ("^(a|bn)$", set()), ("^a$", set())],
)
def test_batch_normalization_that_alone_is_left_is_not_folded(left, kept, tmp_path):
    keras.utils.set_random_seed(0)
    parts = [layers.Dense(8, name="a"), layers.BatchNormalization(name="bn"), layers.ReLU()]
    parts += [layers.Dense(4, name="b"), layers.BatchNormalization(name="second_bn"), layers.Dense(3)]
    model = keras.Sequential([keras.Input((6,)), *parts])
    model.get_layer("bn").moving_mean.assign(np.linspace(-1, 1, 8))
    model.get_layer("bn").gamma.assign(np.linspace(-0.5, 2, 8))
    quantized = quantize_post_training(model, INT8, X, overrides={left: None})
    assert {layer.name for layer in quantized.layers if isinstance(layer, layers.BatchNormalization)} == kept
    result = export_litert(quantized, tmp_path / "model.tflite")
    floats = {operator for operator, _, _ in result.float_operators}
    assert ("MUL" in floats) == bool(kept)
    assert ("FULLY_CONNECTED" in floats) == (not kept)
    (received,) = LiteRTRunner(result.path, kernels="reference").run(X).values()
    with reference_rounding(quantized):
        expected = ops.convert_to_numpy(quantized(X, training=False))
    np.testing.assert_allclose(received, expected, atol=1e-5)


@pytest.mark.parametrize("scheme", [INT8, INT16X8], ids=["int8", "int16x8"])
@pytest.mark.parametrize("name", CASES)
def test_what_is_left_in_floats_is_in_floats(name, scheme, tmp_path):
    make, expected = CASES[name]
    quantized = quantize_post_training(make(), scheme, X, overrides={"left": None}, equalize=False)
    assert any(isinstance(layer, FloatBoundary) for layer in quantized.layers)
    result = export_litert(quantized, tmp_path / "model.tflite")
    names = {operator for operator, _, _ in result.float_operators}
    assert names == expected if expected is not None else names
    assert any(reason == "it is left in floats, as asked" for _, _, reason in result.float_operators)
    (received,) = LiteRTRunner(result.path, kernels="reference").run(X).values()
    steps = np.abs(received - quantized.predict(X, verbose=0)) / activation_quantizers(quantized)[-1].parameters().scale
    assert steps.max() < (1.1 if scheme is INT8 else 3.1)  # kernels of 16 bits round twice
    assert (steps < 0.1).mean() > (0.9 if scheme is INT8 else 0.5)


def test_an_embedding_left_in_floats(tmp_path):
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [keras.Input((6,), dtype="int32"), layers.Embedding(9, 4, name="left"), layers.Flatten(), layers.Dense(3)]
    )
    words = np.random.default_rng(0).integers(0, 9, (16, 6)).astype("int32")
    quantized = quantize_post_training(model, INT8, words, overrides={"left": None})
    result = export_litert(quantized, tmp_path / "model.tflite")
    assert {operator for operator, _, _ in result.float_operators} >= {"GATHER"}


class OwnSoftmax(layers.Layer):
    """Computes what the table knows, with an operation of the backend, so that it is not taken apart."""

    def call(self, x):
        """The softmax."""
        import tensorflow as tf

        return tf.raw_ops.Softmax(logits=x)


def test_a_kernel_of_another_range_is_not_used(tmp_path):
    """The runtime refuses an integer softmax whose result does not have the kernel's own scale."""
    with pytest.warns(UserWarning, match="stay as they are"):
        quantized = quantize_post_training(between(OwnSoftmax(name="own")), INT8, X)
    result = export_litert(quantized, tmp_path / "model.tflite")
    assert [operator for operator, _, _ in result.float_operators] == ["SOFTMAX"]
    np.testing.assert_allclose(result.run(X), quantized.predict(X, verbose=0), atol=0.02)


def test_stripping_drops_boundaries():
    quantized = quantize_post_training(between(layers.ReLU(name="left")), INT8, X, overrides={"left": None})
    plain = strip_quantization(quantized)
    assert not any(isinstance(layer, FloatBoundary) for layer in plain.layers)
