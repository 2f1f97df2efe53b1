"""Brings evaluation data into batches of NumPy arrays and checks them."""

import keras
import numpy as np

from keras_mot._arrays import to_numpy
from keras_mot._messages import describe


def count_batches(data, batch_size):
    """The number of batches, or None if the data does not tell."""
    if is_pair(data):
        return -(-len(keras.tree.flatten(data[0])[0]) // batch_size)
    try:
        return len(data)
    except TypeError:
        return None


def check_data(data):
    """Checks the kind of the data, and arrays as a whole, before any work starts."""
    if is_pair(data):
        _check_batch(to_numpy(data[0]), to_numpy(data[1]))
        return
    if isinstance(data, (str, bytes, dict, np.ndarray)) or not hasattr(data, "__iter__"):
        raise TypeError(
            f"`data` must be a tuple (x, y) of arrays or an iterable of batches (x, y). Received: "
            f"{type(data).__name__}."
        )
    if count_batches(data, 1) == 0:
        raise ValueError("`data` is empty. Expected at least one sample.")


def batches(data, batch_size):
    """Yields (x, y), each in the structure of the data with NumPy leaves."""
    if is_pair(data):
        x, y = to_numpy(data[0]), to_numpy(data[1])
        for start in range(0, _check_batch(x, y), batch_size):
            part = slice(start, start + batch_size)
            yield tuple(keras.tree.map_structure(lambda leaf: leaf[part], item) for item in (x, y))  # noqa: B023
        return
    empty = True
    for batch in data:
        if not isinstance(batch, (tuple, list)) or len(batch) != 2:
            raise ValueError(
                f"Every batch of `data` must be a pair (x, y). Received: {type(batch).__name__}"
                f"{f' of {len(batch)} items' if isinstance(batch, (tuple, list)) else ''}."
            )
        x, y = to_numpy(batch[0]), to_numpy(batch[1])
        _check_batch(x, y)
        empty = False
        yield x, y
    if empty:
        raise ValueError("`data` is empty. Expected at least one sample.")


def first_sample(x):
    """The first sample of a batch, as a batch of one."""
    return keras.tree.map_structure(lambda leaf: leaf[:1], x)


def is_pair(data):
    """Whether the data are arrays (x, y), and not batches."""
    return isinstance(data, tuple) and len(data) == 2


def _check_batch(x, y):
    """Checks one batch (or the whole data) and returns its number of samples."""
    lengths = {}
    for name, structure in (("x", x), ("y", y)):
        leaves = keras.tree.flatten(structure)
        if not leaves or any(leaf.ndim == 0 for leaf in leaves):
            raise ValueError(
                f"`data` must hold arrays whose first dimension is the batch. Received for {name}: "
                f"{describe(structure)}. Make arrays of lists, by `numpy.asarray`."
            )
        lengths[name] = sorted({len(leaf) for leaf in leaves})
        for leaf in leaves:
            if np.issubdtype(leaf.dtype, np.floating) and np.isnan(leaf).any():
                raise ValueError(
                    f"`data` holds NaN values in {name}. Remove or replace them: no metric is defined on them."
                )
    if lengths["x"] != lengths["y"] or len(lengths["x"]) != 1:
        raise ValueError(
            f"x and y of `data` must hold the same number of samples. Received: {lengths['x']} in x and "
            f"{lengths['y']} in y."
        )
    if lengths["x"] == [0]:
        raise ValueError("`data` is empty. Expected at least one sample.")
    return lengths["x"][0]
