"""Calibration data that says nothing of real inputs."""

import warnings

import keras
import numpy as np
import pytest

from keras_mot.quantization import quantize_model, quantize_post_training
from keras_mot.quantization.estimators.samples import Samples

X = np.random.default_rng(0).standard_normal((40, 3)).astype("float32")


@pytest.fixture(scope="module")
def model():
    inputs = keras.Input((3,), name="x")
    return keras.Model(inputs, keras.layers.Dense(2)(inputs))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (np.zeros((40, 3), "float32"), "of input 'x' is the same in all samples, 0 everywhere"),
        (np.full((1, 3), 0.5, "float32"), "is the same in all samples, 0.5 everywhere"),
        (np.repeat(X[:1], 40, 0), "is the same in all samples: the ranges"),
        ([X[:1], X[:1]], "is the same in all samples"),
        (iter([np.zeros((4, 3), "float32")] * 3), "is the same in all samples"),
    ],
)
def test_samples_that_are_all_the_same_warn(data, message, model):
    with pytest.warns(UserWarning, match=message):
        Samples(model, data)


@pytest.mark.parametrize("data", [X, X[:1], [X[:1], X[1:2]], np.where(X > 9, X, 0) + X[:, :1]])
def test_other_samples_do_not(data, model):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Samples(model, data)


def test_each_input_is_looked_at_but_no_integers():
    first, second, numbers = keras.Input((3,), name="a"), keras.Input((3,), name="b"), keras.Input((1,), dtype="int32")
    outputs = keras.layers.Dense(1)(first + second + keras.ops.cast(numbers, "float32"))
    several = keras.Model([first, second, numbers], outputs)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        Samples(several, [X, np.ones_like(X), np.ones((40, 1), "int32")])
    assert [str(each.message).split(" is ")[0] for each in caught if each.category is UserWarning] == [
        "The calibration data of input 'b'"
    ]


def test_quantizing_warns_and_data_for_a_scheme_are_told(model):
    with pytest.warns(UserWarning, match="is the same in all samples"):
        quantize_post_training(model, calibration_data=np.zeros((4, 3), "float32"))
    for function in (quantize_post_training, quantize_model):
        with pytest.raises(TypeError, match=r"received an array of shape \(40, 3\) and .*`calibration_data=...`"):
            function(model, X)
