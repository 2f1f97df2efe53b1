"""Calibration data without an end, from functions, and from lists of numbers."""

import itertools
import warnings

import keras
import numpy as np
import pytest

from keras_mot.quantization import Calibration, quantize_post_training
from keras_mot.quantization.estimators import samples as module
from keras_mot.quantization.estimators.samples import Samples

X = np.random.default_rng(0).standard_normal((40, 3)).astype("float32")
Y = 2 * X[:, :2]


@pytest.fixture(scope="module")
def model():
    inputs = keras.Input((3,), name="x")
    return keras.Model(inputs, keras.layers.Dense(2)(inputs))


@pytest.fixture(scope="module")
def two_inputs():
    first, second = keras.Input((3,), name="first"), keras.Input((2,), name="second")
    merged = keras.layers.Concatenate()([first, second])
    return keras.Model([first, second], keras.layers.Dense(2)(merged))


def taken(found):
    """What `Samples` gives, as one array for each input."""
    return [np.concatenate(leaves) for leaves in zip(*map(keras.tree.flatten, found), strict=True)]


class Endless(keras.utils.PyDataset):
    """Batches of 16 samples for ever, without a length."""

    shape = (16, 3)  # an attribute of one's own, which makes no array of it

    @property
    def num_batches(self):
        return None

    def __getitem__(self, index):
        return X[:16] + index, Y[:16]


@pytest.mark.parametrize("make", [lambda: itertools.repeat(X[:16]), lambda: ((X[:16], Y) for _ in itertools.count())])
def test_what_does_not_end_is_cut_with_a_warning(make, model, monkeypatch):
    monkeypatch.setattr(module, "_MOST", 40)
    with pytest.warns(UserWarning, match="go on after 40 samples, and may have no end.*`max_samples`"):
        (found,) = taken(Samples(model, make()))
    assert len(found) == 40


def test_datasets_that_do_not_end(model, monkeypatch):
    monkeypatch.setattr(module, "_MOST", 40)
    with pytest.warns(UserWarning, match="go on after 40 samples"):
        (found,) = taken(Samples(model, Endless()))
    np.testing.assert_allclose(found[16:32], X[:16] + 1)
    tf = pytest.importorskip("tensorflow")
    with pytest.warns(UserWarning, match="go on after 40 samples"):
        (found,) = taken(Samples(model, tf.data.Dataset.from_tensor_slices(X).batch(8).repeat()))
    np.testing.assert_array_equal(found, X)


@pytest.mark.parametrize(("data", "kept"), [(X, 30), (iter([X, X]), 30), ((X, Y), 30), ([X[:8]] * 3, 24)])
def test_a_limit_of_ones_own_is_kept_without_a_word(data, kept, model):
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        (found,) = taken(Samples(model, data, most=30))
    assert len(found) == kept


def test_what_ends_is_taken_whole(model, monkeypatch):
    monkeypatch.setattr(module, "_MOST", 40)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        for data in (iter([X[:30], X[30:]]), np.concatenate([X, X])):
            (found,) = taken(Samples(model, data))
            assert len(found) in (40, 80)


def test_functions_that_yield_samples_one_by_one(model, two_inputs):
    def of_lists():
        for sample in X:
            yield [sample[None]]

    found = list(Samples(model, of_lists))
    assert [len(batch) for batch in found] == [32, 8]  # not one by one, which would take long
    np.testing.assert_array_equal(np.concatenate(found), X)
    np.testing.assert_array_equal(taken(Samples(model, lambda: ({"x": sample[None]} for sample in X)))[0], X)

    def of_signatures():
        for first, second in zip(X, Y, strict=True):
            yield "serving_default", {"second": second[None], "first": first[None]}

    for function in (of_signatures, lambda: [[one[None], other[None]] for one, other in zip(X, Y, strict=True)]):
        first, second = taken(Samples(two_inputs, function))
        np.testing.assert_array_equal(first, X)
        np.testing.assert_array_equal(second, Y)


def test_quantizing_by_a_function_is_quantizing_by_its_data(model):
    options = {"correct_biases": False}
    expected = quantize_post_training(model, calibration_data=X, **options)
    received = quantize_post_training(model, calibration_data=lambda: ([row[None]] for row in X), **options)
    np.testing.assert_array_equal(received.predict(X, verbose=0), expected.predict(X, verbose=0))


@pytest.mark.parametrize(
    ("data", "error", "message"),
    [
        (X.tolist(), TypeError, r"made of Python's lists and numbers; .*`numpy.asarray\(data, 'float32'\)`"),
        ({"x": X.tolist()}, TypeError, "made of Python's lists and numbers"),
        (iter([X.tolist()]), ValueError, "Batch 0 of the calibration data .* is made of Python's lists and numbers"),
        ([list(X)], ValueError, r"received 40 of shapes \[\(3,\), \(3,\), \(3,\)\] and so on"),
        (lambda count: X, TypeError, "a function that needs arguments .*'count'"),
        (lambda: X, TypeError, "should yield inputs; it returned an array of shape"),
        (lambda: None, TypeError, "should yield inputs; it returned None"),
        (keras.layers.Dense, TypeError, "should be arrays of inputs"),
    ],
)
def test_what_is_no_data_is_told_in_few_words(data, error, message, model):
    with pytest.raises(error, match=message) as caught:
        quantize_post_training(model, calibration_data=data)
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize("most", [0, -3, True, 2.5])
def test_a_limit_is_a_number_of_samples(most):
    with pytest.raises(ValueError, match="`max_samples` should be a positive integer"):
        Calibration(X, max_samples=most)
