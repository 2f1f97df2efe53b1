"""Rounding weights to multiples of their scales, as functions of tensors that are traced once for all layers."""

from typing import Any

import keras
import numpy as np
from keras import ops

from keras_mot._traced_once import traced_once
from keras_mot.transforms.grid import Grid, in_blocks, short_scale


def scale_of_largest(value: Any, share: Any, grid: Grid, axes: tuple[int, ...]) -> Any:
    """The scale whose highest integer stands for a share of the largest magnitude.

    Args:
        value: float32 tensor.
        share: tensor that broadcasts to the largest magnitudes.
        grid: the `Grid` of the integers.
        axes: those that share a scale; they stay with length 1.
    """
    return _scale_of_largest(value, share, np.float32(grid.highest), grid=grid, axes=axes)


def scale_of_blocks(value: Any, share: Any, grid: Grid, shape: tuple[int, int], axis: int, size: int) -> Any:
    """The same for blocks of a matrix, in as few digits as runtimes have for them; a tensor of the matrix's shape.

    Args:
        value: float32 tensor with two axes.
        share: tensor of one number for each block.
        grid: the `Grid` of the integers.
        shape: of the matrix.
        axis: along which blocks lie, 0 or 1.
        size: numbers of a block.
    """
    blocks = in_blocks(shape, axis, size)
    return _scale_of_blocks(value, share, np.float32(grid.highest), grid=grid, blocks=blocks, axis=axis)


def rounded_weight(value: Any, scale: Any, offsets: Any, grid: Grid, clips: bool) -> Any:
    """A float32 tensor rounded to multiples of `scale`; on TensorFlow without a gradient, on JAX with that of `value`.

    Args:
        value: float32 tensor.
        scale: tensor that broadcasts to it.
        offsets: what is added to the ratio of both, in a list, or nothing.
        grid: the `Grid` of the integers.
        clips: whether there may be numbers beyond the grid.
    """
    return _rounded_weight(value, scale, *offsets, grid=grid, clips=clips)


@traced_once
def _scale_of_largest(value, share, highest, *, grid, axes):
    extremes = [extreme(value, axis=axes, keepdims=True) for extreme in (ops.max, ops.min)]
    largest = ops.maximum(extremes[0], -extremes[1])
    # As an argument: by a constant, XLA would divide with another last bit than outside of compiled functions.
    return grid.scale_of(ops.abs(share) * largest, ops, highest)


@traced_once
def _scale_of_blocks(value, share, highest, *, grid, blocks, axis):
    largest = ops.max(ops.abs(ops.reshape(value, blocks)), axis=axis + 1)
    scale = short_scale(grid.scale_of(ops.abs(share) * largest, ops, highest), ops)
    return ops.repeat(scale, blocks[axis + 1], axis=axis)


@traced_once
def _rounded_weight(value, scale, *offsets, grid, clips):
    fixed = ops.stop_gradient(value)
    moved = fixed + offsets[0] * scale if offsets else fixed
    integers = grid.integers(moved / scale, ops) if clips else ops.round(moved / scale)
    if keras.backend.backend() == "tensorflow":
        return integers * scale
    return value + (integers * scale - fixed)
