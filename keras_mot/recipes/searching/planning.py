"""Which size a search tries next: what the trials so far say of the size that just keeps to the budget."""

from collections.abc import Sequence

from keras_mot.recipes.searching.budget import Budget
from keras_mot.recipes.searching.result import Trial

_SHARE = 0.5  # of what is known to be small enough, or to begin with, where the budget says nothing of sizes
_SPARED = 0.995  # of a limit: what files really take differs a little from what was expected
LEAST_STEP = 0.03
"""Sizes nearer to each other than this share are the same."""


def kernels_within(limit: float, trials: Sequence[Trial], family: str) -> float:
    """Bytes that kernels are to be predicted to take, so that their file takes so many.

    What a file takes beside its kernels is known from the latest trial of the family, or else of any. Where a file is
    smaller than its kernels were predicted to be, the prediction is off by a share, which is the family's own.

    Args:
        limit: bytes of the file, zipped.
        trials: finished ones, in their order.
        family: the next trial's.

    Returns:
        The bytes, which may be negative.
    """
    known = [trial for trial in trials if trial.zipped is not None]
    own = [trial for trial in known if trial.family == family]
    if not known:
        return limit
    latest = (own or known)[-1]
    beside = latest.zipped - latest.predicted
    if beside >= 0:
        return limit - beside
    return limit * latest.predicted / latest.zipped if own else limit


def size_limit(budget: Budget, trials: Sequence[Trial], family: str) -> float | None:
    """Bytes, zipped, that the budget allows a family; `None` if it says nothing of the size of files."""
    limits = [] if budget.zipped is None else [float(budget.zipped)]
    if budget.bytes is not None:
        # What is stored plainly shrinks when it is zipped as the latest file of the family does.
        known = [trial for trial in trials if trial.bytes]
        own = [trial for trial in known if trial.family == family] or known
        shares = [trial.zipped / trial.bytes for trial in own]
        limits.append(budget.bytes * (shares[-1] if shares else 1.0))
    return min(limits) if limits else None


def next_size(budget: Budget, trials: Sequence[Trial], family: str, dense: float, epochs: int = 0) -> float:
    """Bytes of kernels to try next with a family of recipes.

    With a limit of size: what is left of it beside the rest of the file. Otherwise half way, in ratios, between the
    sizes on both sides of the border: the smallest that is good enough, or the largest that is fast enough.

    Args:
        budget: a `Budget`.
        trials: finished ones.
        family: one of `FAMILIES`.
        dense: bytes of all kernels in 8 bits.
        epochs: that the next trial trains. What was too bad after fewer says nothing of it.

    Returns:
        The bytes.
    """
    limit = size_limit(budget, trials, family)
    own = [trial for trial in trials if trial.family == family and trial.zipped is not None]
    if budget.latency_ms is None:
        own = [trial for trial in own if not trial.excess or trial.epochs >= epochs]
    if limit is not None:
        return max(1.0, min(dense, kernels_within(_SPARED * limit, trials, family)))
    if not own:
        return dense * _SHARE
    small, large = (
        [trial.predicted for trial in own if trial.excess],
        [trial.predicted for trial in own if not trial.excess],
    )
    if budget.latency_ms is not None:  # the larger ones are too slow
        small, large = large, small
    lower, upper = max(small, default=None), min(large, default=dense)
    if lower is None or lower >= upper:
        return upper * _SHARE
    return (lower * upper) ** 0.5


def is_new(size: float, trials: Sequence[Trial], family: str) -> bool:
    """Whether no trial of the family was asked for nearly this size."""
    return all(
        trial.family != family or abs(trial.asked - size) > LEAST_STEP * max(trial.asked, size) for trial in trials
    )
