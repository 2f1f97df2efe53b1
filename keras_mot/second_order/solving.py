"""Linear algebra on second moments: damping, the inverse's factor, and least squares with ridge."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from keras_mot._warnings import warn
from keras_mot.second_order.moments import Moments

_ATTEMPTS = 6  # each with ten times the damping of the one before


@dataclasses.dataclass(frozen=True, eq=False)
class Solved:
    """A result of linear algebra, and how much damping it took.

    Attributes:
        value: float64 array.
        damping: share of the mean of H's diagonal that was added to the diagonal.
    """

    value: np.ndarray
    damping: float


def damped(second: np.ndarray, share: float = 0.01) -> np.ndarray:
    """H with a share of the mean of its diagonal added to the diagonal; inputs that are always 0 get the mean.

    Args:
        second: H of one group, array of shape (rows, rows).
        share: of the mean of the diagonal over inputs that are not always 0.
    """
    result = np.array(second, "float64")
    diagonal = result.diagonal().copy()
    live = diagonal > 0
    mean = diagonal[live].mean() if live.any() else 1.0
    places = np.arange(len(result))
    result[places, places] += np.where(live, share * mean, mean)
    return result


def inverse_factor(second: np.ndarray, share: float = 0.01) -> Solved:
    """The upper triangular U with U'U = H^-1, H damped; by more, where rounding errors leave it no factor.

    Args:
        second: H of one group, array of shape (rows, rows), already in the order that is wanted.
        share: damping, as of `damped`.
    """
    return _with_damping(second, share, _factor_of_inverse)


def _factor_of_inverse(matrix):
    """In place, with SciPy, which JAX brings: a sixth of NumPy's memory."""
    try:
        from scipy.linalg import lapack
    except ImportError:
        np.linalg.cholesky(matrix)  # raises an error where rounding has made a diagonal negative
        return np.linalg.cholesky(np.linalg.inv(matrix)).T
    result = matrix.T  # the same, in the order of Fortran
    for step, argument in ((lapack.dpotrf, "a"), (lapack.dpotri, "c"), (lapack.dpotrf, "a")):
        result = _checked(*step(result, **{f"overwrite_{argument}": 1}))
    return result


def least_squares(second: np.ndarray, products: np.ndarray, share: float = 1e-3) -> Solved:
    """The W of least ||X W - Y||^2 + ridge, from H = X'X and X'Y.

    Args:
        second: H of one group, array of shape (rows, rows).
        products: X'Y, array of shape (rows, columns).
        share: damping, as of `damped`.
    """

    products = np.asarray(products, "float64")
    return _with_damping(second, share, lambda matrix: solved_in_place(matrix, products))


def solved_in_place(matrix: np.ndarray, right: np.ndarray) -> np.ndarray:
    """The solution for a positive definite matrix, of SciPy, which JAX brings, in a third of NumPy's time.

    Args:
        matrix: float64 array of shape (rows, rows), which is used up.
        right: float64 array of shape (rows, columns).

    Raises:
        numpy.linalg.LinAlgError: if the matrix is not positive definite.
    """
    try:
        from scipy.linalg import lapack
    except ImportError:
        np.linalg.cholesky(matrix)  # an error where it is not positive definite
        return np.linalg.solve(matrix, right)
    factor = _checked(*lapack.dpotrf(matrix.T, overwrite_a=1, clean=0))
    return _checked(*lapack.dpotrs(factor, right))


def _checked(result, failed):
    if failed:
        raise np.linalg.LinAlgError("The matrix is not positive definite.")
    return result


def _with_damping(second, share, function):
    share = max(share, 0.0)
    for _ in range(_ATTEMPTS):
        try:
            value = function(damped(second, share))
        except np.linalg.LinAlgError:
            value = None
        if value is not None and np.isfinite(value).all():
            return Solved(value, share)
        share = max(10 * share, 1e-8)
    raise ValueError(
        f"The second moments of {len(second)} inputs have no inverse, not even with {share / 10:g} of the mean of "
        "their diagonal added to it: are the data finite?"
    )


def are_few(moments: Moments) -> bool:
    """Whether there were fewer rows of inputs than inputs, so that H alone has no inverse."""
    return moments.count < moments.second.shape[-1]


def warn_of_few_samples(paths: Sequence[str]) -> None:
    """Warns that the second moments of some kernels are of fewer rows than they have inputs."""
    if paths:
        shown = ", ".join(f"'{path}'" for path in list(paths)[:5]) + (", ..." if len(paths) > 5 else "")
        warn(
            f"There are fewer samples than inputs of {shown}: what is solved there is damped, and lies near the "
            "weights as they were. Give more samples."
        )
