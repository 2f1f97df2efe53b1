"""Successive halving: many trials without training, the better ones of them trained shortly, the best of these in full.

Jamieson and Talwalkar, 2016, "Non-stochastic Best Arm Identification and Hyperparameter Optimization"
(arXiv:1502.07943); Li et al., 2020, "A System for Massively Parallel Hyperparameter Tuning" (arXiv:1810.05934), for
trials that run beside each other.
"""

import itertools
import statistics
from collections.abc import Iterator, Sequence

from keras_mot.recipes.fine_tuning import FineTune
from keras_mot.recipes.searching.budget import Budget
from keras_mot.recipes.searching.result import Trial, measured

SETTINGS = ("family", "learning_rate", "balance", "cut", "gradual", "learned")
"""What a trial has in common with the same in another size, or trained longer."""
_SHORT = 4  # the short training is a fourth of the full one
_UNTRAINED, _TRAINED = 3, 2  # one of so many goes on to a longer training
_FAR = 0.25  # above a limit of size by this share: a longer training does not help


def lengths(fine_tune: FineTune | None, trials: int, families: int, limited: bool) -> tuple[int, ...]:
    """The epochs of trials, from the shortest on.

    Args:
        fine_tune: how the best trials train; `None` for no training.
        trials: how many are made in all.
        families: how many kinds of recipes there are.
        limited: whether the time is limited.

    Returns:
        Tuple of epochs: 0, some, all; all alone where there are fewer trials than two for a family, and time enough.
    """
    if fine_tune is None:
        return (0,)
    if trials < 2 * families and not limited:
        return (fine_tune.epochs,)
    return tuple(sorted({0, max(1, fine_tune.epochs // _SHORT), fine_tune.epochs}))


def longer(
    trials: Sequence[Trial], begun: Sequence[int | None], epochs: Sequence[int], budget: Budget
) -> Iterator[tuple[Trial, int]]:
    """The trials that have earned a longer training.

    Args:
        trials: those that have ended.
        begun: for each trial that runs, the number of the one that it is the longer form of, or `None`.
        epochs: of `lengths`.
        budget: the `Budget`.

    Yields:
        Pairs of a trial and the epochs of its longer form, those of the shortest trainings first.
    """
    for short, long in itertools.pairwise(epochs):
        level = _level(trials, short, long)
        one_of = _TRAINED if short else _UNTRAINED
        waiting = _waiting(trials, begun, level)
        promising = _promising(waiting, level, budget)
        if promising and len(level) - len(waiting) < len(level) // one_of:
            yield min(promising, key=lambda trial: promise(trial, budget)), long


def best_so_far(
    trials: Sequence[Trial], begun: Sequence[int | None], epochs: Sequence[int], budget: Budget, known: bool
) -> tuple[Trial, int] | None:
    """The trial to train in full now, if time or trials are about to end before one was; arguments as of `longer`.

    Args:
        known: whether it is known how long an epoch takes, or of no matter. Otherwise, there is one.
    """
    for place in reversed(range(len(epochs) - 1)):
        level = _level(trials, epochs[place], epochs[place + 1])
        promising = _promising(_waiting(trials, begun, level), level, budget)
        if promising:
            best = min(promising, key=lambda trial: promise(trial, budget))
            return best, epochs[-1] if known else 1
    return None


def promise(trial: Trial, budget: Budget) -> tuple[float, ...]:
    """What trials are ordered by, the most promising first."""
    if not budget.by_size:
        return trial.excess, trial.zipped, trial.number
    return 0.0 if is_near(trial, budget) else _excess(trial, budget), trial.drop, trial.number


def is_near(trial: Trial, budget: Budget) -> bool:
    """Whether a trial is within the limits of size, or a little beyond them; how accurate it is does not count."""
    return _excess(trial, budget) <= _FAR


def _excess(trial, budget):
    return max(budget.excesses({**trial.costs(), "drop": 0.0}).values())


def expected_seconds(trials: Sequence[Trial], family: str, epochs: int) -> float | None:
    """How long a trial is going to take, from those of its family, or of all; `None` if nothing is known of it."""
    # Stages that were taken over from another trial take no time: of what is rounded in another way, some always are.
    trials = [trial for trial in trials if not trial.learned] or trials
    base = _untrained_seconds(trials, family)
    if not epochs:
        return base
    rate = _median(
        (each.family == family, (each.seconds - (_untrained_seconds(trials, each.family) or 0.0)) / each.epochs)
        for each in measured(trials)
        if each.epochs
    )
    return None if rate is None else (base or 0.0) + max(rate, 0.0) * epochs


def _untrained_seconds(trials, family):
    return _median((each.family == family, each.seconds) for each in measured(trials) if not each.epochs)


def _median(pairs):
    """Of the numbers that come with `True`, or of all."""
    pairs = list(pairs)
    own = [number for is_own, number in pairs if is_own] or [number for _, number in pairs]
    return statistics.median(own) if own else None


def _level(trials, short, long):
    """The trials that were trained about so long."""
    return [trial for trial in measured(trials) if short <= trial.epochs < long]


def _waiting(trials, begun, level):
    gone = {trial.after for trial in trials} | set(begun)
    return [trial for trial in level if trial.number not in gone]


def _promising(waiting, level, budget):
    """Without what is too large, if the same recipe was tried within the limits: it promises no more than that."""
    if not budget.by_size:
        return waiting
    fitting = {_settings(trial) for trial in level if not _excess(trial, budget)}
    return [each for each in waiting if _settings(each) not in fitting or not _excess(each, budget)]


def _settings(trial):
    return tuple(getattr(trial, name) for name in SETTINGS)
