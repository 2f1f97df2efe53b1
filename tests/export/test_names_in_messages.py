"""What an export says of operators in floats is said in the names of the user's layers."""

import keras
import numpy as np
import pytest
from keras import layers

from keras_mot.export import export_litert
from keras_mot.quantization import quantize_post_training, strip_quantization

pytestmark = pytest.mark.backend_independent  # the conversion is the same from every backend

IMAGES = np.random.default_rng(0).normal(size=(8, 8, 8, 3)).astype("float32")
ASKED = "it is left in floats, as asked"


@pytest.fixture(scope="module")
def model():
    keras.utils.set_random_seed(0)
    inputs = keras.Input((8, 8, 3))
    left = layers.Conv2D(4, 3, activation="relu", name="first")(inputs)
    joined = layers.Concatenate(name="cat")([left, layers.Conv2D(4, 3, name="second")(inputs)])
    x = layers.BatchNormalization(name="norm")(joined)
    inner = keras.Sequential([keras.Input((6, 6, 8)), layers.Conv2D(4, 1, name="third")], name="inner")
    x = keras.ops.sin(inner(x))
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    return keras.Model(inputs, layers.Dense(3, activation="softmax", name="cls")(x))


def export(model, tmp_path, *left):
    overrides = {rf"{name}$": None for name in left}
    quantized = quantize_post_training(
        model, calibration_data=IMAGES, overrides=overrides, equalize=False, correct_biases=False
    )
    return quantized, export_litert(quantized, tmp_path / "model.tflite")


def test_layers_left_in_floats(model, tmp_path):
    quantized, result = export(model, tmp_path, "first", "norm", "cls", "third")
    found = {(name, layer): reason for name, layer, reason in result.float_operators}
    # The first layer of all, one in a nested model, the second operator of one, and what makes an output.
    expected = [("CONV_2D", "first"), ("CONV_2D", "inner/third"), ("FULLY_CONNECTED", "cls"), ("SOFTMAX", "cls")]
    assert {key: found.get(key) for key in expected} == dict.fromkeys(expected, ASKED)
    assert {reason for (_, layer), reason in found.items() if layer == "norm"} == {ASKED}
    assert {layer for _, layer in found} <= {"first", "norm", "inner/third", "cls", "sin"}
    assert strip_quantization(quantized).output_names == ["cls"]


def test_layers_without_an_integer_form(tmp_path):
    keras.utils.set_random_seed(0)
    inputs = keras.Input((6,))
    x = layers.Dense(5, name="hidden")(inputs)
    x = keras.ops.cumsum(x, axis=-1)
    model = keras.Model(inputs, x)
    data = np.random.default_rng(0).normal(size=(8, 6)).astype("float32")
    quantized = quantize_post_training(model, calibration_data=data, equalize=False, correct_biases=False)
    result = export_litert(quantized, tmp_path / "model.tflite")
    floats = {operator: (layer, reason) for operator, layer, reason in result.float_operators}
    assert floats["CUMSUM"][0] == "cumsum"
    assert floats["CUMSUM"][1] == "CUMSUM has no kernel for integers of 8 bits"
    with pytest.raises(ValueError, match=r"CUMSUM \(cumsum\): CUMSUM has no kernel"):
        export_litert(quantized, tmp_path / "model.tflite", strict=True)


class Wave(layers.Layer):
    """A layer of the user's own, whose operations Keras names."""

    def __init__(self, **settings):
        super().__init__(**settings)
        self.inner = layers.Dense(4, name="inner")

    def call(self, inputs):
        return keras.ops.sin(self.inner(inputs))


def test_operations_in_a_layer_of_the_users_own(tmp_path):
    inputs = keras.Input((8, 8, 3))
    model = keras.Model(inputs, layers.Dense(2)(Wave(name="ocean")(inputs)))
    _, result = export(model, tmp_path)
    assert {layer for name, layer, _ in result.float_operators if name == "SIN"} == {"ocean/sin"}
