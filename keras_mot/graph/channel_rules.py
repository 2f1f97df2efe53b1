"""What operations do to channels: which of their outputs are made of which inputs, and what becomes of constants.

A rule is a function of the `ChannelGroups` that are being found, a `Call` and the `Channels` of its inputs. It returns
the `Channels` of its output, or `None` if it cannot say.
"""

import math
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import layers, ops

from keras_mot._arrays import numpy_value
from keras_mot._keras import attention_projection
from keras_mot.graph import kinds
from keras_mot.graph.batch_norm import scale_and_offset
from keras_mot.graph.channel_slots import STAYS, Channels, named_axis
from keras_mot.graph.functional import is_a, keras_class
from keras_mot.graph.kinds import is_kind, kind_of, kind_of_function
from keras_mot.graph.model_graph import Graph


def channel_rule(graph: Graph, operation: Any) -> Callable | None:
    """The rule for an operation, or `None` if all that it reads and makes has to stay.

    Args:
        graph: that of the model: layers with weights must be called in it once.
        operation: a layer, or operation of `keras.ops`.
    """
    if getattr(operation, "quantization_mode", None) or getattr(operation, "lora_enabled", False):
        return None
    # A layer that is called twice cannot be given fewer channels in one of the calls.
    sized = getattr(operation, "weights", ()) or is_a(operation, layers.Reshape)
    if sized and len(graph.calls_of(operation)) > 1:
        return None
    if is_a(operation, layers.MultiHeadAttention):
        return _attention
    if is_a(operation, layers.ReLU):  # in all its forms
        return _activation
    kind = kind_of(operation)
    if kind is None:
        return None
    if kind.role == kinds.WEIGHTED:
        known = _depthwise if kind.name == "depthwise_conv" else _weighted
        if getattr(operation, "groups", 1) > 1:
            known = _grouped if kind.name == "conv" else None
        return known if keras_class(operation) is not None else None
    if kind.name in _BY_NAME:
        return _BY_NAME[kind.name]
    if kind.role == kinds.MERGES:
        return _merge if kind.function is not None else None
    if not kind.channels_stay:
        return None
    if kind.role == kinds.ELEMENTWISE:
        return _activation if len(_parameters(graph, operation)) == 1 else None
    if kind.name == "reshape":
        return _reshape
    if kind.role in _BY_ROLE:
        return _BY_ROLE[kind.role]
    return _passing if kind.keeps_constants else None


def channel_axis(call: Any, known: list[Channels]) -> int:
    """The axis of the channels that the rule of an operation follows, as `Channels` names it.

    Args:
        call: a `Call` of an operation with a rule.
        known: the channels of its inputs, which may be those of other axes.
    """
    operation, rank = call.operation, len(call.inputs[0].shape)
    if getattr(operation, "data_format", None) == "channels_first":
        return named_axis(1, rank)
    if is_kind(operation, "batch_normalization", "concatenate"):
        return named_axis(operation.axis, rank)
    by_element = kinds.has_role(operation, kinds.ACTIVATION, kinds.ELEMENTWISE, kinds.MERGES)
    anywhere = by_element or is_kind(operation, "identity", "transpose", "reshape") or is_a(operation, layers.ReLU)
    if not anywhere or len({len(tensor.shape) for tensor in call.inputs}) > 1:
        return -1
    return next((channels.axis for channels in known if (channels.slots != STAYS).any()), known[0].axis)


def _parameters(graph, operation):
    """What the calls of an operation are given: arguments by their places and by names, but for what is left out."""
    calls = graph.calls_of(operation)
    return max(((*call.args, *call.kwargs.values()) for call in calls), key=len)


def is_channelwise(function: Callable) -> bool:
    """Whether the activation function of a layer is one that looks at each channel by itself; softmax is none."""
    kind = kind_of_function(function)
    return kind is not None and kind.channels_stay


def sums_by_channel(layer: keras.layers.Layer) -> tuple[np.ndarray, np.ndarray]:
    """What a layer with a kernel adds up of constant inputs.

    Returns:
        Two arrays of shape (inputs, outputs): the sums of the kernel over all positions, float64; and where any of it
        is not zero.
    """
    if is_kind(layer, "separable_conv"):
        depthwise = _positions_first(layer.depthwise_kernel)
        pointwise = numpy_value(layer.pointwise_kernel).astype("float64")
        pointwise = pointwise.reshape(*depthwise.shape[1:], -1)
        sums = np.einsum("pim,imo->io", depthwise, pointwise)
        return sums, (depthwise.any(axis=0)[..., None] & (pointwise != 0)).any(axis=1)
    kernel = _positions_first(layer.kernel)
    if is_kind(layer, "conv_transpose"):
        kernel = kernel.swapaxes(-1, -2)
    return kernel.sum(axis=0), kernel.any(axis=0)


def bias_values(layer: keras.layers.Layer) -> np.ndarray | float:
    """The bias of a layer, float64; 0 if it has none."""
    return numpy_value(layer.bias).astype("float64") if layer.use_bias else 0.0


def _positions_first(kernel):
    kernel = numpy_value(kernel).astype("float64")
    return kernel.reshape(-1, *kernel.shape[-2:])


def _weighted(groups, call, known):
    layer, (inputs,) = call.operation, known
    sums, read = sums_by_channel(layer)
    usable = _usable(groups, layer, inputs.constants, read.any(axis=1))
    groups.note_read(inputs.slots[read.any(axis=1) & ~usable], layer)
    if not is_channelwise(layer.activation):
        return groups.that_stay(call.outputs[0], layer, "has an activation that looks at all of them together")
    values = np.where(usable, inputs.constants, 0.0) @ sums + bias_values(layer)
    values[(read & ~usable[:, None]).any(axis=0)] = np.nan
    return groups.make(layer, _of_constants(layer.activation, values), inputs.axis)


def _grouped(groups, call, known):
    """A convolution in groups: of each group, the channels of one number go together, so that the groups stay equal."""
    layer, (inputs,) = call.operation, known
    if not is_channelwise(layer.activation):
        return None
    count = layer.groups
    kernel = _positions_first(layer.kernel)
    kernel = kernel.reshape(*kernel.shape[:2], count, -1).transpose(2, 0, 1, 3)  # group, position, input, output
    slots, constants = (each.reshape(count, -1) for each in (inputs.slots, inputs.constants))
    read = kernel.any(axis=1)
    usable = _usable(groups, layer, inputs.constants, read.any(axis=2).reshape(-1)).reshape(count, -1)
    groups.note_read(slots[read.any(axis=2) & ~usable], layer)
    values = np.einsum("gi,gpio->go", np.where(usable, constants, 0.0), kernel).reshape(-1) + bias_values(layer)
    values[(read & ~usable[..., None]).any(axis=1).reshape(-1)] = np.nan
    result = groups.make(layer, _of_constants(layer.activation, values), inputs.axis)
    for each in (slots, result.slots.reshape(count, -1)):
        for row in each[1:]:
            groups.slots.join(each[0], row)
    return result


def _attention(groups, call, known):
    """Attention has no rule for channels; its heads are channels of its own, which are 0 where nothing reads them."""
    layer = call.operation
    value, output = (attention_projection(layer, part) for part in ("value", "output"))
    made = numpy_value(value.kernel).any(axis=(0, 2)) | (value.bias is not None and numpy_value(value.bias).any(axis=1))
    alive = made & numpy_value(output.kernel).any(axis=tuple(range(1, output.kernel.ndim)))
    heads = groups.make(layer, np.where(alive, np.nan, 0.0))
    groups.note_read(heads.slots[alive], layer)


def _depthwise(groups, call, known):
    layer, (inputs,) = call.operation, known
    if not is_channelwise(layer.activation):
        return None
    kernel = _positions_first(layer.kernel)
    usable = _usable(groups, layer, inputs.constants, kernel.any(axis=(0, 2)))
    values = kernel.sum(axis=0) * np.where(usable, inputs.constants, 0.0)[:, None]
    values[kernel.any(axis=0) & ~usable[:, None]] = np.nan
    values = _of_constants(layer.activation, values.reshape(-1) + bias_values(layer))
    return inputs.like(np.repeat(inputs.slots, kernel.shape[-1]), values)


def _usable(groups, layer, constants, read):
    """Which inputs of a layer are constants that its bias can take over."""
    known = np.isfinite(constants)
    if _sees_no_border(layer):
        return known
    blocked = known & (constants != 0) & read
    if groups.exact or is_kind(layer, "conv_transpose"):
        if blocked.any():
            groups.blocked[layer] = int(blocked.sum())
        return known & ~blocked
    return known


def _sees_no_border(layer):
    """Whether every output of a layer sums over as many inputs, none of them beyond the border."""
    if is_kind(layer, "dense"):
        return True
    if is_kind(layer, "conv_transpose"):
        return False
    return layer.padding == "valid" or set(layer.kernel_size) == {1}


def _batch_norm(groups, call, known):
    layer, inputs = call.operation, known[0]
    scale, offset = scale_and_offset(layer)
    return inputs.like(inputs.slots, np.where(scale == 0, 0.0, inputs.constants) * scale + offset)


def _passing(groups, call, known):
    return known[0]


def _padding(groups, call, known):
    (inputs,) = known
    constants = np.where(inputs.constants == 0, 0.0, np.nan) if groups.exact else inputs.constants
    return inputs.like(inputs.slots, constants)


def _activation(groups, call, known):
    if len(known) != 1:
        return None
    (inputs,) = known
    return inputs.like(inputs.slots, _of_constants(call.operation.call, inputs.constants))


def _of_constants(function, constants):
    """What a function of each element makes of constants."""
    known = np.isfinite(constants)
    inputs = ops.convert_to_tensor(np.where(known, constants, 0.0).astype("float32")[None])
    return np.where(known, ops.convert_to_numpy(function(inputs))[0], np.nan)


def _merge(groups, call, known):
    found, parts = iter(known), keras.tree.flatten(call.args)
    operands = [next(found) if isinstance(part, keras.KerasTensor) else part for part in parts]
    numbers = [part for part in operands if not isinstance(part, Channels)]
    if any(not isinstance(part, int | float) for part in numbers) or len(parts) != len(known) + len(numbers):
        return None
    if len({len(channels) for channels in known}) != 1:
        return None  # one channel beside many
    function = kind_of(call.operation).function
    for channels in known[1:]:
        groups.slots.join(known[0].slots, channels.slots)
    first, *others = (part.constants if isinstance(part, Channels) else part for part in operands)
    for other in others:
        product = function(first, other)
        first = np.where((first == 0) | (other == 0), 0.0, product) if function is np.multiply else product
    return known[0].like(known[0].slots, np.asarray(first, "float64"))


def _concatenate(groups, call, known):
    return known[0].like(*(np.concatenate([getattr(each, name) for each in known]) for name in ("slots", "constants")))


def _reshape(groups, call, known):
    (inputs,) = known
    before, after = call.inputs[0].shape[1:], call.outputs[0].shape[1:]
    if after[-1] == before[-1] and inputs.axis == -1:
        return inputs
    if len(before) == 1 and after == (*before, *[1] * (len(after) - 1)):
        return inputs.of_axis(1, 1 + len(after))
    if len(after) > 1 or None in before:
        return None
    axis = inputs.axis % (1 + len(before))
    outside, inside = math.prod(before[: axis - 1]), math.prod(before[axis:])
    if getattr(call.operation, "data_format", None) == "channels_first":  # which flattens with the channels last
        outside, inside = inside, 1
    return Channels(*(np.tile(np.repeat(each, inside), outside) for each in (inputs.slots, inputs.constants)))


def _prelu(groups, call, known):
    (inputs,), layer = known, call.operation
    slopes = np.moveaxis(numpy_value(layer.alpha).astype("float64"), inputs.axis - (inputs.axis > 0), -1)
    slopes = slopes.reshape(-1, slopes.shape[-1])
    slopes = np.where((slopes == slopes[0]).all(axis=0), slopes[0], np.nan)  # others differ by position
    negative = inputs.constants < 0
    return inputs.like(inputs.slots, np.where(negative, slopes * inputs.constants, inputs.constants))


def _transpose(groups, call, known):
    """What moves axes; none takes the place of the batch's."""
    layer, rank = call.operation, len(call.outputs[0].shape)
    order = np.arange(rank)
    if is_a(layer, layers.Permute):
        order = np.array((0, *layer.dims))
    elif hasattr(layer, "axis1"):
        order[[layer.axis1, layer.axis2]] = order[[layer.axis2, layer.axis1]]
    elif hasattr(layer, "source"):
        shape = np.moveaxis(np.empty(1 + order, "bool"), layer.source, layer.destination).shape
        order = np.array(shape) - 1
    else:
        order = order[::-1] if layer.axes is None else np.array(layer.axes) % rank
    place = int(np.argmax(order == known[0].axis % rank))
    return known[0].of_axis(place, rank) if place else None


_BY_NAME = {
    "batch_normalization": _batch_norm,
    "concatenate": _concatenate,
    "prelu": _prelu,
    "transpose": _transpose,
}
_BY_ROLE = {kinds.PADS: _padding, kinds.ACTIVATION: _activation}
