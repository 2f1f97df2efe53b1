"""Zeros chosen one after the other within groups, against trying all."""

import numpy as np
import pytest

from keras_mot.second_order import damped
from keras_mot.sparsity import _elimination
from keras_mot.sparsity._elimination import chosen_places

SHARE = 1e-3


@pytest.fixture
def problem():
    generator = np.random.default_rng(0)
    inputs = generator.normal(size=(200, 8)) @ generator.normal(size=(8, 8))
    weights = generator.normal(size=(8, 5))
    groups = np.arange(8)[:, None] // 4 * 5 + np.arange(5)
    mask = np.tile([True, True, False, False], 2)[:, None].repeat(5, axis=1)
    return inputs.T @ inputs, weights, mask, groups


def lost(second, weights, kept):
    """What the outputs of one column lose at least if only some of its weights are other than zero."""
    second, rest = damped(second, SHARE), np.flatnonzero(~kept)
    inverse = np.linalg.inv(second)[np.ix_(rest, rest)]
    return weights[rest] @ np.linalg.solve(inverse, weights[rest])


def by_trying(second, weights, mask, groups):
    """One zero after the other, each where the least is lost, by solving for all."""
    left = {number: int((~mask[groups == number]).sum()) for number in np.unique(groups)}
    kept = np.ones(len(weights), "bool")
    while any(left.values()):
        costs = {}
        for place in np.flatnonzero(kept):
            if left[groups[place]]:
                costs[place] = lost(second, weights, kept & (np.arange(len(kept)) != place))
        place = min(costs, key=costs.get)
        kept[place] = False
        left[groups[place]] -= 1
    return kept


def test_each_zero_is_where_the_least_is_lost(problem, monkeypatch):
    second, weights, mask, groups = problem
    expected = np.stack([by_trying(second, *each) for each in zip(weights.T, mask.T, groups.T, strict=True)], axis=1)
    np.testing.assert_array_equal(chosen_places(second, weights, mask, groups, SHARE), expected)
    monkeypatch.setattr(_elimination, "_TOGETHER", 2 * 64)  # two columns at a time
    np.testing.assert_array_equal(chosen_places(second, weights, mask, groups, SHARE), expected)


def test_groups_keep_their_numbers_of_zeros(problem):
    second, weights, mask, groups = problem
    mask = mask.copy()
    mask[0, :2] = mask[4:, 2] = False  # three zeros in some groups, four in another
    found = chosen_places(second, weights, mask, groups, SHARE)
    np.testing.assert_array_equal(*(np.bincount(groups.ravel(), ~each.ravel()) for each in (found, mask)))
    assert not found[4:, 2].any()


def test_what_takes_too_long_stays(problem, monkeypatch):
    second, weights, mask, groups = problem
    assert chosen_places(second, weights, np.ones_like(mask), groups).all()
    monkeypatch.setattr(_elimination, "_MOST", 10)
    assert chosen_places(second, weights, mask, groups) is mask
