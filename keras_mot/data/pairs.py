"""Data of inputs and labels: a tuple (x, y) of arrays, or batches of such pairs."""

from collections.abc import Iterable, Iterator
from typing import Any

import keras

from keras_mot._arrays import to_numpy
from keras_mot._messages import describe
from keras_mot.data.arrays import has_nan, part, sample_count, slices


def is_pair(data: Any) -> bool:
    """Whether the data are arrays (x, y), and not batches."""
    return isinstance(data, tuple) and len(data) == 2


def count_batches(data: Any, batch_size: int) -> int | None:
    """The number of batches, or `None` if the data does not tell."""
    if is_pair(data):
        return -(-sample_count(data[0]) // batch_size)
    return known_length(data)


def known_length(batches: Any) -> int | None:
    """The number of batches in an iterable of them, or `None` if it does not tell."""
    try:
        return len(batches)
    except (TypeError, NotImplementedError):
        return None


def check_data(data: Any, name: str = "data") -> None:
    """Checks the kind of the data, and arrays as a whole, before any work starts.

    Args:
        data: what the user gave.
        name: of the argument, for messages.

    Raises:
        TypeError: if it is neither a tuple (x, y) nor an iterable of batches.
        ValueError: if there is nothing in it, arrays are of different lengths, or they hold NaN.
    """
    if is_pair(data):
        _check_pair(to_numpy(data[0]), to_numpy(data[1]), name)
        return
    if isinstance(data, tuple) and len(data) == 3 and all(hasattr(each, "shape") for each in data[1:]):
        raise ValueError(
            f"`{name}` should be a tuple (x, y); received three items. Weights of samples are not taken: leave the "
            "third out, or give a loss that weighs them by their labels."
        )
    if not is_iterable_of_batches(data):
        raise TypeError(
            f"`{name}` should be a tuple (x, y) of arrays or an iterable of batches (x, y); received {describe(data)}."
        )
    if count_batches(data, 1) == 0:
        raise ValueError(_EMPTY.format(name))


_EMPTY = "`{}` is empty; at least one sample is needed."


def is_iterable_of_batches(data: Any) -> bool:
    """Whether data can be gone through, and is no text, array or dictionary of arrays."""
    if isinstance(data, keras.utils.PyDataset):  # whatever attributes a class of the user's has
        return True
    return hasattr(data, "__iter__") and not isinstance(data, str | bytes | dict) and not hasattr(data, "shape")


def batches(data: Any, batch_size: int, name: str = "data") -> Iterator[tuple[Any, Any]]:
    """The batches (x, y) of data, each in the structure of the data with NumPy leaves.

    Args:
        data: as of `check_data`.
        batch_size: of arrays.
        name: of the argument, for messages.

    Raises:
        ValueError: as `check_data`, for each batch.
    """
    if is_pair(data):
        pair = to_numpy(data[0]), to_numpy(data[1])
        _check_pair(*pair, name)
        yield from slices(pair, batch_size)
        return
    empty = True
    for batch in data:
        x, y = map(to_numpy, as_pair(batch, name))
        _check_pair(x, y, name)
        empty = False
        yield x, y
    if empty:
        raise ValueError(_EMPTY.format(name))


def as_pair(batch: Any, name: str = "data") -> tuple[Any, Any]:
    """The inputs and labels of a batch.

    Raises:
        ValueError: if it is no pair of them.
    """
    if not isinstance(batch, tuple | list) or len(batch) != 2:
        many = f" of {len(batch)} items" if isinstance(batch, tuple | list) else ""
        raise ValueError(
            f"The batches of `{name}` should be pairs (x, y), without weights of samples; received "
            f"{type(batch).__name__}{many}."
        )
    return batch[0], batch[1]


def head_of(data: Any, samples: int = 64) -> tuple[Any, Any]:
    """The first samples and labels of data, at most those of the first batch, as NumPy arrays in their structures."""
    return part(to_numpy(tuple(data if is_pair(data) else next(iter(data)))), slice(samples))


def labels_of(data: Any) -> Any:
    """All labels of arrays; of batches, those of the first."""
    return to_numpy(data[1]) if is_pair(data) else head_of(data)[1]


def first(batches_of_pairs: Iterable[tuple[Any, Any]], samples: int) -> list[tuple[Any, Any]]:
    """The first pairs of batches, as many as together hold so many samples or somewhat more; an iterator goes on."""
    taken, count = [], 0
    iterator = iter(batches_of_pairs)
    while count < samples:
        pair = next(iterator, None)
        if pair is None:
            break
        taken.append(pair)
        count += sample_count(pair[0])
    return taken


def _check_pair(x, y, name):
    """Checks one batch, or the whole of arrays."""
    lengths = {}
    for side, structure in (("x", x), ("y", y)):
        leaves = keras.tree.flatten(structure)
        if not leaves or any(leaf.ndim == 0 for leaf in leaves):
            raise ValueError(
                f"`{name}` should hold arrays whose first dimension is the batch; received for {side}: "
                f"{describe(structure)}. Make arrays of lists, by `numpy.asarray`."
            )
        lengths[side] = sorted({len(leaf) for leaf in leaves})
        if any(map(has_nan, leaves)):
            raise ValueError(
                f"`{name}` holds NaN values in {side}. Remove or replace them: no metric is defined on them."
            )
    if lengths["x"] != lengths["y"] or len(lengths["x"]) != 1:
        raise ValueError(
            f"x and y of `{name}` should hold the same number of samples; received {lengths['x']} in x and "
            f"{lengths['y']} in y."
        )
    if lengths["x"] == [0]:
        raise ValueError(_EMPTY.format(name))
