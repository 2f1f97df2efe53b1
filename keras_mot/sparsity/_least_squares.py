"""Least squares in which some weights are zero: the others from the normal equations, which differ by column."""

import numpy as np

from keras_mot.second_order import damped, solved_in_place

_ATTEMPTS = 6  # each with ten times the damping of the one before
_EXACT = 2e11  # multiplications that exact solutions may always take
_ITERATIONS, _TOLERANCE = 100, 1e-4
_COLUMNS = 512  # of one run of the iteration, which keeps six arrays of their size


def masked_least_squares(
    second: np.ndarray,
    products: np.ndarray,
    mask: np.ndarray,
    prior: np.ndarray,
    share: float = 0.01,
    exact: bool | None = None,
) -> np.ndarray:
    """The W of least ||X W - Y||² + d ||W - V||² among those that are zero outside of a mask.

    Columns with equal masks share a Cholesky factor. Where the factors of all columns would take too long, conjugate
    gradients, preconditioned by the diagonal, solve all columns side by side.

    Args:
        second: H = X'X, array of shape (rows, rows).
        products: X'Y, array of shape (rows, columns).
        mask: bool, of shape (rows, columns): where weights may be other than zero.
        prior: V, array of shape (rows, columns); what H says nothing of stays there.
        share: d, as a share of the mean of the diagonal of H.
        exact: whether to use factors; by default, unless that takes more than conjugate gradients.

    Returns:
        float64 array of shape (rows, columns).

    Raises:
        ValueError: if H has no inverse even with much more damping, so that it is not finite.
    """
    mask = np.asarray(mask, "bool")
    patterns, columns_of = _patterns(mask)
    if exact is None:
        # What a factor costs, and what it costs to apply.
        kept = patterns.sum(axis=1, dtype="float64")
        factors = float((kept**3 / 3).sum() + 2 * (mask.sum(axis=0, dtype="float64") ** 2).sum())
        exact = factors <= max(_EXACT, _ITERATIONS / 2 * second.size * mask.shape[1])
    for _ in range(_ATTEMPTS):
        matrix = damped(second, share)
        right = np.asarray(products, "float64") + (matrix.diagonal() - second.diagonal())[:, None] * prior
        try:
            if exact:
                result = _by_factors(matrix, right, patterns, columns_of)
            else:
                result = _by_conjugate_gradients(matrix, right, mask, np.where(mask, prior, 0.0))
        except np.linalg.LinAlgError:
            result = None
        if result is not None and np.isfinite(result).all():
            return result
        share = max(10 * share, 1e-8)
    raise ValueError(f"The second moments of {len(second)} inputs have no inverse: are the data finite?")


def _patterns(mask):
    """The masks that columns have, one row each, and the columns that have it."""
    packed = np.packbits(mask.T, axis=1)
    _, first, number = np.unique(packed, axis=0, return_index=True, return_inverse=True)
    order = np.argsort(number.reshape(-1), kind="stable")
    bounds = np.flatnonzero(np.diff(number.reshape(-1)[order])) + 1
    return mask.T[first], np.split(order, bounds)


def _by_factors(matrix, right, patterns, columns_of):
    result = np.zeros_like(right)
    for pattern, columns in zip(patterns, columns_of, strict=True):
        kept = np.flatnonzero(pattern)
        if len(kept):
            result[np.ix_(kept, columns)] = solved_in_place(matrix[np.ix_(kept, kept)], right[np.ix_(kept, columns)])
    return result


def _by_conjugate_gradients(matrix, right, mask, start):
    result = np.empty_like(right)
    for first in range(0, right.shape[1], _COLUMNS):
        part = slice(first, first + _COLUMNS)
        result[:, part] = _iterated(matrix, right[:, part], mask[:, part], start[:, part])
    return result


def _iterated(matrix, right, mask, solution):
    scale = 1.0 / matrix.diagonal()[:, None]
    rest = np.where(mask, right - matrix @ solution, 0.0)
    goal = _TOLERANCE**2 * np.square(np.where(mask, right, 0.0)).sum(axis=0)
    direction = scale * rest
    size = (rest * direction).sum(axis=0)
    for _ in range(_ITERATIONS):
        if (np.square(rest).sum(axis=0) <= goal).all():
            break
        turned = np.where(mask, matrix @ direction, 0.0)
        length = size / np.maximum((direction * turned).sum(axis=0), np.finfo("float64").tiny)
        solution = solution + length * direction
        rest -= length * turned
        scaled = scale * rest
        before, size = size, (rest * scaled).sum(axis=0)
        direction = scaled + size / np.maximum(before, np.finfo("float64").tiny) * direction
    return solution
