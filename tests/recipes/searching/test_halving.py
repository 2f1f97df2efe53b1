import dataclasses

import pytest

from keras_mot.recipes import Budget, FineTune
from keras_mot.recipes.searching.halving import best_so_far, expected_seconds, lengths, longer
from tests.recipes.searching.test_planning import trial

pytestmark = pytest.mark.backend_independent
BUDGET = Budget(zipped=500)
EPOCHS = (0, 2, 8)


def test_how_long_trials_train():
    assert lengths(FineTune(8), 40, 10, False) == (0, 2, 8)
    assert lengths(FineTune(2), 40, 10, False) == (0, 1, 2)
    assert lengths(FineTune(1), 40, 10, False) == (0, 1)
    assert lengths(FineTune(8), 19, 10, False) == (8,)  # too few to choose from
    assert lengths(FineTune(8), 19, 10, True) == (0, 2, 8)
    assert lengths(None, 40, 10, True) == (0,)


def test_a_third_is_trained_and_half_of_it_in_full():
    done = [trial(number, 480, drop) for number, drop in enumerate((0.3, 0.1, 0.2))]
    ((best, epochs),) = longer(done, [], EPOCHS, BUDGET)
    assert (best.number, epochs) == (1, 2)
    assert not list(longer(done[:2], [], EPOCHS, BUDGET))
    assert not list(longer(done, [1], EPOCHS, BUDGET))  # it runs
    done += [trial(3, 480, 0.05, epochs=2, after=1)]
    assert not list(longer(done, [], EPOCHS, BUDGET))
    done += [trial(number, 480, 0.4) for number in (4, 5, 6)]
    ((best, epochs),) = longer(done, [], EPOCHS, BUDGET)
    assert (best.number, epochs) == (2, 2)  # the next best
    done += [trial(7, 480, 0.02, epochs=2, after=2)]
    ((best, epochs),) = longer(done, [], EPOCHS, BUDGET)
    assert (best.number, epochs) == (7, 8)


def test_what_is_far_too_large_waits():
    done = [trial(0, 480, 0.3, "clustered"), trial(1, 900, 0.0), trial(2, 510, 0.2)]
    ((best, _),) = longer(done, [], EPOCHS, BUDGET)
    assert best.number == 2  # a little too large is corrected


def test_what_is_too_large_is_judged_by_the_same_recipe_within_the_limit():
    done = [trial(0, 510, 0.05), trial(1, 480, 0.3), trial(2, 490, 0.1, "low-rank")]
    ((best, _),) = longer(done, [], EPOCHS, BUDGET)
    assert best.number == 2
    best, _ = best_so_far(done, [], EPOCHS, BUDGET, known=True)
    assert best.number == 2
    ((best, _),) = longer([*done[:1], *done[2:], trial(3, 900, 0.0)], [], EPOCHS, BUDGET)
    assert best.number == 0  # it was not tried smaller yet
    other = dataclasses.replace(done[1], balance=0.9)
    ((best, _),) = longer([done[0], other, done[2]], [], EPOCHS, BUDGET)
    assert best.number == 0


def test_without_a_limit_of_size_the_smallest_goes_on():
    budget = Budget(drop=0.1)
    done = [trial(0, 480, 0.05, budget=budget), trial(1, 400, 0.09, budget=budget), trial(2, 300, 0.2, budget=budget)]
    ((best, _),) = longer(done, [], EPOCHS, budget)
    assert best.number == 1


def test_the_best_so_far():
    done = [trial(0, 480, 0.3), trial(1, 480, 0.1)]
    best, epochs = best_so_far(done, [], EPOCHS, BUDGET, known=False)
    assert (best.number, epochs) == (1, 1)  # how long would all epochs take?
    best, epochs = best_so_far(done, [], EPOCHS, BUDGET, known=True)
    assert (best.number, epochs) == (1, 8)
    done += [trial(2, 480, 0.25, epochs=2, after=0)]
    assert best_so_far(done, [], EPOCHS, BUDGET, known=True)[0].number == 2  # the longest trained
    assert best_so_far([], [], EPOCHS, BUDGET, known=True) is None
    assert best_so_far(done, [], (8,), BUDGET, known=True) is None


def test_expected_seconds():
    assert expected_seconds([], "pruned", 0) is None
    done = [trial(0, 480, 0.3, "dense", seconds=10.0), trial(1, 480, 0.3, seconds=20.0)]
    assert expected_seconds(done, "dense", 0) == 10
    assert expected_seconds(done, "other", 0) == 15
    assert expected_seconds(done, "dense", 4) is None
    done += [dataclasses.replace(trial(2, 480, 0.3, epochs=2), seconds=60.0)]
    assert expected_seconds(done, "pruned", 4) == 20 + 4 * 20
    assert expected_seconds(done, "dense", 4) == 10 + 4 * 20  # an epoch of any family, without what is fixed
