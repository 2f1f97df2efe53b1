"""The warning of models whose integer form is of no use, and the silence about all others."""

import contextlib
import warnings

import keras
import numpy as np
import pytest
from keras import layers, ops

from keras_mot.quantization import (
    INT8,
    Percentile,
    QuantizationScheme,
    quantize_model,
    quantize_post_training,
)

from .models import images

X = np.random.default_rng(0).standard_normal((160, 6)).astype("float32")
SIZES = np.array([1, 1, 1, 1, 1, 1e4], "float32")
SETTINGS = {"correct_biases": False}
FEW_BITS = QuantizationScheme(weight_bits=2, per_channel=False)


def classifier(name="model", activation="softmax", scales=None):
    """A classifier whose decisions depend on all features, with weights that suit features of some sizes."""
    inputs = keras.Input((6,), name="features")
    hidden = layers.Dense(12, activation="relu", name="hidden")
    last = layers.Dense(3 if activation == "softmax" else 1, activation=activation, name="last")
    model = keras.Model(inputs, last(hidden(inputs)), name=name)
    rng = np.random.default_rng(1)
    for layer in (hidden, last):
        layer.kernel.assign(rng.standard_normal(layer.kernel.shape) * 1.5)
    if scales is not None:
        hidden.kernel.assign(ops.convert_to_numpy(hidden.kernel) / scales[:, None])
    return model


def widened(layer, following, factor):
    """A channel of one layer that is much larger than the others, and made small again by the next."""
    layer.kernel.assign(ops.convert_to_numpy(layer.kernel) * np.where(np.arange(layer.units) == 0, factor, 1.0))
    kernel = ops.convert_to_numpy(following.kernel).copy()
    kernel[0] /= factor
    following.kernel.assign(kernel)


@contextlib.contextmanager
def silence():
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="The integer form")
        yield


@pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
def test_silence_when_all_is_well(activation):
    with silence():
        quantize_post_training(classifier(activation=activation), calibration_data=X)


def test_silence_of_images_and_of_other_estimators():
    inputs = keras.Input((8, 8, 3))
    x = layers.Conv2D(4, 3, activation="relu")(inputs)
    model = keras.Model(inputs, layers.Dense(3)(layers.GlobalAveragePooling2D()(x)))
    with silence():
        quantize_post_training(model, INT8, images(), estimator=Percentile(99.99), **SETTINGS)


def test_features_of_different_size_are_to_blame():
    with pytest.warns(UserWarning, match="The integer form of 'tabular' is of little use") as caught:
        quantize_post_training(classifier("tabular", scales=SIZES), INT8, X * SIZES, **SETTINGS)
    (text,) = [str(each.message) for each in caught if "integer form" in str(each.message)]
    assert "Most of it comes from input 'features'" in text
    assert "differ in size by a factor of 9" in text
    assert "`Normalization`" in text


def test_a_wide_activation_is_named_after_its_layer():
    model = classifier()
    widened(model.get_layer("hidden"), model.get_layer("last"), 1e4)
    message = r"the activations of layer 'hidden', 256 numbers .*`overrides={'hidden': None, 'last': None}`"
    for quantize in (quantize_post_training, quantize_model):
        with pytest.warns(UserWarning, match=message):
            quantize(model, INT8, calibration_data=X, **SETTINGS)


def test_the_way_out_that_is_named_leads_out():
    inputs = keras.Input((6,))
    wide, narrow, last = layers.Dense(8, name="wide"), layers.Dense(8, name="narrow"), layers.Dense(3, name="last")
    model = keras.Model(inputs, last(layers.ReLU()(narrow(layers.Reshape((8,))(wide(inputs))))))
    widened(wide, narrow, 1e4)
    with pytest.warns(UserWarning, match=r"overrides={'wide': None, 'narrow': None}"):
        quantize_post_training(model, INT8, X, **SETTINGS)
    with silence():
        quantize_post_training(model, INT8, X, overrides={"wide": None, "narrow": None}, **SETTINGS)


def test_weights_are_to_blame_unless_they_will_be_trained():
    model = classifier()
    widened(model.get_layer("last"), model.get_layer("last"), 1.0)
    model.get_layer("last").kernel.assign(ops.convert_to_numpy(model.get_layer("last").kernel) * [9.0, 1.0, 1.0])
    with pytest.warns(UserWarning, match="comes from the weights of layer '(hidden|last)'|rounded weights adds up"):
        quantize_post_training(model, FEW_BITS, X, equalize=False, **SETTINGS)
    with silence():
        quantize_model(model, FEW_BITS, calibration_data=X, equalize=False, **SETTINGS)
        quantize_model(model, FEW_BITS)  # not calibrated


def test_of_several_outputs_the_bad_one_is_named():
    inputs = keras.Input((6,))
    good, bad = layers.Dense(2, name="good"), layers.Dense(6, name="bad")
    last = layers.Dense(2, name="worse")
    model = keras.Model(inputs, [good(inputs), last(bad(inputs))])
    widened(bad, last, 1e4)
    with pytest.warns(UserWarning, match=r"output 'worse': the signal-to-noise .*layer 'bad'"):
        quantize_post_training(model, INT8, X, **SETTINGS)


@keras.saving.register_keras_serializable("tests")
class Sampling(layers.Layer):
    """Adds random numbers, in inference, too."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.generator = keras.random.SeedGenerator(1)

    def call(self, x):
        return x + keras.random.normal(ops.shape(x), seed=self.generator)


def test_random_outputs_are_not_judged():
    inputs = keras.Input((6,))
    model = keras.Model(inputs, Sampling()(layers.Dense(3)(inputs)))
    with silence():
        quantize_post_training(model, INT8, X, **SETTINGS)
