"""Which weights of each group are zero, chosen one after the other, each with all others making up for those before.

Optimal brain surgeon, output by output (Frantar and Alistarh, 2022, "Optimal Brain Compression", arXiv:2208.11580,
algorithm 1), within groups of a pattern.
"""

import numpy as np

from keras_mot.second_order import damped

_MOST = 1.2e10  # changes of numbers that it may take, a minute or two
_TOGETHER = 1 << 24  # numbers of the inverses that are in memory at a time


def chosen_places(
    second: np.ndarray, weights: np.ndarray, mask: np.ndarray, groups: np.ndarray, share: float = 0.01
) -> np.ndarray:
    """A mask with as many zeros in each group as one has, at better places.

    Args:
        second: H = X'X, array of shape (rows, rows).
        weights: what would serve best without zeros, of shape (rows, columns).
        mask: bool, of this shape.
        groups: the number of the group of each weight, of this shape; a group lies in one column.
        share: damping, as of `damped`.

    Returns:
        bool array; `mask` itself, where the choice would take too long.
    """
    rows, columns = weights.shape
    zeros = int((~mask).sum(axis=0).max(initial=0))
    if not zeros or float(rows) ** 2 * columns * zeros > _MOST:
        return mask
    inverse, result = np.linalg.inv(damped(second, share)), np.empty_like(mask)
    step = max(1, _TOGETHER // rows**2)
    for first in range(0, columns, step):
        part = slice(first, first + step)
        result[:, part] = _eliminated(inverse, weights[:, part].T, mask[:, part].T, groups[:, part].T, zeros).T
    return result


def _eliminated(inverse, weights, mask, groups, zeros):
    """The mask of some columns; arrays have one row for each."""
    count, rows = weights.shape
    inverses, weights, kept = np.repeat(inverse[None], count, axis=0), weights.copy(), np.ones(mask.shape, "bool")
    _, groups = np.unique(groups, return_inverse=True)
    groups = groups.reshape(count, rows)
    left = np.bincount(groups.ravel(), ~mask.ravel())
    places = np.arange(rows)
    for _ in range(zeros):
        free = kept & (left[groups] > 0)
        own = np.flatnonzero(free.any(axis=1))
        costs = np.square(weights) / np.maximum(inverses[:, places, places], 1e-30)
        at = np.where(free, costs, np.inf).argmin(axis=1)[own]
        line = inverses[own, at]  # of each column, the inverse's row
        pivot = line[np.arange(len(own)), at][:, None]
        weights[own] -= line * (weights[own, at][:, None] / pivot)
        change = line[:, :, None] * (line / pivot)[:, None, :]
        if len(own) == count:
            inverses -= change
        else:
            inverses[own] -= change
        kept[own, at] = False
        left[groups[own, at]] -= 1
        weights[~kept] = 0.0
    return kept
