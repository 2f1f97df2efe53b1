"""Breaks down what picks numbers by constant places."""

import math

import keras
import numpy as np
from keras import ops


def take_along_axis(lowering, operation, x, indices):
    """Of each row the numbers at constant places, as one lookup among those of all rows; `None` for other forms.

    Attention by relative positions picks its scores so.
    """
    rank, shape = len(x.shape), tuple(x.shape)
    if keras.utils.is_keras_tensor(indices) or operation.axis is None or operation.axis % rank != rank - 1:
        return None
    places = np.asarray(ops.convert_to_numpy(indices))
    if rank < 2 or None in shape[1:] or places.ndim != rank or places.shape[0] != 1:
        return None
    rows, length, count = shape[1:-1], shape[-1], places.shape[-1]
    if any(size not in (1, row) for size, row in zip(places.shape[1:-1], rows, strict=True)):
        return None
    places = np.where(places < 0, places + length, places)[0]
    places = np.broadcast_to(places, (*rows, count)).reshape(-1, count)
    places = places + length * np.arange(math.prod(rows))[:, None]
    taken = ops.take(ops.reshape(x, (-1, math.prod(rows) * length)), places.reshape(-1).astype("int32"), axis=1)
    return ops.reshape(taken, (-1, *rows, count))
