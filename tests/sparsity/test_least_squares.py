"""Least squares with zeros, against NumPy's solver of the stacked problem, column by column."""

import sys

import numpy as np
import pytest

from keras_mot.sparsity._least_squares import masked_least_squares

pytestmark = pytest.mark.backend_independent


def problem(masks):
    rng = np.random.default_rng(0)
    inputs = rng.normal(size=(200, 24)) @ rng.normal(size=(24, 24))
    original, others = rng.normal(size=(24, 10)), inputs + 0.1 * rng.normal(size=inputs.shape)
    mask = {
        "elements": rng.random((24, 10)) < 0.5,
        "rows": np.broadcast_to(rng.random((24, 1)) < 0.5, (24, 10)),
        "nothing in a column": np.arange(10) != 3 * np.ones((24, 1)),
    }[masks]
    return inputs, others, original, np.array(mask, bool)


def expected(inputs, others, original, mask, share):
    """Rows for the ridge are appended to the inputs and outputs."""
    ridge = np.sqrt(share * np.mean(np.sum(inputs**2, axis=0)))
    result = np.zeros_like(original)
    for column, kept in enumerate(mask.T):
        stacked = np.vstack([inputs[:, kept], ridge * np.eye(kept.sum())])
        outputs = np.concatenate([others @ original[:, column], ridge * original[kept, column]])
        result[kept, column] = np.linalg.lstsq(stacked, outputs, rcond=None)[0]
    return result


@pytest.mark.parametrize("masks", ["elements", "rows", "nothing in a column"])
@pytest.mark.parametrize(("exact", "tolerance"), [(True, 1e-9), (False, 2e-2), (None, 1e-9)])
def test_is_what_the_stacked_problem_has(masks, exact, tolerance):
    inputs, others, original, mask = problem(masks)
    second, products = inputs.T @ inputs, inputs.T @ others @ original
    result = masked_least_squares(second, products, mask, original, 0.05, exact)
    np.testing.assert_allclose(result, expected(inputs, others, original, mask, 0.05), atol=tolerance)
    assert not result[~mask].any()


def test_without_scipy_it_is_the_same(monkeypatch):
    """TensorFlow and PyTorch do not bring it."""
    inputs, others, original, mask = problem("elements")
    monkeypatch.setitem(sys.modules, "scipy.linalg", None)
    second, products = inputs.T @ inputs, inputs.T @ others @ original
    result = masked_least_squares(second, products, mask, original, 0.05, exact=True)
    np.testing.assert_allclose(result, expected(inputs, others, original, mask, 0.05), atol=1e-9)


def test_without_a_mask_and_changes_the_original_comes_back():
    inputs, _, original, _ = problem("elements")
    second = inputs.T @ inputs
    result = masked_least_squares(second, second @ original, np.ones_like(original, bool), original, 0.01)
    np.testing.assert_allclose(result, original, atol=1e-9)


def test_inputs_that_are_always_zero_keep_their_weights():
    inputs, _, original, mask = problem("rows")
    inputs[:, :4], mask[:4] = 0, True
    second = inputs.T @ inputs
    result = masked_least_squares(second, second @ original, mask, original, 0.01)
    np.testing.assert_allclose(result[:4], original[:4], atol=1e-9)


def test_fewer_rows_than_inputs_are_damped():
    inputs, _, original, mask = problem("elements")
    second = inputs[:5].T @ inputs[:5]
    result = masked_least_squares(second, second @ original, mask, original, 0.0)
    assert np.isfinite(result).all()
    assert np.abs(result).max() < 100 * np.abs(original).max()


def test_what_is_not_finite_is_refused():
    with pytest.raises(ValueError, match="no inverse"):
        masked_least_squares(np.full((3, 3), np.nan), np.ones((3, 2)), np.ones((3, 2), bool), np.ones((3, 2)))
