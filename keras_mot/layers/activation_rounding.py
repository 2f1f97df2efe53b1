"""Rounding activations to a range, and moving the range: functions of tensors, traced once for all layers."""

from typing import Any

import keras
import numpy as np
from keras import ops

from keras_mot import _tensorflow
from keras_mot._traced_once import traced_once
from keras_mot.layers.clipping_ranges import ClippingRange, moved, typical_extremes
from keras_mot.transforms.grid import Grid

_FAR = np.float32(1e38)  # of which twice is a number, too


def rounded(inputs: Any, low: Any, high: Any, batches: Any, limits: tuple, grid: Grid, averages: bool) -> Any:
    """Inputs rounded to a range, with no gradient outside of it; as they are while the range has seen no batch.

    Args:
        inputs: float32 tensor.
        low: scalar tensor, the least number as it was set.
        high: the greatest number.
        batches: how many batches the range has seen.
        limits: (least, greatest) number that the range may have, float32 scalars, or nothing.
        grid: the `Grid` of the integers.
        averages: as of `ActivationQuantizer.call`.
    """
    if keras.backend.backend() == "tensorflow":
        parts = _rounded_in_parts(inputs, low, high, batches, *limits, grid=grid, averages=averages)
        return _shaped(_tensorflow.with_clipped_gradient(inputs, *parts), inputs)
    return _rounded(inputs, low, high, batches, *limits, grid=grid, averages=averages)


def rounded_if(inputs: Any, rounds: Any, low: Any, high: Any, fixed: tuple, grid: Grid, averages: bool) -> Any:
    """Inputs rounded to a range, or cut off at `fixed`, if there is such, without a gradient of their own.

    Args:
        inputs: float32 tensor.
        rounds: scalar tensor, above 0 if they are rounded.
        low: scalar tensor, the least number, as `Grid.clipping_range` returns it.
        high: the greatest number.
        fixed: (least, greatest) number, float32 scalars, or nothing.
        grid: as of `rounded`.
        averages: as of `rounded`.
    """
    return _shaped(_rounded_if(inputs, rounds, low, high, *fixed, grid=grid, averages=averages), inputs)


def followed(inputs: Any, low: Any, high: Any, batches: Any, kind: ClippingRange) -> tuple[Any, Any]:
    """The ends of a range once it has followed a batch; arguments as of `rounded`, and `kind`: how it follows.

    A range that follows samples takes inputs of shape (samples, values).
    """
    low, high = _followed(inputs, low, high, batches, kind=kind)
    return _shaped(low, ()), _shaped(high, ())


def off_ties(inputs: Any, scale: Any, zero: Any, grid: Grid) -> Any:
    """Means of numbers that are rounded already, so that those between two integers go away from the integer 0.

    Args:
        inputs: float tensor.
        scale: the distance of two numbers, a number or scalar tensor.
        zero: how many steps 0 lies above the lowest integer.
        grid: the `Grid` of the integers.
    """
    # The number that integer 0 of the file stands for.
    middle = 0.0 if grid.symmetric else (-zero - grid.lowest) * scale
    # A thousandth of a step decides ties, and nothing else: means of few integers are not nearer to one.
    nudge = ops.where(inputs < ops.cast(middle, inputs.dtype), -1e-3 * scale, 1e-3 * scale)
    return inputs + ops.cast(nudge, inputs.dtype)


@traced_once
def _rounded(inputs, low, high, batches, *limits, grid, averages):
    low, high = grid.clipping_range(low, high, limits or None, ops)
    values = off_ties(inputs, *grid.scale_and_zero(low, high, ops), grid) if averages else inputs
    return ops.where(batches > 0, _nearest(values, low, high, grid), inputs)


@traced_once
def _rounded_in_parts(inputs, low, high, batches, *limits, grid, averages):
    """What is rounded, and the ends outside of which there is no gradient."""
    low, high = grid.clipping_range(low, high, limits or None, ops)
    values = off_ties(inputs, *grid.scale_and_zero(low, high, ops), grid) if averages else inputs
    known = batches > 0
    rounded = _tensorflow.one_of(known, lambda: _nearest(values, low, high, grid), lambda: inputs)
    return rounded, ops.where(known, low, -_FAR), ops.where(known, high, _FAR)


@traced_once
def _rounded_if(inputs, rounds, low, high, *fixed, grid, averages):
    values = off_ties(inputs, *grid.scale_and_zero(low, high, ops), grid) if averages else inputs
    otherwise = ops.clip(inputs, *fixed) if fixed else inputs
    # A condition takes longer to compile than both to compute.
    return ops.where(rounds > 0, _nearest(values, low, high, grid), otherwise)


@traced_once
def _followed(inputs, low, high, batches, *, kind):
    found = typical_extremes(inputs, ops) if kind.of_samples else (ops.min(inputs), ops.max(inputs))
    # The logarithm of a number that was rounded to 0 says nothing of the range.
    extremes = (ops.where(ops.isinf(value), end, value) for value, end in zip(found, (low, high), strict=True))
    return moved(kind, (low, high), tuple(extremes), batches, ops)


def _nearest(inputs, low, high, grid):
    if keras.backend.backend() == "tensorflow":
        return _tensorflow.nearest(inputs, low, high, grid.bits, grid.narrow)
    return keras.quantizers.fake_quant_with_min_max_vars(
        inputs, low, high, num_bits=grid.bits, narrow_range=grid.narrow
    )


def _shaped(tensor, like):
    """A tensor whose shape TensorFlow knows."""
    if keras.backend.backend() == "tensorflow":
        tensor.set_shape(getattr(like, "shape", like))
    return tensor
