"""Removing pruned channels: a smaller model of ordinary layers that computes the same.

Li et al., 2017, "Pruning Filters for Efficient ConvNets" (arXiv:1608.08710), remove filters and with them the input
channels of the next layers. Here it is read off the graph which channels are constant wherever they are used, so that
merges, depthwise convolutions, batch normalization and flattening are passed without a rule for each architecture.
"""

import keras
import numpy as np
from keras import layers

from keras_mot._messages import describe
from keras_mot._warnings import warn
from keras_mot.graph import rewrite, trace
from keras_mot.graph.channel_groups import ChannelGroups
from keras_mot.graph.flat_copy import apart, check_plain, flat_and_origins, reasons_text, without_random_numbers
from keras_mot.graph.functional import is_a
from keras_mot.graph.model_graph import Graph
from keras_mot.graph.rewrite import flatten_with_origins
from keras_mot.layers import find_weights
from keras_mot.sparsity._fewer_channels import fewer_channels, fewer_heads


def remove_pruned_channels(model: keras.Model, exact: bool = True) -> keras.Model:
    """A smaller model without the channels that are constant, such as those that pruning has made zero.

    A channel goes where its value does not depend on the input wherever it is used: because all weights of the
    channel are zero, or of those that read it. What it adds to later layers goes into their biases. Channels that
    are joined, by adding two branches or by multiplying them, go together or not at all. The inputs and outputs of the
    model keep their shapes, and each layer at least one channel. Of `MultiHeadAttention`, heads without weights go.
    Other layers without a rule here (recurrent ones, layer normalization, which looks at all channels together, user's
    own) keep all their channels.

    Args:
        model: a trained, stripped model: sequential, functional, nested, or subclassed and traceable.
        exact: whether the new model must compute what `model` does, up to rounding. A constant that is not zero, as a
            batch normalization makes it of a pruned channel, is none for a padded convolution, which sees zeros beyond
            the border: such channels stay, with a warning. With False they go too (but for transposed convolutions),
            and results differ within a kernel's reach of the border; measure, or train on for a little.

    Returns:
        A functional model of the same name, not compiled, without nested models, that shares no variables with `model`.
        Layers keep their names.

    Warns of constant channels that stay, with the reason, and if nothing is removed.

    Raises:
        TypeError: if `model` is no Keras model.
        ValueError: if it is not built, carries masks or other transforms, or cannot be traced.

    Example:

    ```python
    pruned = prune_low_magnitude(model, schedule, granularity=Channel(), overrides={"classifier": None})
    pruned.compile("adam", "sparse_categorical_crossentropy")
    pruned.fit(x_train, y_train)
    small = remove_pruned_channels(strip_pruning(pruned))
    ```
    """
    if not isinstance(exact, bool):
        raise TypeError(f"`exact` should be True or False; received {describe(exact)}.")
    check_plain(model, "remove_pruned_channels")
    model, _ = flat_and_origins(model)
    smaller = False
    while True:
        channels = _Removal(model, exact)
        if not channels.removed:
            break
        model, smaller = rewrite(model, channels.call), True
    if channels.stuck:
        warn(f"Channels that are constant stay: {reasons_text(channels.stuck)}.")
    elif not smaller and not channels.blocked:
        warn(
            f"Nothing is removed: no channel of '{model.name}' is constant. Make whole channels zero before, by "
            "`prune_channels`, or by `prune_low_magnitude` with `granularity=Channel()`."
        )
    if channels.blocked:
        names = ", ".join(f"{count} before '{layer.name}'" for layer, count in channels.blocked.items())
        warn(
            f"Pruned channels stay: {names}. Their constants are not zero, and a padded or transposed convolution sees "
            "zeros beside them. `exact=False` removes those before padded ones, and changes results near the border."
        )
    return apart(model)


def layers_before_outputs(model: keras.Model) -> list[keras.layers.Layer]:
    """The layers with kernels whose channels the model's outputs are, which pruning whole channels should leave alone.

    Args:
        model: a built model whose graph can be read.

    Returns:
        Layers of `model`, or of the models nested in it.
    """
    flat, origins = flatten_with_origins(trace(model))
    graph, found = Graph(flat), {}
    waiting = [graph.producer(tensor) for tensor in graph.outputs]
    while waiting:
        call = waiting.pop()
        if call is None:  # an input
            continue
        if isinstance(call.operation, layers.Layer) and find_weights(call.operation)[0]:
            found[id(call.operation)] = origins.of(call.operation)
        else:
            waiting.extend(graph.producer(tensor) for tensor in call.inputs)
    return list(found.values())


_LAST = "a layer keeps one channel at least"


class _Removal:
    """Removes the channels of a flat model that are constant wherever they are read.

    Attributes:
        removed: how many channels can go, counted in the layers that make them.
        blocked: dictionary from layers to how many constants stay for the border's sake alone.
        stuck: dictionary from names of layers to why some of their channels stay, which are constant all the same.
    """

    def __init__(self, model, exact):
        self._groups = ChannelGroups(model, exact)
        self._groups.keep_read()
        self.blocked = self._groups.blocked
        self._attention = [layer for layer in self._groups.makers if is_a(layer, layers.MultiHeadAttention)]
        self._made = {}  # id of a layer -> the one in its place; one without weights may be called several times
        for channels in self._groups.makers.values():
            if not self._stay(channels).any():
                self._groups.slots.keep(channels.slots[:1], _LAST)
        self.removed = sum(int((~self._stay(channels)).sum()) for channels in self._groups.makers.values())

        self.stuck = {}
        for layer, channels in self._groups.makers.items():
            for slot in channels.slots[np.isfinite(channels.constants)]:
                reason = self._groups.slots.reason(slot)
                if reason is not None and reason != _LAST and not reason.endswith(" reads them"):
                    self.stuck[layer.name] = reason

    def _stay(self, channels):
        return self._groups.slots.stay(channels.slots)

    def call(self, operation, *args, **kwargs):
        """Calls an operation on new arguments, or in its place a layer with fewer channels: for `rewrite`."""
        if operation in self._attention:
            return self._with_fewer_heads(operation, args, kwargs)
        plan = self._groups.plan(operation)
        if plan is None or not isinstance(operation, layers.Layer):
            return operation(*args, **kwargs)
        inputs, outputs = self._stay(plan.inputs), self._stay(plan.outputs)
        if inputs.all() and outputs.all():
            return operation(*args, **kwargs)
        config, weights = fewer_channels(operation, inputs, outputs, plan.inputs.constants, plan.outputs.axis)
        if id(operation) not in self._made:
            self._made[id(operation)] = type(operation).from_config({**operation.get_config(), **config})
        layer = self._made[id(operation)]
        with without_random_numbers(layer):
            result = layer(*args, **kwargs)
        for name, value in weights.items():
            getattr(layer, name).assign(value)
        return result

    def _with_fewer_heads(self, operation, args, kwargs):
        heads = self._stay(self._groups.makers[operation])
        if heads.all():
            return operation(*args, **kwargs)
        config, weights = fewer_heads(operation, heads)
        layer = type(operation).from_config({**operation.get_config(), **config})
        result = layer(*args, **kwargs)
        for variable, value in weights(layer):
            variable.assign(value)
        return result
