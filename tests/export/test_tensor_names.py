"""The weights in files are called as the Keras variables are."""

import keras
import numpy as np
import pytest
from keras import layers

from keras_mot.analysis import tensor_stats
from keras_mot.export import LiteRTRunner, export_litert
from keras_mot.export.litert.engines.tensor_names import name_weights
from keras_mot.export.litert.litert_file import pack_model, parse_model
from keras_mot.quantization import quantize_post_training

pytestmark = pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="the same conversion, in a child")


def _randomized(model):
    """With other values in each weight, as training leaves them: initializers make equal ones."""
    generator = np.random.default_rng(0)
    for weight in model.weights:
        weight.assign(generator.random(weight.shape) + 0.1)
    return model


def convolutions():
    inputs = keras.Input((8, 8, 3))
    x = layers.Conv2D(4, 3, use_bias=False, name="first")(inputs)
    x = layers.ReLU()(layers.BatchNormalization(name="first_norm")(x))
    x = layers.BatchNormalization(name="depthwise_norm")(layers.DepthwiseConv2D(3, name="depthwise")(x))
    x = layers.SeparableConv2D(6, 3, name="separable")(x)
    x = layers.Conv2DTranspose(5, 2, name="transposed")(x)
    x = layers.GlobalAveragePooling2D()(x)
    x = layers.Dense(7, activation="relu", name="dense")(x)
    x = layers.BatchNormalization(name="dense_norm")(layers.Dense(7, name="square")(x))
    return _randomized(keras.Model(inputs, layers.Dense(3, name="classes")(x), name="convolutions"))


def sequences():
    inputs = keras.Input((6,), dtype="int32")
    x = layers.Embedding(11, 8, name="words")(inputs)
    x = layers.LayerNormalization(name="norm")(layers.MultiHeadAttention(2, 4, name="attention")(x, x))
    x = layers.GRU(4, name="gru")(layers.LSTM(5, return_sequences=True, name="lstm")(x))
    return _randomized(keras.Model(inputs, layers.Dense(2, name="classes")(x), name="sequences"))


class Block(layers.Layer):
    """Layers within a layer, one of them called twice, and a weight of its own."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.inner = layers.Dense(6, name="inner")

    def build(self, shape):
        self.inner.build(shape)
        self.mixing = self.add_weight(shape=(6, 6), name="mixing")

    def call(self, inputs):
        return keras.ops.tanh(self.inner(self.inner(inputs))) @ self.mixing


def nested():
    inner = keras.Sequential([keras.Input((6,)), Block(name="block"), layers.Dense(6, name="dense")], name="inside")
    inputs = keras.Input((6,))
    return _randomized(keras.Model(inputs, layers.Dense(2, name="classes")(inner(inputs)), name="nested"))


def _kernels(path):
    """Names and shapes of the weights with several dimensions; a converter's initial states of loops left out."""
    return {t.name: t.shape for t in tensor_stats(path) if len(t.shape) > 1 and t.unique_values > 1}


KERNELS = {
    "first/kernel": (4, 3, 3, 3),
    "depthwise/kernel": (1, 3, 3, 4),
    "separable/depthwise_kernel": (1, 3, 3, 4),
    "separable/pointwise_kernel": (6, 1, 1, 4),
    "transposed/kernel": (5, 2, 2, 6),
    "dense/kernel": (7, 5),
    "square/kernel": (7, 7),
    "classes/kernel": (3, 7),
}


@pytest.mark.parametrize("weights", ["float32", "float16", "int8"])
def test_convolutions_folded_or_not(tmp_path, weights):
    export_litert(convolutions(), tmp_path / "model.tflite", weights=weights)
    assert _kernels(tmp_path / "model.tflite") == KERNELS
    vectors = {tensor.name for tensor in tensor_stats(tmp_path / "model.tflite")} - set(KERNELS)
    # The separable convolution has no bias between its kernels, and gets one of zeros; the first has none but the shift
    # of its batch normalization.
    names = ("depthwise", "separable", "transposed", "dense", "classes")
    assert vectors == {"first_norm/beta", "separable/depthwise_bias", *(f"{name}/bias" for name in names)}


def test_recurrent_layers_and_attention(tmp_path):
    model = sequences()
    export_litert(model, tmp_path / "model.tflite")
    found = _kernels(tmp_path / "model.tflite")
    expected = {w.path: w for w in model.weights if len(w.shape) > 1 and not w.path.endswith("bias")}
    assert expected.keys() <= found.keys()
    for name, weight in expected.items():
        assert np.prod(found[name]) == np.prod(weight.shape)
    assert not [name for name in found if "arith" in name or ";" in name]


def test_weights_in_a_loop_that_the_converter_rounds(tmp_path):
    model = keras.Sequential([keras.Input((4, 32)), layers.LSTM(48, name="lstm"), layers.Dense(40, name="classes")])
    export_litert(_randomized(model), tmp_path / "model.tflite", weights="int8", batch_size=1)
    rounded = {t.name: t.shape for t in tensor_stats(tmp_path / "model.tflite") if t.dtype == "int8"}
    shapes = {"kernel": (192, 32), "recurrent_kernel": (192, 48)}
    assert rounded == {**{f"lstm/lstm_cell/{name}": shapes[name] for name in shapes}, "classes/kernel": (40, 48)}


def test_parts_of_a_kernel_and_normalization_by_itself(tmp_path):
    inputs = keras.Input((6, 4))
    x = layers.BatchNormalization(name="norm")(layers.ReLU()(inputs))  # nothing before it that it could be folded into
    x = layers.GRU(5, reset_after=False, name="gru")(x)  # takes its recurrent kernel in two parts
    model = _randomized(keras.Model(inputs, layers.Dense(2, name="classes")(x)))
    export_litert(model, tmp_path / "model.tflite")
    shapes = {tensor.name: tensor.shape for tensor in tensor_stats(tmp_path / "model.tflite")}
    assert shapes["gru/gru_cell/kernel"] == (15, 4)
    name = "gru/gru_cell/recurrent_kernel"
    assert sorted([shapes[name], shapes[f"{name}:2"]]) == [(5, 5), (10, 5)]
    assert {"norm/gamma", "norm/beta"} <= set(shapes)


def test_models_and_layers_within_others(tmp_path):
    model = nested()
    export_litert(model, tmp_path / "model.tflite")
    paths = {weight.path for weight in model.weights if len(weight.shape) > 1}
    assert {name.split(":")[0] for name in _kernels(tmp_path / "model.tflite")} == paths


def test_quantized_models(tmp_path):
    calibration = np.random.default_rng(0).random((16, 8, 8, 3)).astype("float32")
    quantized = quantize_post_training(convolutions(), calibration_data=calibration)
    export_litert(quantized, tmp_path / "model.tflite")
    kernels = {weight.path for weight in quantized.weights if weight.path.endswith("/kernel")}
    assert set(_kernels(tmp_path / "model.tflite")) == kernels
    words = np.random.default_rng(0).integers(0, 11, (16, 6))
    export_litert(quantize_post_training(sequences(), calibration_data=words), tmp_path / "words.tflite")
    assert {"words/embeddings", "attention_query/kernel", "lstm_recurrent/kernel"} <= set(
        _kernels(tmp_path / "words.tflite")
    )


def test_nothing_but_names_changes(tmp_path):
    """A file whose weights have names of no operation: the values tell, where there is one variable with them."""
    model = keras.Sequential(
        [keras.Input((5,)), layers.Dense(5, name="one"), layers.Dense(5, name="two"), layers.Dense(5, name="three")]
    )
    model.get_layer("three").kernel.assign(keras.ops.ones((5, 5)))
    path = tmp_path / "model.tflite"
    export_litert(model, path)
    stripped = parse_model(path)
    for number, tensor in enumerate(stripped.subgraphs[0].tensors):
        tensor.name = f"t{number}"
    content = pack_model(stripped)
    named = name_weights(content, model, {})
    x = np.random.default_rng(0).standard_normal((4, 5)).astype("float32")
    for before, after in zip(LiteRTRunner(content).run(x).values(), LiteRTRunner(named).run(x).values(), strict=True):
        np.testing.assert_array_equal(before, after)
    first, second = parse_model(content), parse_model(named)
    names = []
    for old, new in zip(first.subgraphs[0].tensors, second.subgraphs[0].tensors, strict=True):
        assert (old.type, list(old.shape), old.buffer) == (new.type, list(new.shape), new.buffer)
        names.append(new.name.decode())
    assert names.count("one/kernel") == names.count("two/kernel") == 1
    assert not [name for name in names if name.startswith("three")]  # ones could be anything
    for old, new in zip(first.buffers, second.buffers, strict=True):
        np.testing.assert_array_equal(old.data, new.data)
