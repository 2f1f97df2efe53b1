"""Radix selection against a full sort."""

import numpy as np
import pytest

from keras_mot.sparsity._selection import count_to_zero, keep_largest, keep_largest_with_floors

pytestmark = pytest.mark.backend_independent


def by_sorting(scores, keep):
    """The same by a stable sort: the largest first, ties in the order of position."""
    flat = np.concatenate([np.ravel(array) for array in scores])
    mask = np.zeros(flat.size, bool)
    mask[np.argsort(-flat, kind="stable")[:keep]] = True
    parts = np.split(mask, np.cumsum([array.size for array in scores])[:-1])
    return [part.reshape(array.shape) for part, array in zip(parts, scores, strict=True)]


@pytest.mark.parametrize("keep", [0, 1, 7, 500, 999, 1000])
@pytest.mark.parametrize("kind", ["normal", "ties", "constant", "zeros", "subnormal", "wide"])
def test_it_agrees_with_sorting(kind, keep, rng):
    scores = {
        "normal": np.abs(rng.standard_normal(1000)),
        "ties": rng.integers(0, 4, 1000),
        "constant": np.full(1000, 0.25),
        "zeros": np.zeros(1000),
        "subnormal": rng.random(1000) * 1e-41,
        "wide": 10.0 ** rng.uniform(-30, 30, 1000),
    }[kind].astype("float32")
    parts = [scores[:300].reshape(30, 10), scores[300:]]
    for mask, expected in zip(keep_largest(parts, keep), by_sorting(parts, keep), strict=True):
        np.testing.assert_array_equal(mask, expected)


def test_ties_across_chunks_go_to_the_earlier_position():
    scores = np.zeros(3_000_000, "float32")
    scores[2_500_000] = 1
    mask = keep_largest([scores], 1_500_000)[0]
    assert np.count_nonzero(mask) == 1_500_000
    assert mask[:1_499_999].all()
    assert mask[2_500_000]


def test_functions_are_as_good_as_arrays(rng):
    scores = [rng.random((20, 5), dtype="float32"), rng.random(50, dtype="float32")]
    lazy = keep_largest([lambda array=array: array for array in scores], 33)
    for mask, expected in zip(lazy, keep_largest(scores, 33), strict=True):
        np.testing.assert_array_equal(mask, expected)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_scores_must_be_finite(bad):
    with pytest.raises(ValueError, match="NaN or infinite"):
        keep_largest([np.array([1, bad, 2], "float32")], 1)


def test_floors_are_kept_at_the_expense_of_the_others():
    weak, strong, middle = np.arange(1, 11) / 100, np.arange(11, 31.0), np.arange(1, 11.0)
    masks = keep_largest_with_floors([a.astype("float32") for a in (weak, strong, middle)], 20, [2, 1, 3])
    assert [np.count_nonzero(mask) for mask in masks] == [2, 15, 3]
    assert np.flatnonzero(masks[0]).tolist() == [8, 9]


@pytest.mark.parametrize(
    ("total", "sparsity", "zeros"),
    [(10, 0.9, 9), (10, 0.25, 3), (10, 0.0, 0), (4, 0.9, 3), (1, 0.5, 0), (1000, 0.8995, 900)],
)
def test_the_number_of_zeros_is_the_targets_rounding(total, sparsity, zeros):
    assert count_to_zero(total, sparsity) == zeros
