"""Why something is in floats, in the words of an export's report: true, and with what to do."""

import keras
import pytest
from keras import layers, ops

from keras_mot.export import export_litert
from keras_mot.quantization import quantize_post_training

PLAIN = {"equalize": False, "correct_biases": False}


@keras.saving.register_keras_serializable("test_reasons")
class Cumulated(layers.Layer):
    """A loop of `keras.ops`."""

    def call(self, inputs):
        def step(carry, x):
            return carry + x, carry + x

        steps = ops.transpose(inputs, (1, 0, 2))
        return ops.transpose(ops.scan(step, ops.zeros_like(steps[0]), steps)[1], (1, 0, 2))

    def compute_output_shape(self, shape):
        return shape


def reasons(model, data, tmp_path, **settings):
    quantized = quantize_post_training(model, calibration_data=data, **PLAIN, **settings)
    exported = export_litert(quantized, tmp_path / "model.tflite", verify=False)
    return {(operator, layer): reason for operator, layer, reason in exported.float_operators}


def test_angles_are_not_said_to_be_asked_for(rng, tmp_path):
    inputs = keras.Input((4,))
    model = keras.Model(inputs, layers.Dense(2)(ops.sin(layers.Dense(4)(inputs) * 100.0)))
    found = reasons(model, rng.standard_normal((8, 4)).astype("float32"), tmp_path)
    assert found
    assert all("angle" in reason for reason in found.values())


def test_what_reads_the_input_in_floats(rng, tmp_path):
    inputs = keras.Input((4,))
    model = keras.Model(inputs, layers.Dense(2)(ops.sin(inputs)))
    (reason,) = reasons(model, rng.standard_normal((8, 4)).astype("float32"), tmp_path).values()
    assert reason == "Sin has no integer form for the target 'litert'"


@pytest.mark.filterwarnings("ignore:Some layers")
def test_a_loop_of_ones_own_is_no_recurrent_layer(rng, tmp_path):
    inputs = keras.Input((5, 4))
    model = keras.Model(inputs, layers.Dense(2)(Cumulated(name="sums")(layers.Dense(4)(inputs))))
    found = reasons(model, rng.standard_normal((8, 5, 4)).astype("float32"), tmp_path)
    assert found["WHILE", "sums"].startswith("Cumulated could not be taken apart: ")
    assert "write the loop in Python" in found["WHILE", "sums"]


def test_channels_first(rng, tmp_path):
    inputs = keras.Input((3, 8, 8))
    x = layers.Conv2D(4, 3, data_format="channels_first", name="conv")(inputs)
    x = layers.MaxPooling2D(2, data_format="channels_first", name="pool")(x)
    model = keras.Model(inputs, layers.Dense(2)(layers.Flatten()(x)))
    assert reasons(model, rng.standard_normal((8, 3, 8, 8)).astype("float32"), tmp_path) == {}


def test_what_is_asked_for_is(rng, tmp_path):
    inputs = keras.Input((4,))
    model = keras.Model(inputs, layers.Dense(2)(layers.Dense(4, name="first")(inputs)))
    found = reasons(model, rng.standard_normal((8, 4)).astype("float32"), tmp_path, overrides={"first": None})
    assert set(found.values()) == {"it is left in floats, as asked"}
