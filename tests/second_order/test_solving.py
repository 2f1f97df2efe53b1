"""Damping, factors of inverses, and least squares, against plain NumPy."""

import sys

import numpy as np
import pytest

from keras_mot.second_order import Moments, are_few, damped, inverse_factor, least_squares, warn_of_few_samples

pytestmark = pytest.mark.backend_independent
RNG = np.random.default_rng(0)
INPUTS = RNG.normal(size=(50, 6)) @ RNG.normal(size=(6, 6))


def test_damping_adds_a_share_of_the_mean_and_revives_dead_inputs():
    second = np.diag([4.0, 0.0, 2.0])
    np.testing.assert_allclose(damped(second, 0.1), np.diag([4.3, 3.0, 2.3]))


def test_the_factor_is_that_of_the_inverse():
    second = INPUTS.T @ INPUTS
    solved = inverse_factor(second, 0.01)
    assert solved.damping == 0.01
    np.testing.assert_array_equal(solved.value, np.triu(solved.value))
    np.testing.assert_allclose(solved.value.T @ solved.value, np.linalg.inv(damped(second, 0.01)), rtol=1e-6)


def test_least_squares_are_those_of_numpy():
    weights = RNG.normal(size=(6, 3))
    solved = least_squares(INPUTS.T @ INPUTS, INPUTS.T @ (INPUTS @ weights), share=0.0)
    np.testing.assert_allclose(solved.value, weights, rtol=1e-6)


def test_without_scipy_it_is_the_same(monkeypatch):
    pytest.importorskip("scipy")
    second, products = INPUTS.T @ INPUTS, INPUTS.T @ RNG.normal(size=(50, 2))
    expected = inverse_factor(second).value, least_squares(second, products).value
    monkeypatch.setitem(sys.modules, "scipy.linalg", None)
    for received, wanted in zip(
        (inverse_factor(second).value, least_squares(second, products).value), expected, strict=True
    ):
        np.testing.assert_allclose(received, wanted, rtol=1e-9)


@pytest.mark.parametrize("scipy", [True, False])
def test_what_is_not_positive_definite_is_damped_more(scipy, monkeypatch):
    if not scipy:
        monkeypatch.setitem(sys.modules, "scipy.linalg", None)
    indefinite = np.array([[1.0, 1.0001], [1.0001, 1.0]])  # as rounding errors can make it
    solved = least_squares(indefinite, np.ones((2, 1)), 1e-6)
    assert solved.damping > 1e-5
    assert inverse_factor(indefinite, 1e-6).damping > 1e-5


def test_too_few_samples_are_damped_and_said():
    moments = Moments(1, 6)
    moments.add(INPUTS[None, :3].astype("float32"))
    assert are_few(moments)
    solved = inverse_factor(moments.second[0], 0.0)
    assert solved.damping > 0
    assert np.isfinite(solved.value).all()
    with pytest.warns(UserWarning, match="fewer samples than inputs of 'a/kernel'"):
        warn_of_few_samples(["a/kernel"])


def test_without_finite_numbers_there_is_no_solution():
    with pytest.raises(ValueError, match="no inverse"):
        least_squares(np.full((3, 3), np.nan), np.ones((3, 1)))
