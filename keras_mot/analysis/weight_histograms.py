"""The values of a weight in few numbers: bins, palette, levels; and where its zeros are."""

import dataclasses
from collections.abc import Sequence

import numpy as np

_BINS = 48
_LARGEST_PALETTE = 64
_PICTURE = (96, 192)  # rows and columns at most


@dataclasses.dataclass(frozen=True)
class WeightHistogram:
    """How the values of a weight lie, without the zeros.

    Attributes:
        edges: of the bins.
        after: how many values lie in each bin, as they are used.
        before: those of the float model; empty if it is not known.
        palette: pairs of (value, how often it is used), zero included, if there are at most 64 different ones.
        step: distance of two neighbouring levels of its integers, the median of several scales; or `None`.
        bits: of an integer; `None` without integers.
        scales: how many scales there are.
    """

    edges: tuple[float, ...]
    after: tuple[int, ...]
    before: tuple[int, ...]
    palette: tuple[tuple[float, int], ...]
    step: float | None
    bits: int | None
    scales: int


def histogram(
    after: np.ndarray,
    before: np.ndarray | None = None,
    steps: "np.ndarray | float | None" = None,
    bits: int | None = None,
) -> WeightHistogram:
    """The `WeightHistogram` of a weight.

    Args:
        after: float array of any shape, not empty.
        before: float array of any shape, or `None`.
        steps: the scale of its integers, or an array of several.
        bits: of an integer.

    Raises:
        ValueError: if an array is empty, or holds NaN or infinite values.
    """
    arrays = [np.asarray(each, "float64").ravel() for each in (after, before) if each is not None]
    for array in arrays:
        if not array.size or not np.isfinite(array).all():
            raise ValueError("The values of a weight should be finite, and one at least.")
    reach = max(float(np.abs(array).max()) for array in arrays) * 1.04 or 1.0
    scales = None if steps is None else np.asarray(steps, "float64").ravel()
    edges = np.linspace(-reach, reach, _BINS + 1)
    if scales is not None and bits is not None and (step := float(np.median(scales))) * _BINS >= reach / 64:
        edges = _between_levels(step, reach)
    counts = [np.histogram(array[array != 0], edges)[0] for array in arrays]
    values, frequencies = np.unique(arrays[0], return_counts=True)
    palette = zip(values.tolist(), frequencies.tolist(), strict=True) if len(values) <= _LARGEST_PALETTE else ()
    return WeightHistogram(
        tuple(edges.tolist()),
        tuple(counts[0].tolist()),
        tuple(counts[1].tolist()) if before is not None else (),
        tuple(palette),
        None if scales is None else float(np.median(scales)),
        None if scales is None else bits,
        0 if scales is None else scales.size,
    )


def _between_levels(step, reach):
    """Edges of bins that hold equally many levels each; otherwise, some hold one more than their neighbours."""
    together = 2 * int(np.ceil(reach / (step * _BINS))) - 1  # odd: 0 is in the middle of a bin
    width = together * step
    half = int(np.ceil(reach / width - 0.5))
    return (np.arange(-half, half + 2) - 0.5) * width


def density_picture(values: np.ndarray, most: Sequence[int] = _PICTURE) -> np.ndarray:
    """The share of weights that are not zero, for each point of a picture of a weight.

    Args:
        values: array of any shape, not empty; axes before the last are joined.
        most: rows and columns that the picture has at most.

    Returns:
        float array of shape (rows, columns), from 0 to 1.

    Raises:
        ValueError: if the array is empty.
    """
    values = np.asarray(values)
    if not values.size:
        raise ValueError("A weight without values has no picture.")
    matrix = (values != 0).reshape(-1, values.shape[-1]) if values.ndim > 1 else (values != 0).reshape(1, -1)
    if matrix.shape[0] > matrix.shape[1]:
        matrix = matrix.T
    for axis in (0, 1):
        size = matrix.shape[axis]
        if size > most[axis]:
            starts = np.linspace(0, size, most[axis], endpoint=False).astype(int)
            widths = np.diff([*starts, size])
            sums = np.add.reduceat(matrix.astype("float64"), starts, axis=axis)
            matrix = sums / (widths[:, None] if axis == 0 else widths)
    return matrix.astype("float64")
