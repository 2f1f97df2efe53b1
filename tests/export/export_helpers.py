"""Helpers of the export tests."""

import keras
import numpy as np


def zero_smallest(model, share):
    """Sets the smallest `share` of every kernel to zero."""
    for weight in model.weights:
        if len(weight.shape) < 2:
            continue
        values = np.array(keras.ops.convert_to_numpy(weight))
        order = np.argsort(np.abs(values), axis=None)
        values.reshape(-1)[order[: round(share * values.size)]] = 0.0
        weight.assign(values)
