"""Breaks down what multiplies each channel and adds to it: normalization by fixed statistics, rescaling, and constants.

Such steps behind one another, `(x / 255 - mean) / std` for example, become one: what each tensor is of the one in front
of them is noted.
"""

import dataclasses
from typing import Any

import keras
import numpy as np
from keras import layers, ops

from keras_mot._keras import call_of, keep_axis, producer_of
from keras_mot.graph.batch_norm import scale_and_offset
from keras_mot.graph.kinds import JOINS, MOVES, has_role
from keras_mot.layers.float_boundary import UNEVEN, FloatBoundary
from keras_mot.transforms.grid import Grid

# Of an input with one scale for all features, a feature keeps so many numbers to its standard deviation, or it is
# normalized in floats. Images have 40 and more; with 8, the noise of rounding is 29 dB below the feature.
_FEWEST_NUMBERS = 8
_REACH = 3.0  # standard deviations, to either side
_CONSTANT = 1e6  # a feature is, that is multiplied by this and more


def batch_norm(lowering, layer, inputs, mask=None):  # which says what statistics are taken of, in training
    """Batch normalization in inference, or `None`; in floats for features of an input that differ much in size."""
    factors = scale_and_offset(layer)
    if lowering.fast and _loses_features(inputs, *factors):
        return _left_in_floats(lowering, layer, inputs)
    return affine(lowering, layer, inputs, layer.axis, *factors, trained=layer.trainable)


def normalization(lowering, layer, inputs):
    """`Normalization` of one axis or of all, or `None`; in floats for features of an input that differ much in size."""
    axes = keep_axis(layer)
    if layer.invert or len(axes) > 1:
        return None
    mean, variance = (ops.convert_to_numpy(value).reshape(-1) for value in (layer.mean, layer.variance))
    scale = 1.0 / np.maximum(np.sqrt(variance.astype("float64")), keras.config.epsilon())
    if lowering.fast and _loses_features(inputs, scale, -mean * scale):
        return _left_in_floats(lowering, layer, inputs)
    return affine(lowering, layer, inputs, axes[0] if axes else -1, scale, -mean * scale)


def _left_in_floats(lowering, layer, inputs):
    """The layer itself, behind a boundary that says why."""
    boundary = lowering.make(layer, "boundary", lambda: FloatBoundary(UNEVEN, name=f"{layer.name}_in_floats"))
    return layer(boundary(inputs))


def _loses_features(inputs, scale, offset):
    """Whether a feature of an input has too few integers, if all features share a scale before they are normalized.

    A float input has no other scale. One factor for all features, as that of a `Rescaling`, loses nothing.
    """
    if not _comes_from_inputs(inputs):
        return False
    scale, offset = np.broadcast_arrays(np.asarray(scale, "float64"), np.asarray(offset, "float64"))
    constant = np.abs(scale) >= _CONSTANT
    if (constant & (offset != 0)).any():
        return True  # what rounding adds would be multiplied so; of 0, it adds nothing
    known = (scale != 0) & ~constant
    if not known.any():
        return False
    middle, spread = -offset[known] / scale[known], 1.0 / np.abs(scale[known])
    low, high = (middle - _REACH * spread).min(), (middle + _REACH * spread).max()
    step = (max(high, 0.0) - min(low, 0.0)) / 255
    return bool(spread.min() < _FEWEST_NUMBERS * step)


def _comes_from_inputs(tensor):
    """Whether a float tensor is an input of the model, or inputs that were moved and joined."""
    producer = producer_of(tensor)
    if isinstance(producer, layers.InputLayer):
        return "float" in str(tensor.dtype)
    if not has_role(producer, MOVES, JOINS):
        return False
    return all(map(_comes_from_inputs, call_of(tensor).arguments.keras_tensors))


def rescaling(lowering, layer, inputs):
    """`Rescaling`, or `None`."""
    scale, offset = (np.asarray(ops.convert_to_numpy(value), "float64") for value in (layer.scale, layer.offset))
    return affine(lowering, layer, inputs, -1, scale, offset)


def add(lowering, operation, x1, x2):
    """A sum with a constant; `None` for one of two tensors."""
    return _with_constant(lowering, operation, x1, x2, lambda constant, first: (1.0, constant))


def subtract(lowering, operation, x1, x2):
    """A difference from or to a constant; `None` for one of two tensors."""
    return _with_constant(
        lowering, operation, x1, x2, lambda constant, first: (-1.0, constant) if first else (1.0, -constant)
    )


def multiply(lowering, operation, x1, x2):
    """A product with a constant; `None` for one of two tensors."""
    return _with_constant(lowering, operation, x1, x2, lambda constant, first: (constant, 0.0))


def divide(lowering, operation, x1, x2):
    """A division by a constant; by a tensor a product with its reciprocal where all is to be in integers, or `None`."""
    tensors = all(keras.utils.is_keras_tensor(each) and "float" in str(each.dtype) for each in (x1, x2))
    if tensors and not lowering.fast and id(operation) not in lowering.angles:
        return x1 * ops.reciprocal(x2)
    return _with_constant(lowering, operation, x1, x2, lambda constant, first: None if first else (1.0 / constant, 0.0))


@dataclasses.dataclass(frozen=True)
class Affine:
    """That a tensor is `source * scale + offset`; numbers, or one for each channel."""

    source: Any
    scale: Any
    offset: Any


def _with_constant(lowering, operation, x1, x2, function):
    first = not keras.utils.is_keras_tensor(x1)
    tensor, constant = (x2, x1) if first else (x1, x2)
    if not keras.utils.is_keras_tensor(tensor) or keras.utils.is_keras_tensor(constant):
        return None
    if "float" not in str(tensor.dtype) or id(operation) in lowering.angles:
        return None
    values = np.asarray(ops.convert_to_numpy(constant), "float64")
    with np.errstate(divide="ignore"):
        scale_offset = function(values, first)
    if scale_offset is None or not all(np.isfinite(each).all() for each in scale_offset):
        return None
    if values.ndim > len(tensor.shape):  # the result has axes that the tensor lacks
        return None
    scale, offset = scale_offset
    if values.size == 1:
        return _by_number(lowering, operation, tensor, float(np.max(scale)), float(np.max(offset)))
    if values.size == values.shape[-1] == tensor.shape[-1]:
        return affine(lowering, operation, tensor, -1, *(np.asarray(each).reshape(-1) for each in (scale, offset)))
    return _by_positions(lowering, tensor, scale, offset)


def _by_number(lowering, operation, tensor, scale, offset):
    """A product or a sum with one number is a step of its own; what stands behind it may take it over."""
    if scale == 1.0:
        outputs = tensor + offset
    elif offset == 0.0:
        outputs = tensor * scale
    else:
        outputs = operation(offset, tensor)
    _note(lowering, tensor, outputs, scale, offset)
    return outputs


def _by_numbers(lowering, given, inputs, scale, offset):
    """A product with one number, and a sum with another, of a tensor that was cast to floats if it was `given` so."""
    before = lowering.affine.get(id(given), (None,))[0]
    if before is not None and np.size(before.scale) == np.size(before.offset) == 1:
        inputs, scale, offset = before.source, before.scale * scale, before.offset * scale + offset
    outputs = inputs * scale if scale != 1.0 or offset == 0.0 else inputs
    outputs = outputs + offset if offset != 0.0 else outputs
    lowering.affine[id(outputs)] = Affine(inputs, scale, offset), outputs
    return outputs


def _by_positions(lowering, tensor, scale, offset):
    """A product or a sum with an array, rounded as files store it."""
    if np.size(scale) > 1:
        return tensor * rounded(lowering, scale)
    offset = rounded(lowering, offset)
    return tensor + offset if scale == 1.0 else ops.subtract(offset, tensor)


def rounded(lowering, values):
    """An array of constants, rounded to as many bits as activations have, as files store it."""
    values = np.asarray(ops.convert_to_numpy(values), "float32")
    if lowering.bits is None:
        return values
    grid = Grid(lowering.bits)
    scale = np.float32(grid.scale_of(np.abs(values).max()))
    return (grid.integers(values / scale) * scale).astype("float32")


def _note(lowering, tensor, outputs, scale, offset):
    """Notes what the outputs are of the tensor, or of the one that this is made of."""
    known = lowering.affine.get(id(tensor), (Affine(tensor, 1.0, 0.0),))[0]
    total = Affine(known.source, known.scale * scale, known.offset * scale + offset)
    lowering.affine[id(outputs)] = total, outputs  # the tensor is kept, so that its id stays its own
    return total


def affine(lowering, layer, inputs, axis, scale, offset, trained=False):
    """channel * scale + offset, as a depthwise convolution of one pixel, which has integer kernels everywhere.

    What is not trained, and is one number for all channels, takes a product and a sum, which are faster by far. So do
    images of one channel: training that is no more than training what reads it.
    """
    given = inputs
    if "float" not in str(inputs.dtype):
        inputs = ops.cast(inputs, layer.compute_dtype)
    single = inputs.shape[-1] == 1 and len(inputs.shape) > 2
    if (single or not trained) and np.size(scale) == np.size(offset) == 1:
        return _by_numbers(lowering, given, inputs, float(np.max(scale)), float(np.max(offset)))
    shape, rank = tuple(inputs.shape), len(inputs.shape)
    if axis % rank != rank - 1 or rank not in (2, 3, 4, 5) or shape[-1] is None:
        return None
    channels = shape[-1]
    if any(np.size(each) not in (1, channels) for each in (scale, offset)) or (rank in (3, 5) and None in shape[1:]):
        return None
    total = Affine(inputs, scale, offset)
    if not trained and id(given) in lowering.affine:
        before = lowering.affine[id(given)][0]
        total = Affine(before.source, before.scale * scale, before.offset * scale + offset)
    convolution = lowering.make(layer, "affine", lambda: layers.DepthwiseConv2D(1, trainable=trained, name=layer.name))
    outputs = pointwise(convolution, total.source)
    convolution.kernel.assign(np.broadcast_to(total.scale, channels).reshape(1, 1, channels, 1))
    convolution.bias.assign(np.broadcast_to(total.offset, channels))
    if not trained:
        lowering.affine[id(outputs)] = total, outputs
    return outputs


def pointwise(convolution, inputs):
    """The results of a depthwise convolution of one pixel on a tensor of rank 2, 3, 4 or 5."""
    shape, rank = tuple(inputs.shape), len(inputs.shape)
    if rank == 5:
        inputs = ops.reshape(inputs, (-1, *shape[2:]))
    elif rank < 4:
        inputs = ops.reshape(inputs, (-1, 1, 1, shape[-1]) if rank == 2 else (-1, 1, *shape[1:]))
    outputs = convolution(inputs)
    return outputs if rank == 4 else ops.reshape(outputs, (-1, *shape[1:]))
