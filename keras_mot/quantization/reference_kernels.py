"""Rounding as LiteRT's reference kernels do it: twice, where quantized models and XNNPACK's kernels round once.

A kernel brings a sum of products to the numbers of its result by a factor q * 2^-n, with q from 0.5 to 1 (Jacob et
al., 2018, arXiv:1712.05877, section 2.2). The reference kernels round after the multiplication by q, and again, half
away from zero, after the division by 2^n. So the second rounding goes up from half a step less half of 2^-n on: as if
the number had been moved away from zero by that, and then rounded once.
"""

import collections
import contextlib

import keras
import numpy as np
from keras import ops

from keras_mot.graph._functional import is_a
from keras_mot.layers._attach import numpy_value, transformed_weights
from keras_mot.layers.activation_quantizer import ActivationQuantizer, intercepted, is_quantized
from keras_mot.quantization._lowering import FUSED_ACTIVATIONS, activation_of
from keras_mot.quantization._placement import WEIGHTED, picks, quantizer_of
from keras_mot.transforms import FakeQuantize
from keras_mot.transforms.fake_quantize import with_scales_for_zeros

_MEANS = (keras.layers.GlobalAveragePooling1D, keras.layers.GlobalAveragePooling2D)
_CONSTANT_STEPS = 127


def reference_rounding(model: keras.Model) -> contextlib.AbstractContextManager:
    """Context in which a quantized model rounds activations as LiteRT's reference kernels do.

    Those of LiteRT for Microcontrollers are these. Outside, the model rounds as LiteRT's default kernels (XNNPACK) do,
    to which the difference is a step in up to one value of a hundred after a convolution, and one of eight after a mean
    over a feature map. Only 8-bit activations differ; with 16 bits the model rounds as always.

    Call the model itself: `predict` has been compiled outside.

    Args:
        model: a quantized model.

    Returns:
        A context manager.

    Raises:
        ValueError: if `model` is not quantized.

    Example:

    ```python
    with reference_rounding(quantized):
        outputs = quantized(x_test[:64], training=False)
    ```
    """
    if not isinstance(model, keras.Model) or not is_quantized(model):
        raise ValueError(f"`reference_rounding` expects a quantized model; received {model!r}.")
    return intercepted(ReferenceRounding(model))


class ReferenceRounding:
    """What takes the place of the quantizers of `model`, see `intercepted`."""

    def __init__(self, model):
        self._moves = collections.defaultdict(list)  # id of a quantizer -> that of each call, in steps
        self._calls = collections.Counter()
        for depth in sorted(model._nodes_by_depth, reverse=True):
            for node in model._nodes_by_depth[depth]:
                if isinstance(node.operation, ActivationQuantizer):
                    move = _move_before(node.arguments.keras_tensors[0], node.operation)
                    self._moves[id(node.operation)].append(move)

    def __call__(self, quantizer, inputs, averages):
        """The inputs, rounded; arguments as of `ActivationQuantizer.call`."""
        moves = self._moves[id(quantizer)]
        move = moves[self._calls[id(quantizer)] % len(moves)]
        self._calls[id(quantizer)] += 1
        if averages or not np.any(move):
            return quantizer.rounded(inputs, averages)
        step = np.float32(quantizer.parameters().scale)
        return quantizer.rounded(inputs + ops.sign(inputs) * (step * move).astype("float32"))


def _move_before(tensor, quantizer):
    if quantizer.bits > 8:
        return np.float32(0.0)
    return np.asarray(_move(tensor, quantizer.parameters().scale), "float32")


def _move(tensor, scale):
    """How far, in steps of the size `scale`, the two roundings of a tensor go beyond one; broadcastable to it."""
    operation = tensor._keras_history.operation
    inputs = operation._inbound_nodes[tensor._keras_history.node_index].arguments.keras_tensors
    kind = type(operation).__name__
    grids = [quantizer_of(item) for item in inputs]
    if kind == "Concatenate":
        return _side_by_side(operation, inputs, grids, scale)
    if (activation_of(operation) in FUSED_ACTIVATIONS or picks(operation)) and grids == [None]:
        return _move(inputs[0], scale)  # rounded in one step with what is before it
    if not grids or None in grids:
        return 0.0
    scales = [grid.parameters().scale for grid in grids]
    if is_a(operation, WEIGHTED):
        weights = _weight_scales(operation)
        return 0.0 if weights is None else _beyond(scales[0] * weights / scale)
    if is_a(operation, _MEANS) or kind == "Mean":
        count = np.prod(inputs[0].shape[1:]) / np.prod(tensor.shape[1:])
        _, exponent = np.frexp(scales[0] / scale)
        # The kernel divides by the count within the first rounding, and the next lower power of 2 within the second.
        return _of_bits(min(int(np.log2(count)), 31 + exponent) - exponent)
    if kind == "Multiply":
        if len(scales) == 1:
            scales.append(_largest_constant(operation, tensor) / _CONSTANT_STEPS)
        return _beyond(scales[0] * scales[1] / scale)
    if kind in ("Matmul", "Dot"):
        return _beyond(scales[0] * scales[-1] / scale)
    if kind == "Sum" or activation_of(operation) in FUSED_ACTIVATIONS:
        return _beyond(scales[0] / scale)
    return 0.0


def _side_by_side(operation, inputs, grids, scale):
    """Inputs of other numbers than the result's are converted first."""
    axis = operation.axis % len(inputs[0].shape)
    parts = []
    for item, grid in zip(inputs, grids, strict=True):
        move = _move(item, scale) if grid is None else _beyond(grid.parameters().scale / scale)
        if axis != len(item.shape) - 1 and np.ndim(move):
            return 0.0
        shape = [1] * len(item.shape)
        shape[axis] = item.shape[axis]
        parts.append(
            np.broadcast_to(np.reshape(move, (-1,) if np.ndim(move) else ()), (item.shape[axis],)).reshape(shape)
        )
    return np.concatenate(parts, axis)


def _beyond(factor):
    """The move for a kernel that multiplies by these positive factors."""
    _, exponent = np.frexp(factor)
    return _of_bits(-exponent)


def _of_bits(bits):
    return np.where(bits > 0, 2.0 ** (-np.maximum(bits, 0) - 1.0), 0.0)


def _largest_constant(operation, tensor):
    node = operation._inbound_nodes[tensor._keras_history.node_index]
    constants = [item for item in node.arguments._flat_arguments if not isinstance(item, keras.KerasTensor)]
    return max(np.abs(np.asarray(item, "float32")).max() for item in constants if item is not None)


def _weight_scales(layer):
    """The scale of each output channel, or the one of all; `None` if the layer's weights are in floats."""
    for weight in transformed_weights(layer):
        transform = weight.transform_of(FakeQuantize)
        if transform is not None:
            _, scale = transform.integers(numpy_value(weight.value_before(transform)))
            return with_scales_for_zeros(scale).reshape(-1)
    return None
