"""Which size a search tries next: what the trials so far say of the size that just keeps to the budget."""

from collections.abc import Sequence

from keras_mot.recipes.searching.budget import Budget
from keras_mot.recipes.searching.result import Trial

_SHARE = 0.5  # of what is known to be small enough, or to begin with, where the budget says nothing of sizes
_LEAST_STEP = 0.03  # sizes nearer to each other than this share are the same


def overhead(trials: Sequence[Trial], family: str) -> float | None:
    """Bytes, zipped, of a file besides its kernels as predicted: of the family's trial that is nearest to the budget.

    Args:
        trials: finished ones, in their order.
        family: the trial's, or of all if it has none.

    Returns:
        The bytes, which may be negative; `None` before any trial.
    """
    known = [trial for trial in trials if trial.zipped is not None]
    own = [trial for trial in known if trial.family == family] or known
    return None if not own else own[-1].zipped - own[-1].predicted


def size_limit(budget: Budget, trials: Sequence[Trial]) -> float | None:
    """Bytes, zipped, that the budget allows; `None` if it says nothing of the size of files."""
    limits = [] if budget.zipped is None else [float(budget.zipped)]
    if budget.bytes is not None:
        # What is stored plainly shrinks when it is zipped as the latest file does.
        shares = [trial.zipped / trial.bytes for trial in trials if trial.bytes]
        limits.append(budget.bytes * (shares[-1] if shares else 1.0))
    return min(limits) if limits else None


def next_size(budget: Budget, trials: Sequence[Trial], family: str, dense: float) -> float:
    """Bytes of kernels to try next with a family of recipes.

    With a limit of size: what is left of it beside the overhead. Otherwise half way, in ratios, between the sizes on
    both sides of the border: the smallest that is good enough, or the largest that is fast enough.

    Args:
        budget: a `Budget`.
        trials: finished ones.
        family: one of `FAMILIES`.
        dense: bytes of all kernels in 8 bits.

    Returns:
        The bytes.
    """
    limit = size_limit(budget, trials)
    own = [trial for trial in trials if trial.family == family and trial.zipped is not None]
    if limit is not None:
        beside = overhead(trials, family)
        return max(1.0, min(dense, limit - (0.0 if beside is None else beside)))
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
        trial.family != family or abs(trial.asked - size) > _LEAST_STEP * max(trial.asked, size) for trial in trials
    )
