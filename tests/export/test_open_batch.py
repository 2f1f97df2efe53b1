"""Files with an open batch size: what makes timesteps one batch, for one sample and for several."""

import math

import keras
import numpy as np
import pytest
from keras import layers

from keras_mot.export import LiteRTRunner, export_litert
from keras_mot.export.dependencies import require
from keras_mot.export.litert.litert_file import operator_codes, parse_model
from keras_mot.quantization import INT8, quantize_post_training

pytestmark = pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="concerns the files alone")

SEQUENCES = {
    "gru": lambda: [layers.GRU(4), layers.Dense(3)],
    "sequences": lambda: [layers.LSTM(4, return_sequences=True), layers.Dense(3)],
    "bidirectional": lambda: [layers.Bidirectional(layers.GRU(3, return_sequences=True))],
    "distributed": lambda: [layers.Reshape((5, 2, 2)), layers.TimeDistributed(layers.Flatten()), layers.Dense(3)],
}


def unet(levels):
    """Halves and doubles images; each level joins what it had with what comes from below."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input((16, 16, 3))
    x, kept = inputs, []
    for level in range(levels):
        x = layers.Conv2D(4 + level, 3, padding="same", activation="relu")(x)
        kept.append(x)
        x = layers.MaxPooling2D(2)(x)
    x = layers.Conv2D(8, 3, padding="same", activation="relu")(x)
    for level in reversed(range(levels)):
        if level % 2:
            x = layers.Conv2DTranspose(6, 3, strides=2, padding="same", activation="relu")(x)
        else:
            x = layers.UpSampling2D(2)(x)
        x = layers.Conv2D(4, 3, padding="same", activation="relu")(layers.Concatenate()([x, kept[level]]))
    return keras.Model(inputs, layers.Conv2D(2, 1)(x))


def reshapes(path):
    """(number of values before, and after) of each RESHAPE in a file, by its static shapes."""
    model = parse_model(path)
    graph, codes = model.subgraphs[0], operator_codes(model)
    reshape = require("ai_edge_litert.schema_py_generated").BuiltinOperator.RESHAPE
    for operator in graph.operators:
        if codes[operator.opcodeIndex] == reshape:
            yield tuple(math.prod(graph.tensors[index].shape) for index in (operator.inputs[0], operator.outputs[0]))


def check(model, x, tmp_path):
    quantized = quantize_post_training(model, INT8, x, equalize=False, correct_biases=False)
    result = export_litert(quantized, tmp_path / "model.tflite")
    assert result.batch_size is None, result.batch_reason
    assert result.float_operators == ()
    expected = quantized.predict(x, verbose=0)
    for kernels in ("default", "reference"):
        runner = LiteRTRunner(result.path, kernels=kernels)
        for count in (1, 3):
            (received,) = runner.run(x[:count]).values()
            np.testing.assert_allclose(received, expected[:count], atol=0.05 * np.abs(expected).max())
    return result.path


@pytest.mark.parametrize("name", SEQUENCES)
def test_sequences(name, tmp_path):
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((5, 4)), *SEQUENCES[name]()])
    x = np.random.default_rng(0).standard_normal((16, 5, 4)).astype("float32")
    path = check(model, x, tmp_path)
    pairs = list(reshapes(path))
    assert pairs
    assert all(before == after for before, after in pairs)


@pytest.mark.parametrize("levels", [1, 2, 3])
def test_unets(levels, tmp_path):
    x = np.random.default_rng(0).standard_normal((8, 16, 16, 3)).astype("float32")
    check(unet(levels), x, tmp_path)
