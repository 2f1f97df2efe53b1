import dataclasses

import pytest

from keras_mot.recipes import Budget, Trial
from keras_mot.recipes.searching.planning import is_new, kernels_within, next_size
from keras_mot.recipes.searching.result import best_of, front_of

pytestmark = pytest.mark.backend_independent


def trial(number, zipped, drop, family="pruned", predicted=None, budget=None, **others):
    predicted = zipped - 100 if predicted is None else predicted
    made = Trial(number, family, predicted, predicted, 1e-3, 2 * zipped, zipped, 1.0, 0.9 - drop, drop, **others)
    excess = 0.0 if budget is None else max(budget.excesses(made.costs()).values())
    return dataclasses.replace(made, excess=excess)


def test_the_rest_of_a_file():
    assert kernels_within(400, [], "pruned") == 400
    assert kernels_within(400, [trial(0, 500, 0.0, "dense", 350)], "pruned") == 250
    known = [trial(0, 500, 0.0, "dense", 350), trial(1, 300, 0.0, "pruned", 250)]
    assert kernels_within(400, known, "pruned") == 350
    assert kernels_within(400, known, "clustered") == 350  # of the latest


def test_kernels_that_were_predicted_too_large():
    """By a share: three per cent of a large file are more than all of a small one."""
    known = [trial(0, 3_000_000, 0.0, "dense", 3_100_000)]
    assert kernels_within(60_000, known, "pruned") == 60_000  # nothing is known of others
    assert kernels_within(60_000, known, "dense") == pytest.approx(62_000)


def test_sizes_for_a_limit_of_size():
    known = [trial(0, 500, 0.0, "dense", 350)]
    assert next_size(Budget(zipped=300), known, "pruned", 350) == 0.995 * 300 - 150
    assert next_size(Budget(zipped=10_000), known, "pruned", 350) == 350
    assert next_size(Budget(bytes=600), known, "pruned", 350) == 0.995 * 300 - 150  # files shrink by half


def test_sizes_for_a_limit_of_the_drop():
    budget = Budget(drop=0.01)
    known = []
    assert next_size(budget, known, "pruned", 800) == 400
    known = [trial(0, 500, 0.0, predicted=400, budget=budget)]
    assert next_size(budget, known, "pruned", 800) == 200
    known += [trial(1, 200, 0.05, predicted=100, budget=budget)]
    assert next_size(budget, known, "pruned", 800) == 200
    known += [trial(2, 300, 0.02, predicted=200, budget=budget)]
    assert next_size(budget, known, "pruned", 800) == pytest.approx((200 * 400) ** 0.5)


def test_too_little_training_says_nothing_of_more():
    budget = Budget(drop=0.01)
    untrained = trial(0, 500, 0.05, predicted=400, budget=budget)
    assert next_size(budget, [untrained], "pruned", 800) == pytest.approx((400 * 800) ** 0.5)  # larger
    assert next_size(budget, [untrained], "pruned", 800, epochs=4) == 400  # as large as at first
    good = trial(1, 500, 0.005, predicted=400, budget=budget)
    assert next_size(budget, [good], "pruned", 800, epochs=4) == 200  # what is good enough untrained is so trained


def test_sizes_for_a_limit_of_the_latency():
    budget = Budget(latency_ms=0.5)
    slow = trial(0, 500, 0.0, predicted=400, budget=budget)
    assert next_size(budget, [slow], "pruned", 800) == 200
    fast = dataclasses.replace(trial(1, 300, 0.0, predicted=200), latency_ms=0.4)
    fast = dataclasses.replace(fast, excess=max(budget.excesses(fast.costs()).values()))
    assert next_size(budget, [slow, fast], "pruned", 800) == pytest.approx((200 * 400) ** 0.5)


def test_new_sizes():
    known = [trial(0, 500, 0.0, predicted=400)]
    assert not is_new(405, known, "pruned")
    assert is_new(300, known, "pruned")
    assert is_new(400, known, "clustered")


def test_front_and_best():
    lost = Trial(9, "pruned", 1, 1, 1e-3, failure="killed")
    known = [trial(0, 500, 0.0), trial(1, 300, 0.01), trial(2, 310, 0.02), trial(3, 100, 0.2), lost]
    assert [each.number for each in front_of(known)] == [3, 1, 0]
    assert best_of(known, Budget(zipped=400)).number == 1
    assert best_of(known, Budget(drop=0.015)).number == 1
    assert best_of(known, Budget(zipped=400, drop=0.3)).number == 1
    assert best_of(known, Budget(drop=0.3)).number == 3
    assert best_of(known, Budget(zipped=90)).number == 3  # the nearest
    assert best_of([lost], Budget(zipped=90)) is None
