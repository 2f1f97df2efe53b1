"""Structures of arrays: how many samples, some of them, batch by batch, and what is wrong with them."""

from collections.abc import Iterator
from typing import Any

import keras
import numpy as np


def sample_count(structure: Any) -> int:
    """How many samples a structure of arrays holds."""
    return len(keras.tree.flatten(structure)[0])


def part(structure: Any, chosen: Any) -> Any:
    """The samples that a slice or an array of integers chooses, in the same structure."""
    return keras.tree.map_structure(lambda leaf: leaf[chosen], structure)


def random_part(structure: Any, samples: int, seed: int) -> Any:
    """Samples of a structure of NumPy arrays, chosen at random, in their order; all, if there are no more."""
    chosen = np.random.default_rng(seed).permutation(sample_count(structure))[:samples]
    return part(structure, np.sort(chosen))


def slices(structure: Any, batch_size: int) -> Iterator[Any]:
    """The batches of a structure of arrays; the last one may be smaller."""
    for start in range(0, sample_count(structure), batch_size):
        yield part(structure, slice(start, start + batch_size))


def full_slices(structure: Any, batch_size: int) -> Iterator[Any]:
    """The batches of a structure of NumPy arrays, all of one size: the last sample is repeated to fill up the last."""
    count = sample_count(structure)
    for start in range(0, count, batch_size):
        yield part(structure, np.minimum(np.arange(start, start + batch_size), count - 1))


def joined(structures: Any) -> Any:
    """The samples of several structures of NumPy arrays, one after the other, in one structure."""
    return keras.tree.map_structure(lambda *leaves: np.concatenate(leaves), *structures)


def is_number(array: np.ndarray) -> bool:
    """Whether an array is of a type of numbers, those beside NumPy's own (bfloat16) among them."""
    return array.dtype.kind in "fiub" or "float" in str(array.dtype)


def is_finite(array: np.ndarray) -> bool:
    """Whether an array holds no NaN or infinite values."""
    return not np.issubdtype(array.dtype, np.floating) or bool(np.isfinite(array).all())


def has_nan(array: np.ndarray) -> bool:
    """Whether an array holds NaN values."""
    return bool(np.issubdtype(array.dtype, np.floating) and np.isnan(array).any())


def fits(shape: tuple[int, ...], expected: tuple[int | None, ...]) -> bool:
    """Whether a shape is the expected one, in which `None` is any size."""
    return len(shape) == len(expected) and all(b in (None, a) for a, b in zip(shape, expected, strict=True))


def fit_samples(shape: tuple[int, ...], expected: tuple[int | None, ...]) -> bool:
    """Whether arrays of a shape hold samples for a tensor of the expected shape, however many."""
    return len(shape) == len(expected) and fits(tuple(shape)[1:], tuple(expected)[1:])
