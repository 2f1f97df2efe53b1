"""Breaks down normalization by statistics of the sample: of layers, groups, and vectors.

A sum of squares is the product of a vector with itself: its terms are integers of 32 bits, and only the sum is rounded.
As squares and a mean, each rounded to 8 bits, the result is up to 10 dB noisier where a few channels are much larger
than the others, or a few positions.
"""

import math

import keras
import numpy as np
from keras import ops

from keras_mot.layers.inverse_root import InverseRoot
from keras_mot.quantization.lowering.affine import affine

_LONGEST = 2**15  # numbers of 8 bits whose squares fit into a sum of 32
_SMALLEST = 1e-24  # of the sum of squares that `UnitNormalization` divides by


def layer_normalization(lowering, layer, inputs, mask=None):  # which is only passed on
    """`LayerNormalization` over the last axes, or `None`."""
    size = _size_of_last_axes(layer, inputs)
    if size is None or getattr(layer, "rms_scaling", False):
        return None
    rows = _normalized(lowering, layer, ops.reshape(inputs, (-1, size)), centered=True, epsilon=layer.epsilon)
    return ops.reshape(_scaled(lowering, layer, rows, layer.gamma, layer.beta), (-1, *inputs.shape[1:]))


def rms_normalization(lowering, layer, x):
    """`RMSNormalization` over the last axes, or `None`."""
    size = _size_of_last_axes(layer, x)
    if size is None:
        return None
    rows = _normalized(lowering, layer, ops.reshape(x, (-1, size)), centered=False, epsilon=layer.epsilon)
    return ops.reshape(_scaled(lowering, layer, rows, layer.scale, None), (-1, *x.shape[1:]))


def unit_normalization(lowering, layer, inputs):
    """`UnitNormalization` over the last axes, or `None`."""
    size = _size_of_last_axes(layer, inputs)
    if size is None:
        return None
    rows = ops.reshape(inputs, (-1, size))
    return ops.reshape(_divided(lowering, layer, rows, 1.0, least=_SMALLEST), (-1, *inputs.shape[1:]))


def layer_norm(lowering, operation, x, gamma=None, beta=None):
    """`keras.ops.layer_normalization` by constants over the last axes, or `None`."""
    size = _size_of_last_axes(operation, x)
    if size is None or operation.rms_scaling or not _are_constants(size, gamma, beta):
        return None
    epsilon = _epsilon(operation)
    rows = _normalized(lowering, operation, ops.reshape(x, (-1, size)), centered=True, epsilon=epsilon)
    return ops.reshape(_scaled(lowering, operation, rows, gamma, beta), (-1, *x.shape[1:]))


def rms_norm(lowering, operation, x, scale=None):
    """`keras.ops.rms_normalization` by constants over the last axes, or `None`."""
    size = _size_of_last_axes(operation, x)
    if size is None or not _are_constants(size, scale):
        return None
    epsilon = _epsilon(operation)
    rows = _normalized(lowering, operation, ops.reshape(x, (-1, size)), centered=False, epsilon=epsilon)
    return ops.reshape(_scaled(lowering, operation, rows, scale, None), (-1, *x.shape[1:]))


def normalize(lowering, operation, x):
    """`keras.ops.normalize` by the Euclidean norm over the last axes, or `None`."""
    size = _size_of_last_axes(operation, x)
    if size is None or operation.order != 2:
        return None
    rows = _divided(lowering, operation, ops.reshape(x, (-1, size)), 1.0, least=_epsilon(operation) ** 2)
    return ops.reshape(rows, (-1, *x.shape[1:]))


def moments(lowering, operation, x):
    """The mean and the variance along axes of the sample, or `None`."""
    rank = len(x.shape)
    axes = operation.axes if isinstance(operation.axes, (list, tuple)) else [operation.axes]
    axes = sorted(axis % rank for axis in axes)
    if operation.synchronized or not axes or 0 in axes or None in x.shape[1:] or "float" not in str(x.dtype):
        return None
    others = [axis for axis in range(1, rank) if axis not in axes]
    size = math.prod(x.shape[axis] for axis in axes)
    if size > _LONGEST:
        return None
    mean = ops.mean(x, axis=axes, keepdims=True)
    order = [0, *others, *axes]
    centered = x - mean
    rows = ops.reshape(centered if order == sorted(order) else ops.transpose(centered, order), (-1, size))
    squares = ops.matmul(ops.reshape(rows, (-1, 1, size)), ops.reshape(rows, (-1, size, 1)))
    kept = [1 if axis in axes else x.shape[axis] for axis in range(1, rank)]
    shape = kept if operation.keepdims else [x.shape[axis] for axis in others]
    variance = ops.reshape(squares * (1.0 / size), (-1, *shape))
    return mean if operation.keepdims else ops.reshape(mean, (-1, *shape)), variance


def _epsilon(operation):
    return float(keras.config.epsilon() if operation.epsilon is None else operation.epsilon)


def _are_constants(size, *values):
    """Whether each of the values is an array of a number for each of those that are normalized together, or `None`."""
    given = [value for value in values if value is not None]
    return not any(keras.utils.is_keras_tensor(value) or math.prod(value.shape) != size for value in given)


def group_normalization(lowering, layer, inputs):
    """`GroupNormalization` of the last axis, or `None`."""
    shape = tuple(inputs.shape)
    if None in shape[1:] or layer.axis % len(shape) != len(shape) - 1:
        return None
    channels, positions = shape[-1], math.prod(shape[1:-1])
    width = channels // layer.groups
    if positions * width > _LONGEST:
        return None
    apart = ops.transpose(ops.reshape(inputs, (-1, positions, layer.groups, width)), (0, 2, 1, 3))
    rows = ops.reshape(apart, (-1, positions * width))
    rows = _normalized(lowering, layer, rows, centered=True, epsilon=layer.epsilon)
    together = ops.transpose(ops.reshape(rows, (-1, layer.groups, positions, width)), (0, 2, 1, 3))
    rows = ops.reshape(together, (-1, channels))
    gamma, beta = (layer.gamma if layer.scale else None), (layer.beta if layer.center else None)
    return ops.reshape(_scaled(lowering, layer, rows, gamma, beta), (-1, *shape[1:]))


def _size_of_last_axes(layer, inputs):
    """How many numbers the axes hold that are normalized together; `None` if other axes stand behind them."""
    shape = tuple(inputs.shape)
    if layer.axis is None:
        return None
    axes = layer.axis if isinstance(layer.axis, (list, tuple)) else [layer.axis]
    axes = sorted(axis % len(shape) for axis in axes)
    if axes != list(range(len(shape) - len(axes), len(shape))) or 0 in axes or None in shape[1:]:
        return None
    size = math.prod(shape[axis] for axis in axes)
    return size if size <= _LONGEST else None


def _normalized(lowering, layer, rows, centered, epsilon):
    """Each row divided by the root of its mean square, with its mean taken out before or not."""
    if centered:
        rows = rows - ops.mean(rows, axis=-1, keepdims=True)
    return _divided(lowering, layer, rows, 1.0 / rows.shape[-1], epsilon=epsilon)


def _divided(lowering, layer, rows, factor, epsilon=0.0, least=0.0):
    """Each row divided by the root of its sum of squares times a factor."""
    size = rows.shape[-1]
    squares = ops.matmul(ops.reshape(rows, (-1, 1, size)), ops.reshape(rows, (-1, size, 1)))
    root = lowering.make(
        layer, "root", lambda: InverseRoot(factor, float(epsilon), least, name=f"{layer.name}_inverse_root")
    )
    return rows * root(ops.reshape(squares, (-1, 1)))


def _scaled(lowering, layer, rows, scale, offset):
    """Each row times the scales, plus the offsets."""
    if scale is None and offset is None:
        return rows
    values = (ops.convert_to_numpy(each).reshape(-1) if each is not None else None for each in (scale, offset))
    scale, offset = (
        np.asarray(default if each is None else each, "float64")
        for each, default in zip(values, (1.0, 0.0), strict=True)
    )
    return affine(lowering, layer, rows, -1, scale, offset, trained=getattr(layer, "trainable", False))
