"""Removing pruned channels: a smaller model of ordinary layers that computes the same.

Li et al., 2017, "Pruning Filters for Efficient ConvNets" (arXiv:1608.08710), remove filters and with them the input
channels of the next layers. Here it is read off the graph which channels are constant wherever they are used, so that
merges, depthwise convolutions, batch normalization and flattening are passed without a rule for each architecture.
"""

import contextlib
import warnings

import keras
import numpy as np
from keras import layers

from keras_mot._arrays import numpy_value
from keras_mot._messages import describe
from keras_mot.graph import flatten, rewrite, trace
from keras_mot.graph.channel_groups import ChannelGroups
from keras_mot.graph.channel_rules import bias_values, sums_by_channel
from keras_mot.graph.functional import is_a
from keras_mot.graph.kinds import WEIGHTED, has_role, is_kind
from keras_mot.graph.model_graph import Graph
from keras_mot.graph.origins import copy_with_origins
from keras_mot.graph.rewrite import flatten_with_origins
from keras_mot.layers import find_weights, transformed_weights
from keras_mot.layers.finding import require_built


def remove_pruned_channels(model: keras.Model, exact: bool = True) -> keras.Model:
    """A smaller model without the channels that are constant, such as those that pruning has made zero.

    A channel goes where its value does not depend on the input wherever it is used: because all weights of the
    channel are zero, or of those that read it. What it adds to later layers goes into their biases. Channels that
    are joined, by adding two branches or by multiplying them, go together or not at all. The inputs and outputs of the
    model keep their shapes, and each layer at least one channel. Layers without a rule here (recurrent ones, attention,
    layer normalization, user's own) keep all their channels.

    Args:
        model: a trained, stripped model: sequential, functional, nested, or subclassed and traceable.
        exact: whether the new model must compute what `model` does, up to rounding. A constant that is not zero, as a
            batch normalization makes it of a pruned channel, is none for a padded convolution, which sees zeros beyond
            the border: such channels stay, with a warning. With False they go too (but for transposed convolutions),
            and results differ within a kernel's reach of the border; measure, or train on for a little.

    Returns:
        A functional model of the same name, not compiled, without nested models, that shares no variables with `model`.
        Layers keep their names.

    Raises:
        TypeError: if `model` is no Keras model.
        ValueError: if it is not built, carries masks or other transforms, or cannot be traced.

    Example:

    ```python
    pruned = prune_low_magnitude(model, schedule, granularity=Channel(), overrides={"classifier": None})
    ...  # train
    small = remove_pruned_channels(strip_pruning(pruned))
    ```
    """
    if not isinstance(model, keras.Model):
        raise TypeError(f"`remove_pruned_channels` expects a Keras model; received {describe(model)}.")
    if not isinstance(exact, bool):
        raise TypeError(f"`exact` should be True or False; received {describe(exact)}.")
    require_built(model, "remove_pruned_channels")
    if transformed_weights(model):
        raise ValueError(
            f"'{model.name}' carries weight transforms: strip it first, as by `keras_mot.sparsity.strip_pruning`."
        )
    model = flatten(trace(model))
    while True:
        channels = _Removal(model, exact)
        if not channels.removed:
            break
        model = rewrite(model, channels.call)
    if channels.blocked:
        names = ", ".join(f"{count} before '{layer.name}'" for layer, count in channels.blocked.items())
        warnings.warn(
            f"Pruned channels stay: {names}. Their constants are not zero, and a padded or transposed convolution sees "
            "zeros beside them. `exact=False` removes those before padded ones, and changes results near the border.",
            stacklevel=2,
        )
    return _apart(model)


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


class _Removal:
    """Removes the channels of a flat model that are constant wherever they are read.

    Attributes:
        removed: how many channels can go, counted in the layers that make them.
        blocked: dictionary from layers to how many constants stay for the border's sake alone.
    """

    def __init__(self, model, exact):
        self._groups = ChannelGroups(model, exact)
        self._groups.keep_read()
        self.blocked = self._groups.blocked
        self._made = {}  # id of a layer -> the one in its place; one without weights may be called several times
        for channels in self._groups.makers.values():
            if not self._stay(channels).any():
                self._groups.slots.keep(channels.slots[:1])
        self.removed = sum(int((~self._stay(channels)).sum()) for channels in self._groups.makers.values())

    def _stay(self, channels):
        return self._groups.slots.stay(channels.slots)

    def call(self, operation, *args, **kwargs):
        """Calls an operation on new arguments, or in its place a layer with fewer channels: for `rewrite`."""
        plan = self._groups.plan(operation)
        if plan is None or not isinstance(operation, layers.Layer):
            return operation(*args, **kwargs)
        inputs, outputs = self._stay(plan.inputs), self._stay(plan.outputs)
        if inputs.all() and outputs.all():
            return operation(*args, **kwargs)
        config, weights = _smaller(operation, inputs, outputs, plan.inputs.constants)
        if id(operation) not in self._made:
            self._made[id(operation)] = type(operation).from_config({**operation.get_config(), **config})
        layer = self._made[id(operation)]
        with _without_random_numbers(layer):
            result = layer(*args, **kwargs)
        for name, value in weights.items():
            getattr(layer, name).assign(value)
        return result


def _smaller(layer, inputs, outputs, constants):
    """What is different of a layer with fewer channels.

    Args:
        layer: a layer or operation.
        inputs: boolean array: which of its input channels stay.
        outputs: the same for its output channels.
        constants: the values of the inputs that do not stay.

    Returns:
        Two dictionaries: changes of its configuration, and its weights; both are empty for what takes any number of
        channels.
    """
    if is_kind(layer, "batch_normalization"):
        names = ("gamma", "beta", "moving_mean", "moving_variance")
        found = {name: getattr(layer, name, None) for name in names}
        return {}, {name: numpy_value(weight)[outputs] for name, weight in found.items() if weight is not None}
    if is_kind(layer, "depthwise_conv"):
        weights = {"kernel": numpy_value(layer.kernel)[..., inputs, :]}
        return {}, weights | ({"bias": numpy_value(layer.bias)[outputs]} if layer.use_bias else {})
    if has_role(layer, WEIGHTED):
        sums, _ = sums_by_channel(layer)
        bias = bias_values(layer) + np.where(inputs | np.isnan(constants), 0.0, constants) @ sums
        use_bias, weights = layer.use_bias or bool(bias.any()), _kernels(layer, inputs, outputs)
        size = "units" if is_kind(layer, "dense") else "filters"
        return {size: int(outputs.sum()), "use_bias": use_bias}, weights | ({"bias": bias[outputs]} if use_bias else {})
    if is_a(layer, layers.Reshape) and layer.target_shape[-1] != -1:
        return {"target_shape": (*layer.target_shape[:-1], int(outputs.sum()))}, {}
    return {}, {}


@contextlib.contextmanager
def _without_random_numbers(*found):
    """Lets layers be built with zeros: JAX compiles its generators of random numbers anew for each shape."""
    initializers = [
        (layer, name, value)
        for layer in found
        for name, value in vars(layer).items()
        if name.endswith("_initializer") and value is not None
    ]
    for layer, name, _ in initializers:
        setattr(layer, name, keras.initializers.Zeros())
    try:
        yield
    finally:
        for layer, name, value in initializers:
            setattr(layer, name, value)


def _apart(model):
    """A copy of a flat model, whose layers remember no other graph that they were a part of."""
    with _without_random_numbers(*model.layers):
        copy, origins = copy_with_origins(model)
    for layer in copy.layers:
        for name, value in vars(origins.of(layer)).items():
            if name.endswith("_initializer") and value is not None:
                setattr(layer, name, value)
    return copy


def _kernels(layer, inputs, outputs):
    """Dictionary from names to the kernels of a layer, without the inputs and outputs that do not stay."""
    if is_kind(layer, "separable_conv"):
        repeated = np.repeat(inputs, layer.depth_multiplier)
        return {
            "depthwise_kernel": numpy_value(layer.depthwise_kernel)[..., inputs, :],
            "pointwise_kernel": numpy_value(layer.pointwise_kernel)[..., repeated, :][..., outputs],
        }
    if is_kind(layer, "conv_transpose"):
        inputs, outputs = outputs, inputs
    return {"kernel": numpy_value(layer.kernel)[..., inputs, :][..., outputs]}
