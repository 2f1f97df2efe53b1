"""Breaks down what multiplies each channel and adds to it: normalization by fixed statistics, and rescaling."""

import keras
import numpy as np
from keras import layers, ops

from keras_mot._keras import call_of, keep_axis, producer_of
from keras_mot.graph.batch_norm import scale_and_offset
from keras_mot.graph.kinds import JOINS, MOVES, has_role

# Of an input with one scale for all features, a feature keeps so many numbers to its standard deviation, or it is
# normalized in floats. Images have 40 and more; with 8, the noise of rounding is 29 dB below the feature.
_FEWEST_NUMBERS = 8
_REACH = 3.0  # standard deviations, to either side
_CONSTANT = 1e6  # a feature is, that is multiplied by this and more


def batch_norm(lowering, layer, inputs, mask=None):  # which says what statistics are taken of, in training
    """Batch normalization in inference, or `None`; `None` also for features of an input that differ much in size."""
    factors = scale_and_offset(layer)
    return None if _loses_features(inputs, *factors) else _affine(lowering, layer, inputs, layer.axis, *factors)


def normalization(lowering, layer, inputs):
    """`Normalization` of one axis, or `None`; `None` also for features of an input that differ much in size."""
    axes = keep_axis(layer)
    if layer.invert or len(axes) != 1:
        return None
    mean, variance = (ops.convert_to_numpy(value).reshape(-1) for value in (layer.mean, layer.variance))
    scale = 1.0 / np.maximum(np.sqrt(variance.astype("float64")), keras.config.epsilon())
    if _loses_features(inputs, scale, -mean * scale):
        return None
    return _affine(lowering, layer, inputs, axes[0], scale, -mean * scale)


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
    return _affine(lowering, layer, inputs, -1, scale, offset)


def _affine(lowering, layer, inputs, axis, scale, offset):
    """channel * scale + offset, as a depthwise convolution of one pixel, which has integer kernels everywhere."""
    if "float" not in str(inputs.dtype):
        inputs = ops.cast(inputs, layer.compute_dtype)
    shape, rank = tuple(inputs.shape), len(inputs.shape)
    if axis % rank != rank - 1 or rank not in (2, 3, 4) or shape[-1] is None:
        return None
    channels = shape[-1]
    if scale.size not in (1, channels) or offset.size not in (1, channels):
        return None
    trained = layer.trainable and isinstance(layer, layers.BatchNormalization)
    convolution = lowering.make(layer, "affine", lambda: layers.DepthwiseConv2D(1, trainable=trained, name=layer.name))
    if rank < 4:
        if None in shape[1:]:
            return None
        inputs = ops.reshape(inputs, (-1, 1, 1, channels) if rank == 2 else (-1, 1, *shape[1:]))
    outputs = convolution(inputs)
    convolution.kernel.assign(np.broadcast_to(scale, channels).reshape(1, 1, channels, 1))
    convolution.bias.assign(np.broadcast_to(offset, channels))
    return outputs if rank == 4 else ops.reshape(outputs, (-1, *shape[1:]))
