"""Which size a search tries next: what the trials so far say of the size that just keeps to the budget."""

from collections.abc import Sequence

from keras_mot.recipes.searching.budget import Budget
from keras_mot.recipes.searching.result import Trial

_SHARES = (0.5, 0.25)  # of the dense kernels, where the budget says nothing of sizes
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

    With a limit of size: what is left of it beside the overhead. With a limit of the drop alone: half way, in ratios,
    between the smallest size that kept to it and the largest that did not.

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
        return dense * _SHARES[0]
    good = [trial.predicted for trial in own if not trial.excess]
    bad = [trial.predicted for trial in own if trial.excess]
    smallest = min(good, default=dense)
    largest = max((size for size in bad if size < smallest), default=None)
    if largest is None:
        return smallest * _SHARES[0]
    return (smallest * largest) ** 0.5


def is_new(size: float, trials: Sequence[Trial], family: str) -> bool:
    """Whether no trial of the family had nearly this size."""
    return all(
        trial.family != family or abs(trial.asked - size) > _LEAST_STEP * max(trial.asked, size) for trial in trials
    )
