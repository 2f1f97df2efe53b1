import dataclasses

import pytest

from keras_mot.recipes import Budget
from keras_mot.recipes.searching.families import Proposal
from keras_mot.recipes.searching.layer_options import Choice, LayerChoices
from keras_mot.recipes.searching.next_trial import NextTrial
from keras_mot.recipes.searching.result import best_of
from tests.recipes.searching.test_planning import trial

pytestmark = pytest.mark.backend_independent
LAYERS = (LayerChoices("first", (Choice(0.0, None, 1000.0), Choice(0.9, None, 200.0, 0.1))),)
NEXT = NextTrial(Budget(zipped=400), ("dense", "bits", "pruned"), LAYERS, 1e-3, (0, 2, 8), 30)
PRUNED = dataclasses.replace(NEXT, families=("pruned",))


def test_families_that_can_be_small_enough_come_first():
    assert NEXT.choose([], [], 0.0) == Proposal("dense", 1000.0, 1e-3)  # what surrounds the kernels shows there
    dense = trial(0, 1100, 0.0, "dense", 1000)
    assert NEXT.choose([dense], [], 0.0) == Proposal("pruned", 298.0, 1e-3)  # bits cannot be
    impossible = dataclasses.replace(NEXT, budget=Budget(zipped=10))
    assert impossible.choose([dense], [], 0.0).family == "bits"  # all are tried


def test_a_size_is_corrected():
    done = [trial(0, 1100, 0.0, "dense", 1000), trial(1, 450, 0.1, "pruned", 300)]
    again = NEXT.choose(done, [], 0.0)
    assert (again.family, again.kernels, again.epochs, again.after) == ("pruned", 398.0 - 150.0, 0, None)
    assert NEXT.choose(done, [again], 0.0).family is None  # the sampler's, meanwhile


def test_what_would_be_the_best_but_for_a_little_is_made_smaller():
    """Another one keeps to the budget, and loses more."""
    both = dataclasses.replace(NEXT, families=("dense", "pruned", "clustered"), epochs=(0,))
    done = [
        trial(0, 1100, 0.0, "dense", 1000),
        trial(1, 404, 0.01, "pruned", 300),
        trial(2, 390, 0.3, "clustered", 300),
    ]
    again = both.choose(done, [], 0.0)
    assert (again.family, again.epochs, again.after) == ("pruned", 0, None)
    assert again.kernels == pytest.approx(398.0 - 104.0)  # 2 % less: near to what was tried, which was too large
    for more, running in (
        ([], [again]),
        ([trial(3, 397, 0.02, "pruned", 294)], []),  # it was tried
        ([trial(3, 390, 0.005, "clustered", 300)], []),  # it would not be the best
    ):
        proposal = both.choose([*done, *more], running, 0.0)
        assert proposal is None or proposal.family is None


def test_the_rest_is_left_to_the_sampler():
    done = [trial(0, 1100, 0.0, "dense", 1000), trial(1, 390, 0.1, "pruned", 300)]
    proposal = NEXT.choose(done, [], 0.0)
    assert (proposal.family, proposal.kernels, proposal.epochs) == (None, 308.0, 0)
    unlimited = dataclasses.replace(NEXT, budget=Budget(drop=0.5), families=("pruned",))
    assert unlimited.choose(done[1:], [], 0.0).kernels is None


def test_longer_forms():
    done = [trial(number, 390, 0.1 + number / 100, "pruned", 300, balance=0.5, gradual=True) for number in range(3)]
    proposal = PRUNED.choose(done, [], 0.0)
    assert (proposal.after, proposal.epochs, proposal.balance, proposal.gradual) == (0, 2, 0.5, True)
    assert proposal.kernels == 308.0


def test_late_the_best_is_trained_as_long_as_there_is_time():
    timed = dataclasses.replace(PRUNED, time=100.0)
    done = [dataclasses.replace(trial(0, 390, 0.1, "pruned", 300), seconds=10.0)]
    assert timed.choose(done, [], 40.0).family is None
    late = timed.choose(done, [], 60.0)
    assert (late.after, late.epochs) == (0, 1)  # nobody knows how long an epoch takes
    done += [dataclasses.replace(trial(1, 390, 0.1, "pruned", 300, epochs=2, after=0), seconds=20.0)]  # 5 s each
    long = timed.choose(done, [], 55.0)
    assert (long.after, long.epochs) == (1, 7)  # 45 s are left
    assert timed.choose(done, [], 85.0).epochs == 0  # 15 s: no more than the short training; another untrained one
    assert timed.choose(done, [], 95.0) is None
    assert timed.choose([], [], 1000.0) is not None  # one result, at least


def test_the_last_trial_is_the_best_one_in_full():
    few = dataclasses.replace(NEXT, count=3, epochs=(0, 8))
    done = [trial(0, 1100, 0.0, "dense", 1000), trial(1, 390, 0.1, "pruned", 300)]
    assert few.choose(done, [], 0.0).after == 1
    assert few.choose(done, [], 0.0).epochs == 8


def test_what_would_be_the_dense_file_again_is_not_tried():
    roomy = dataclasses.replace(NEXT, budget=Budget(zipped=2000))
    dense = trial(0, 1100, 0.0, "dense", 1000)
    longer = roomy.choose([dense], [], 0.0)
    assert (longer.family, longer.after, longer.epochs) == ("dense", 0, 8)
    trained = trial(1, 1100, 0.0, "dense", 1000, epochs=8, after=0)
    assert roomy.choose([dense, trained], [], 0.0) is None
    assert dataclasses.replace(roomy, epochs=(0,)).choose([dense], [], 0.0) is None
    failed = dataclasses.replace(dense, zipped=None, failure="lost")
    assert roomy.choose([failed], [], 0.0).family == "bits"
    assert dataclasses.replace(roomy, budget=Budget(drop=0.5)).choose([dense], [], 0.0).family == "pruned"


def test_a_dense_file_beyond_the_budget_ends_no_search():
    """It is the nearest to the budget, for the others have lost too much."""
    budget = Budget(zipped=1000, drop=0.01)
    both = dataclasses.replace(NEXT, budget=budget, families=("dense", "pruned"), epochs=(0,))
    done = [trial(0, 1100, 0.0, "dense", 1000), trial(1, 900, 0.5, "pruned", 800)]
    assert best_of(done, budget) == done[0]
    proposal = both.choose(done, [], 0.0)
    assert (proposal.family, proposal.kernels) == (None, pytest.approx(895.0))


BITS = (
    LayerChoices("first", (Choice(0.0, None, 1000.0), Choice(0.0, None, 500.0, 0.0, 0.1, bits=4))),
    LayerChoices("last", (Choice(0.0, None, 10.0),)),
)


def test_few_bits_of_the_best_are_found_in_the_other_way_once():
    few = dataclasses.replace(NEXT, budget=Budget(zipped=800), families=("dense", "bits"), layers=BITS)
    done = [trial(0, 1100, 0.0, "dense", 1000), trial(1, 790, 0.1, "bits", 510)]
    other = few.choose(done, [], 0.0)
    assert (other.family, other.kernels, other.epochs, other.learned) == ("bits", 510, 0, True)
    assert other.after is None  # it may be trained longer, too
    assert few.choose(done, [other], 0.0).family is None
    found = [*done, trial(2, 790, 0.05, "bits", 510, learned=True)]
    assert few.choose(found, [], 0.0).after == 2
    trained = [*found, trial(3, 790, 0.01, "bits", 510, epochs=2, learned=True, after=2)]
    back = few.choose(trained, [], 0.0)
    assert (back.epochs, back.learned) == (2, False)
    assert dataclasses.replace(few, families=("dense", "pruned")).choose(trained, [], 0.0).family == "pruned"
    smallest = dataclasses.replace(few, budget=Budget(drop=0.5))
    assert not smallest.choose(done, [], 0.0).learned  # it would be no smaller


def test_what_has_eight_bits_is_rounded_once():
    roomy = dataclasses.replace(NEXT, budget=Budget(zipped=1050), families=("dense", "bits"), layers=BITS)
    done = [trial(0, 1100, 0.0, "dense", 1000), trial(1, 1040, 0.0, "bits", 1010)]
    assert not roomy.choose(done, [], 0.0).learned
