"""Choosing channels: those that are joined by the model have one score, and become zero together.

Li et al., 2017, "Pruning Filters for Efficient ConvNets" (arXiv:1608.08710) rank filters by their weights; Fang et al.,
2023, "DepGraph: Towards Any Structural Pruning" (arXiv:2301.12900) rank what must go together by one score. Michel et
al., 2019, "Are Sixteen Heads Really Better than One?" (arXiv:1905.10650) take whole heads out of attention.
"""

import math
from collections import Counter
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
from keras import layers

from keras_mot._arrays import numpy_value
from keras_mot._keras import attention_projection
from keras_mot._messages import describe
from keras_mot._numbers import is_number, is_whole
from keras_mot._warnings import warn
from keras_mot.graph.batch_norm import scale_and_offset
from keras_mot.graph.channel_groups import ChannelGroups
from keras_mot.graph.flat_copy import apart, check_plain, flat_and_origins, reasons_text
from keras_mot.graph.functional import is_a
from keras_mot.graph.kinds import is_kind
from keras_mot.layers import find_weights
from keras_mot.layers.selecting import check_each_matches, checked_overrides, matches_layer

_OUTPUTS = "the model returns them"
_LEFT = "`overrides` leave them alone"


def prune_channels(
    model: keras.Model,
    sparsity: float = 0.5,
    *,
    round_to: int = 1,
    overrides: Mapping[Any, float | None] | None = None,
) -> keras.Model:
    """Makes the channels of least weight zero, at once, so that `remove_pruned_channels` can cut all of them out.

    Channels that are joined, by adding branches or multiplying them, or by the equal groups of a convolution, are
    ranked by one score and go together: the mean square of their weights, batch normalization included, relative to the
    layer's. Biases, offsets and means of batch normalizations of these channels become zero with them, so that padded
    convolutions stop no channel from going. Whole heads of `MultiHeadAttention` are channels, too. Train the small
    model afterwards. To make channels zero little by little in training, use `prune_low_magnitude` with
    `granularity=Channel()`.

    Args:
        model: a trained model: sequential, functional, nested, or subclassed and traceable. It is not changed.
        sparsity: the share of the channels that become zero, of each layer or group of layers, from 0 to below 1.
        round_to: the number of channels that a layer keeps is a multiple of this, as far as it has so many: more
            channels stay. Kernels of many runtimes are fastest with multiples of 8. Heads are not rounded.
        overrides: dictionary from selectors (a layer, a layer class, a predicate, a regular expression on the path) to
            another share for some layers, or `None` to leave them alone; of layers that are joined, the least counts.

    Returns:
        A functional model of the same name, not compiled, without nested models, that shares no variables with `model`.

    Warns of layers that keep all their channels, with the reason.

    Raises:
        TypeError: if `model` is no Keras model.
        ValueError: if it is not built, carries transforms, or cannot be traced; if a number is out of range, or a
            selector matches no layer.

    Example:

    ```python
    thinner = prune_channels(model, 0.5, round_to=8, overrides={"stem": 0.25})
    small = remove_pruned_channels(thinner)
    small.compile("adam", "sparse_categorical_crossentropy")
    small.fit(x_train, y_train)
    ```
    """
    check_plain(model, "prune_channels")
    _check_share("sparsity", sparsity)
    if not is_whole(round_to) or round_to < 1:
        raise ValueError(f"`round_to` should be a positive integer; received {describe(round_to)}.")
    flat, origins = flat_and_origins(model)
    groups = ChannelGroups(flat)
    shares = _shares(groups, origins, sparsity, overrides)
    dead, reasons = set(), {}
    for family in _families(groups).values():
        share = min(shares[layer] for layer, _ in family[0])
        gone = _least(groups, family, share, round_to)
        dead.update(groups.slots.root(groups.makers[layer].slots[number]) for group in gone for layer, number in group)
    for call in groups.graph.calls:
        _make_zero(groups, call.operation, dead)
    for layer, channels in groups.makers.items():
        if shares[layer] and not any(groups.slots.root(slot) in dead for slot in channels.slots):
            few = f"{len(channels)} channels are too few to leave out some"
            why = next((groups.slots.reason(slot) for slot in channels.slots), None) or few
            reasons[origins.of(layer).name] = why
    for call in groups.graph.calls:
        if groups.plan(call.operation) is None and call.operation not in groups.makers and _has_kernel(call.operation):
            reasons[origins.of(call.operation).name] = f"there is no rule for {type(call.operation).__name__}"
    told = {name: why for name, why in reasons.items() if why != _OUTPUTS or not dead}
    if told and sparsity:
        warn(f"These layers keep all their channels: {reasons_text(told)}.")
    return apart(flat)


def _check_share(name, value):
    if not is_number(value) or not 0 <= value < 1:
        raise ValueError(f"`{name}` should be a share from 0 to below 1; received {describe(value)}.")


def _shares(groups, origins, sparsity, overrides):
    """The share of each layer that makes channels: what its first selector says, or `sparsity`; 0 to leave it alone."""
    overrides, makers = checked_overrides(overrides), list(groups.makers)
    for selector, value in overrides.items():
        if value is not None:
            _check_share(f"overrides[{selector!r}]", value)
    users = [origins.of(call.operation) for call in groups.graph.calls]
    users = [layer for layer in users if isinstance(layer, layers.Layer)]
    check_each_matches(overrides, matches_layer, users, [layer.name for layer in users])

    def share(layer):
        found = [value for selector, value in overrides.items() if matches_layer(selector, origins.of(layer))]
        return float((found[0] or 0.0) if found else sparsity)

    return {layer: share(layer) for layer in makers}


def _families(groups):
    """Groups of the same layers, with as many channels of each: what is ranked together."""
    found = {}
    for group in groups.groups():
        counts = Counter(id(layer) for layer, _ in group)
        found.setdefault(frozenset(counts.items()), []).append(group)
    return found


def _least(groups, family, share, round_to):
    """The groups of least score, so many that the number of those which stay is rounded up."""
    counts = Counter(layer for layer, _ in family[0])
    heads = all(is_a(layer, layers.MultiHeadAttention) for layer in counts)
    step = 1 if heads else max(round_to // math.gcd(round_to, count) for count in counts.values())
    kept = max(1, math.ceil(len(family) * (1 - share) - 1e-9))
    kept = min(len(family), -(-kept // step) * step)
    scores = {layer: _scores(groups, layer) for layer in counts}
    ranked = sorted(family, key=lambda group: sum(scores[layer][number] for layer, number in group))
    return ranked[: len(family) - kept]


def _scores(groups, layer):
    """The mean square of the weights of each channel of a layer, relative to that of the layer."""
    if is_a(layer, layers.MultiHeadAttention):
        value, output = (numpy_value(attention_projection(layer, part).kernel) for part in ("value", "output"))
        made = np.square(value).mean(axis=(0, 2)) * np.square(output).mean(axis=tuple(range(1, output.ndim)))
    else:
        (call,) = groups.graph.calls_of(layer)
        made = np.square(_kernel_by_channel(layer).astype("float64")).mean(axis=0)
        reader = groups.graph.sole_reader(call.outputs[0])
        if reader is not None and is_kind(reader.operation, "batch_normalization"):
            made = made * np.square(scale_and_offset(reader.operation)[0])
    return made / max(float(made.mean()), 1e-30)


def _kernel_by_channel(layer):
    """The kernel that makes the channels, as a matrix whose columns are these."""
    kernel = numpy_value(layer.pointwise_kernel if is_kind(layer, "separable_conv") else layer.kernel)
    if is_kind(layer, "conv_transpose"):
        kernel = kernel.swapaxes(-1, -2)
    return kernel.reshape(-1, kernel.shape[-1])


def _make_zero(groups, operation, dead):
    """Makes the weights of dead channels zero, so that these are zero wherever they pass."""
    if operation in groups.makers:
        gone = np.array([groups.slots.root(slot) in dead for slot in groups.makers[operation].slots])
    else:
        plan = groups.plan(operation)
        gone = np.array([groups.slots.root(slot) in dead for slot in plan.outputs.slots] if plan else [], bool)
    if not gone.any():
        return
    if is_a(operation, layers.MultiHeadAttention):
        for part in ("query", "key", "value", "output"):
            projection = attention_projection(operation, part)
            _assign_zero(projection.kernel, (gone,) if part == "output" else (slice(None), gone))
            if part != "output" and projection.bias is not None:
                _assign_zero(projection.bias, (gone,))
    elif is_kind(operation, "batch_normalization"):
        for weight in (operation.beta, operation.moving_mean):
            if weight is not None:
                _assign_zero(weight, (gone,))
    elif operation in groups.makers:
        transposed = is_kind(operation, "conv_transpose")
        kernel = operation.pointwise_kernel if is_kind(operation, "separable_conv") else operation.kernel
        _assign_zero(kernel, (..., gone, slice(None)) if transposed else (..., gone))
    bias = getattr(operation, "bias", None)
    if bias is not None and not is_a(operation, layers.MultiHeadAttention):
        _assign_zero(bias, (gone,))


def _assign_zero(variable, places):
    values = np.array(numpy_value(variable))
    values[places] = 0
    variable.assign(values)


def _has_kernel(operation):
    return isinstance(operation, layers.Layer) and bool(find_weights(operation)[0])
