"""Kernels as techniques make them, one after the other, without training: pure array logic."""

import dataclasses
import math
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from keras_mot.clustering import ExactKMeans
from keras_mot.layers import WeightAxes
from keras_mot.transforms.grid import Grid, least_squares_reach

_BYTES = 4  # of a weight


@dataclasses.dataclass(frozen=True, eq=False)
class Change:
    """A kernel as a technique makes it.

    Attributes:
        technique: as of `SensitivityRow`.
        setting: as of `SensitivityRow`.
        kernel: the new values.
        bytes_saved: as of `SensitivityRow`.
    """

    technique: str
    setting: float
    kernel: np.ndarray
    bytes_saved: int


def quantized(kernel: np.ndarray, bits: int, axes: WeightAxes) -> np.ndarray:
    """The nearest numbers of symmetric integers with a scale for each output channel."""
    grid = Grid(bits)
    reduced = tuple(axis for axis in range(kernel.ndim) if axis not in axes.normalized(kernel.ndim).outputs)
    largest = np.abs(kernel).max(axis=reduced, keepdims=True)
    reach = largest * least_squares_reach(kernel, grid.highest, reduced) if bits < 8 else largest
    scale = grid.scale_of(reach.astype("float32"))
    return grid.integers(kernel / scale) * scale


def pruned(kernel: np.ndarray, sparsity: float) -> np.ndarray:
    """With a share of zeros, those of least magnitude."""
    count = math.floor(sparsity * kernel.size + 0.5)
    result = kernel.copy()
    if count:
        result.reshape(-1)[np.argpartition(np.abs(kernel).reshape(-1), count - 1)[:count]] = 0
    return result


def clustered(kernel: np.ndarray, values: int) -> np.ndarray:
    """With so many values, those of least squared error."""
    centroids = np.sort(np.asarray(ExactKMeans().centroids(kernel.reshape(-1), values), "float32"))
    places = np.searchsorted((centroids[1:] + centroids[:-1]) / 2, kernel)
    return centroids[places]


def changes(
    kernel: np.ndarray,
    axes: WeightAxes,
    asked: dict[str, Sequence[float]],
    low_rank: Callable[[float], tuple[np.ndarray, int] | None],
) -> Iterator[Change]:
    """Yields the `Change`s that were asked for, those of one technique from the gentlest to the roughest.

    Args:
        kernel: the weight.
        axes: what its axes mean.
        asked: dictionary from techniques to settings.
        low_rank: function from a share of parameters to the kernel and its number of parameters, or to `None`.
    """
    size = kernel.size
    for bits in sorted(asked.get("weight_bits", ()), reverse=True):
        yield Change("weight_bits", bits, quantized(kernel, bits, axes), size * _BYTES - math.ceil(size * bits / 8))
    for sparsity in sorted(asked.get("sparsity", ())):
        stored = math.ceil(size * (1 - sparsity)) * _BYTES + math.ceil(size / 8)
        yield Change("sparsity", sparsity, pruned(kernel, sparsity), max(size * _BYTES - stored, 0))
    for values in sorted(asked.get("values", ()), reverse=True):
        if len(np.unique(kernel)) > values:
            stored = math.ceil(size * math.ceil(math.log2(values)) / 8) + values * _BYTES
            yield Change("values", values, clustered(kernel, values), max(size * _BYTES - stored, 0))
    for share in sorted(asked.get("rank", ()), reverse=True):
        found = low_rank(share)
        if found is not None:
            yield Change("rank", share, found[0], (size - found[1]) * _BYTES)
