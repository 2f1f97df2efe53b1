"""Recurrent layers with cells of one's own."""

import keras
import numpy as np
import pytest
from keras import layers, ops

from keras_mot.graph.kinds import is_kind
from keras_mot.graph.opening import open_model
from keras_mot.graph.rewrite import operations_of
from keras_mot.quantization import INT8, quantize_post_training


@keras.saving.register_keras_serializable("test_unrolling")
class Gated(layers.Layer):
    """A cell with two states, of which the second counts what the first was."""

    def __init__(self, units, **kwargs):
        super().__init__(**kwargs)
        self.units, self.state_size, self.output_size = units, [units, 2], units

    def build(self, input_shape):
        """Creates the kernels."""
        self.kernel = self.add_weight(shape=(input_shape[-1], self.units), name="kernel")
        self.recurrent = self.add_weight(shape=(self.units, self.units), name="recurrent")

    def call(self, inputs, states):
        """The output, and the next states."""
        state, total = states
        state = ops.tanh(ops.matmul(inputs, self.kernel) + ops.matmul(state, self.recurrent))
        return state * 0.5, [state, total + state[:, :2]]

    def get_config(self):
        """The constructor's arguments."""
        return {**super().get_config(), "units": self.units}


FORMS = {
    "last": {},
    "all": {"return_sequences": True},
    "states": {"return_state": True, "go_backwards": True},
}


def recurrent(**settings):
    keras.utils.set_random_seed(0)
    inputs = keras.Input((4, 3))
    return keras.Model(inputs, layers.RNN(Gated(5), **settings)(inputs))


def data(count=12):
    return np.random.default_rng(0).standard_normal((count, 4, 3)).astype("float32")


def outputs(model, x):
    return [ops.convert_to_numpy(each) for each in keras.tree.flatten(model(x, training=False))]


@pytest.mark.parametrize("name", FORMS)
def test_the_cell_is_called_for_each_timestep(name):
    model, x = recurrent(**FORMS[name]), data()
    opened = open_model(model)
    assert opened.closed == []
    assert not any(isinstance(each, layers.RNN) for each in operations_of(opened.model))
    assert sum(is_kind(each, "dense") for each in operations_of(opened.model)) == 2
    for received, expected in zip(outputs(opened.model, x), outputs(model, x), strict=True):
        np.testing.assert_allclose(received, expected, atol=1e-6)


def test_it_computes_in_integers():
    model, x = recurrent(), data()
    quantized = quantize_post_training(model, INT8, x, equalize=False, correct_biases=False, progress=False)
    assert np.abs(outputs(quantized, x)[0] - outputs(model, x)[0]).max() < 0.05
