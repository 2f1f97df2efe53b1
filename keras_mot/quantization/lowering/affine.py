"""Breaks down what multiplies each channel and adds to it: normalization by fixed statistics, and rescaling."""

import keras
import numpy as np
from keras import layers, ops

from keras_mot._keras import keep_axis
from keras_mot.graph.batch_norm import scale_and_offset


def batch_norm(lowering, layer, inputs, mask=None):  # which says what statistics are taken of, in training
    """Batch normalization in inference, or `None`."""
    return _affine(lowering, layer, inputs, layer.axis, *scale_and_offset(layer))


def normalization(lowering, layer, inputs):
    """`Normalization` of one axis, or `None`."""
    axes = keep_axis(layer)
    if layer.invert or len(axes) != 1:
        return None
    mean, variance = (ops.convert_to_numpy(value).reshape(-1) for value in (layer.mean, layer.variance))
    scale = 1.0 / np.maximum(np.sqrt(variance.astype("float64")), keras.config.epsilon())
    return _affine(lowering, layer, inputs, axes[0], scale, -mean * scale)


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
