"""Breaks down activations that no runtime has a kernel for, as layers and as operations alike."""

import numpy as np
from keras import layers, ops

from keras_mot._keras import call_of
from keras_mot.quantization.lowering.affine import pointwise


def silu(lowering, operation, inputs=None, x=None):
    """x * sigmoid(x); layers call their argument `inputs`, operations `x`."""
    inputs = x if inputs is None else inputs
    name = operation.name
    gate = lowering.make(operation, "sigmoid", lambda: layers.Activation("sigmoid", name=f"{name}_sigmoid"))
    return _gated(lowering, operation, inputs, gate(inputs))


def hard_sigmoid(lowering, operation, inputs=None, x=None):
    """relu6(x + 3) / 6."""
    inputs = x if inputs is None else inputs
    relu6 = lowering.make(operation, "relu6", lambda: layers.ReLU(6.0, name=f"{operation.name}_relu6"))
    return relu6(inputs + 3.0) * (1.0 / 6.0)


def hard_silu(lowering, operation, inputs=None, x=None):
    """x * hard_sigmoid(x)."""
    inputs = x if inputs is None else inputs
    return _gated(lowering, operation, inputs, hard_sigmoid(lowering, operation, inputs))


def hard_tanh(lowering, operation, inputs=None, x=None):
    """x, cut off at -1 and 1."""
    return ops.clip(x if inputs is None else inputs, -1.0, 1.0)


def prelu(lowering, layer, inputs):
    """max(x, slope * x) where no slope is above 1, else relu(x) + slope * min(x, 0); `None` for slopes by positions.

    The kernel for it takes an element at a time. A depthwise convolution of one pixel multiplies by the slopes, and the
    larger of two numbers is taken at once for many.
    """
    channels, slopes = inputs.shape[-1], np.array(ops.convert_to_numpy(layer.alpha))
    if len(inputs.shape) not in (2, 3, 4) or (len(inputs.shape) == 3 and None in inputs.shape[1:]):
        return None
    if slopes.size != 1 and not slopes.size == slopes.shape[-1] == channels:
        return None
    convolution = lowering.make(
        layer,
        "slopes",
        lambda: layers.DepthwiseConv2D(
            1, use_bias=False, trainable=layer.trainable, name=f"{layer.name}_slopes", dtype=layer.dtype_policy
        ),
    )
    steep = (slopes > 1.0).any()
    slanted = pointwise(convolution, ops.minimum(inputs, 0.0) if steep else inputs)
    lowering.move(layer.alpha, convolution.kernel, lambda values: _by_channels(values, channels))
    if steep:
        last = lowering.make(layer, "sum", lambda: layers.Add(name=layer.name))
        return last([ops.maximum(inputs, 0.0), slanted])
    last = lowering.make(layer, "larger", lambda: layers.Maximum(name=layer.name))
    outputs = last([inputs, slanted])
    # The convolution gives the numbers of the result at once.
    key = "prelu", id(last)
    lowering.join(key, slanted if len(inputs.shape) == 4 else call_of(slanted).arguments.keras_tensors[0])
    lowering.join(key, outputs)
    return outputs


def _by_channels(values, channels):
    return np.broadcast_to(values.reshape(-1), channels).reshape(1, 1, channels, 1)


def relu_form(lowering, layer, inputs):
    """A ReLU with a greatest number of its own, cut off there; `None` for one with a threshold as well, or a slope."""
    if layer.threshold or layer.negative_slope:
        return None
    return ops.clip(inputs, 0.0, float(layer.max_value))


def _gated(lowering, operation, inputs, gate):
    multiply = lowering.make(operation, "gated", lambda: layers.Multiply(name=f"{operation.name}_gated"))
    return multiply([inputs, gate])
