"""Which integers weights stand for that were rounded to a grid, and are floats again in a file."""

import itertools

import numpy as np

from keras_mot.transforms.fake_quantize import with_scales_for_zeros

_BLOCK = 2**22  # numbers that are looked at together


def on_grid(values, axis, limits, known=None):
    """The integers of an array that is on a grid.

    Args:
        values: float32 array.
        axis: that of the slices which may have scales of their own, or `None` for one scale.
        limits: the integers that the largest magnitude of the whole, or of each slice, may stand for.
        known: dictionary from the largest magnitude of a slice to the integers that it may stand for; `None` to go by
            `limits` alone.

    Returns:
        The integers, as floats in an array like `values`, and their scales, broadcastable to it; `None` if the array is
        on no grid.
    """
    others = tuple(dimension for dimension in range(values.ndim) if dimension != axis)
    if values.size:
        largest = np.maximum(values.max(axis=others, keepdims=True), -values.min(axis=others, keepdims=True))
    else:
        largest = np.zeros((1,) * values.ndim)
    scale = None if known is None else _scale_of_each_slice(values, others, largest, _candidates(largest, known))
    if scale is None:
        scale = _scale_by_limits(values, largest, limits)
    if scale is None:
        return None
    integers = np.asarray(values / scale)
    return np.round(integers, out=integers), scale


def _candidates(largest, known):
    """Arrays like `largest`: the integers that its entries may stand for, the larger ones first; 0 where unknown."""
    rows = [sorted(known.get(float(number), ()), reverse=True) for number in largest.reshape(-1)]
    columns = itertools.zip_longest(*rows, fillvalue=0)
    return [np.array(column).reshape(largest.shape) for column in columns]


def _scale_of_each_slice(values, others, largest, integers):
    """The scales of slices of which the largest magnitudes stand for these integers, or `None` if some is on no grid.

    Args:
        values: array.
        others: the axes that a slice has.
        largest: the largest magnitude of each slice.
        integers: arrays like `largest`, of which the first is taken whose grid fits; 0 is none.
    """
    chosen = np.where(largest == 0, np.float32(0), np.float32(np.nan))
    for candidates in integers:
        scale = largest / np.where(candidates > 0, candidates, np.nan).astype("float32")
        fits = _fit(values, scale, np.where(largest == 0, 1, scale), others)
        chosen = np.where(fits & np.isnan(chosen), scale, chosen)
    if np.isnan(chosen).any():
        return None
    chosen = with_scales_for_zeros(chosen)
    # Where all slices have one scale, the file says so once.
    return chosen.max(keepdims=True) if np.ptp(chosen) <= 1e-6 * chosen.max() else chosen


def _fit(values, scale, divisors, others):
    """Which slices are on the grids of their scales; in blocks, since each step takes as much memory as it sees."""
    axis = next((axis for axis in range(values.ndim) if axis not in others), None)
    if axis is None:
        return _fit_at_once(values, scale, divisors, others)
    parts = max(1, -(-values.size // _BLOCK))
    blocks = zip(*(np.array_split(array, parts, axis) for array in (values, scale, divisors)), strict=True)
    return np.concatenate([_fit_at_once(*block, others) for block in blocks], axis)


def _fit_at_once(values, scale, divisors, others):
    error = np.abs(np.round(values / divisors) * scale - values)
    return (error <= 1e-5 * np.abs(values) + 1e-4 * scale).all(axis=others, keepdims=True)


def _scale_by_limits(values, largest, limits):
    """The scales if the largest magnitude of every slice, or of the whole, stands for one of the limits."""
    for limit in limits:
        for magnitudes in (largest, largest.max(keepdims=True)):
            scale = with_scales_for_zeros(magnitudes / np.float32(limit))
            if np.allclose(np.round(values / scale) * scale, values, rtol=1e-5, atol=1e-4 * float(scale.min())):
                return scale
    return None
