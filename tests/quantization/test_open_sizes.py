"""Models that leave sizes beside the batch open: known from the calibration data where a layer needs them."""

import keras
import numpy as np
import pytest
from keras import layers, ops

from keras_mot.graph.kinds import is_kind
from keras_mot.layers.activation_quantizer import activation_quantizers
from keras_mot.quantization import INT8, quantize_post_training

LENGTH = 6
SETTINGS = {"equalize": False, "correct_biases": False, "progress": False, "placement": "integer"}


@keras.saving.register_keras_serializable("test_open_sizes")
class Positions(layers.Layer):
    """Adds an embedding of each position, up to the length."""

    def __init__(self, sliced=False, **kwargs):
        super().__init__(**kwargs)
        self.sliced = sliced

    def build(self, input_shape):
        """Creates the table."""
        self.table = self.add_weight(name="table", shape=(10, input_shape[-1]))

    def call(self, inputs):
        """The sum."""
        length = ops.shape(inputs)[1]
        return inputs + (self.table[:length] if self.sliced else ops.take(self.table, ops.arange(length), axis=0))


def texts(*parts):
    inputs = keras.Input((None,), dtype="int32", name="tokens")
    x = layers.Embedding(9, 8, keras.initializers.RandomNormal(stddev=1.5))(inputs)
    for part in parts:
        x = part(x)
    return keras.Model(inputs, x)


def attending():
    keras.utils.set_random_seed(0)
    attention = layers.MultiHeadAttention(2, 4, name="attention")
    return texts(Positions(name="positions"), lambda x: x + attention(x, x), layers.Dense(3))


def data(count=24, length=LENGTH):
    return np.random.default_rng(0).integers(0, 9, (count, length)).astype("int32")


def outputs(model, x):
    return ops.convert_to_numpy(model(x, training=False))


def test_sizes_are_those_of_the_data():
    model, x = attending(), data()
    with pytest.warns(UserWarning, match=r"'positions', 'attention' can compute.*tokens \(None, 6\)"):
        quantized = quantize_post_training(model, INT8, x, **SETTINGS)
    assert quantized.input_shape == (None, LENGTH)
    assert len([each for each in quantized.operations if is_kind(each, "matmul")]) == 2
    assert np.abs(outputs(quantized, x) - outputs(model, x)).max() < 0.05 * np.abs(outputs(model, x)).max()


@pytest.mark.filterwarnings("ignore:.* leaves sizes of its inputs open")
def test_a_slice_up_to_an_open_size_is_no_slice():
    keras.utils.set_random_seed(0)
    model, x = texts(Positions(sliced=True), layers.Dense(3)), data()
    quantized = quantize_post_training(model, INT8, x, **SETTINGS)
    assert np.abs(outputs(quantized, x) - outputs(model, x)).max() < 0.05 * np.abs(outputs(model, x)).max()


def test_sizes_stay_open_where_that_is_asked_for():
    floats = {"positions": None, "attention": None}
    quantized = quantize_post_training(attending(), INT8, data(), overrides=floats, **SETTINGS)
    assert quantized.input_shape == (None, None)
    assert outputs(quantized, data(length=8)).shape == (24, 8, 3)


def test_sizes_stay_open_where_integers_take_any():
    model = texts(layers.Conv1D(4, 3, padding="same", activation="relu"), layers.Dense(3))
    quantized = quantize_post_training(model, INT8, data(), **SETTINGS)
    assert quantized.input_shape == (None, None)


@pytest.mark.filterwarnings("ignore:Some layers of")
def test_data_of_several_sizes_say_none():
    batches = [data(), data(length=8)]
    quantized = quantize_post_training(attending(), INT8, batches, **SETTINGS)
    assert quantized.input_shape == (None, None)


@pytest.mark.filterwarnings("ignore:.* leaves sizes of its inputs open")
def test_nothing_of_a_generator_is_lost():
    """All twelve batches are seen, of which the first eight are looked at before."""
    model = texts(layers.EinsumDense("abc,cd->abd", (None, 3)))
    batches = [data(2) % 3 for _ in range(11)] + [np.full((2, LENGTH), 8, "int32")]
    quantized, expected = (
        quantize_post_training(model, INT8, each, **SETTINGS) for each in (iter(batches), np.concatenate(batches))
    )
    assert quantized.input_shape == (None, LENGTH)
    ranges = [[each.parameters().scale for each in activation_quantizers(model)] for model in (quantized, expected)]
    np.testing.assert_allclose(*ranges)


@pytest.mark.filterwarnings("ignore:.* leaves sizes of its inputs open")
def test_a_recurrent_layer_alone():
    """With an open number of timesteps, there is nothing to quantize."""
    quantized = quantize_post_training(texts(layers.SimpleRNN(2)), INT8, data(), **SETTINGS)
    assert quantized.input_shape == (None, LENGTH)
    assert not any(isinstance(layer, layers.RNN) for layer in quantized.layers)
