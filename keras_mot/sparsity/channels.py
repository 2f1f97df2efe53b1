"""Removing pruned channels: a smaller model of ordinary layers that computes the same.

Li et al., 2017, "Pruning Filters for Efficient ConvNets" (arXiv:1608.08710), remove filters and with them the input
channels of the next layers. Here it is read off the graph which channels are constant wherever they are used, so that
merges, depthwise convolutions, batch normalization and flattening are passed without a rule for each architecture.
"""

import collections
import contextlib
import math
import warnings

import keras
import numpy as np
from keras import layers, ops

from keras_mot._messages import describe
from keras_mot.graph import flatten, operations_of, rewrite, trace
from keras_mot.graph.batch_norm import scale_and_offset
from keras_mot.graph.functional import is_a, kind_of, nodes_of
from keras_mot.layers import copy_model, find_weights, transformed_weights
from keras_mot.layers.attaching import numpy_value
from keras_mot.layers.finding import require_built

_LINEAR = (layers.Dense, layers.Conv1D, layers.Conv2D, layers.Conv3D)
_TRANSPOSED = (layers.Conv1DTranspose, layers.Conv2DTranspose, layers.Conv3DTranspose)
_DEPTHWISE = (layers.DepthwiseConv1D, layers.DepthwiseConv2D)
_SEPARABLE = (layers.SeparableConv1D, layers.SeparableConv2D)
_MERGES = {
    layers.Add: np.add,
    layers.Subtract: np.subtract,
    layers.Multiply: np.multiply,
    layers.Maximum: np.maximum,
    layers.Minimum: np.minimum,
}
_MERGES_BY_NAME = {kind.__name__: function for kind, function in _MERGES.items()}
# What leaves constants as they are, whatever the positions; the second line does so in inference.
_PASSING = (
    *(layers.MaxPooling1D, layers.MaxPooling2D, layers.MaxPooling3D, layers.Identity),
    *(layers.Dropout, layers.SpatialDropout1D, layers.SpatialDropout2D, layers.SpatialDropout3D),
    *(layers.GaussianDropout, layers.GaussianNoise, layers.AlphaDropout, layers.ActivityRegularization),
    *(layers.AveragePooling1D, layers.AveragePooling2D, layers.AveragePooling3D),
    *(layers.GlobalMaxPooling1D, layers.GlobalMaxPooling2D, layers.GlobalMaxPooling3D),
    *(layers.GlobalAveragePooling1D, layers.GlobalAveragePooling2D, layers.GlobalAveragePooling3D),
    *(layers.Cropping1D, layers.Cropping2D, layers.Cropping3D),
    *(layers.UpSampling1D, layers.UpSampling2D, layers.UpSampling3D),
)
_PADDING = (layers.ZeroPadding1D, layers.ZeroPadding2D, layers.ZeroPadding3D)
_ACTIVATIONS = (
    *("linear", "relu", "relu6", "leaky_relu", "elu", "selu", "celu", "gelu", "silu", "mish", "sigmoid", "tanh"),
    *("hard_sigmoid", "hard_silu", "hard_tanh", "log_sigmoid", "softplus", "softsign", "exponential", "squareplus"),
)
_FUNCTIONS = {getattr(keras.activations, name) for name in _ACTIVATIONS}
_FUNCTION_NAMES = {name.replace("_", "") for name in _ACTIVATIONS}
_LOCKED = 0  # the slot of channels that stay


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
        channels = _Channels(model, exact)
        if not channels.removed:
            break
        model = rewrite(model, channels.call)
    if channels.blocked:
        names = ", ".join(f"{count} before '{name}'" for name, count in channels.blocked.items())
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
    functional = trace(model)
    copy = copy_model(functional)  # calling the layers of `model` would leave traces in them
    originals = {id(new): old for new, old in zip(operations_of(copy), operations_of(functional), strict=True)}
    waiting = list(rewrite(copy, lambda operation, *args, **kwargs: operation(*args, **kwargs)).outputs)
    found = {}
    while waiting:
        operation, node, _ = waiting.pop()._keras_history
        if isinstance(operation, layers.Layer) and find_weights(operation)[0]:
            found[id(operation)] = originals[id(operation)]
        else:
            waiting.extend(operation._inbound_nodes[node].arguments.keras_tensors)
    return list(found.values())


class _Channels:
    """The channels of each tensor of a flat model: which belong together, which are constant, which can go.

    Each channel of a tensor has a slot; channels with the same slot, or with slots that were joined, go together.

    Attributes:
        removed: how many slots can go.
        blocked: dictionary from names of layers to how many of their inputs stay for the border's sake alone.
    """

    def __init__(self, model, exact):
        self._exact = exact
        self._parents = [_LOCKED]
        self._known = {}  # id of a tensor -> (its slots, their constants: NaN where there is none)
        self._plans = {}  # id of an operation -> (slots of its first input, of its output, constants of its input)
        self._produced = []  # the slots of each layer that makes channels
        self._calls = collections.Counter(id(node.operation) for node in nodes_of(model))
        self.blocked = {}
        for tensor in model.inputs:
            self._know(tensor, *self._fixed(tensor))
        for node in nodes_of(model):
            self._visit(node)
        for tensor in model.outputs:
            self._lock(self._known[id(tensor)][0])
        for slots in self._produced:
            if not self._stays(slots).any():
                self._lock(slots[:1])
        self.removed = sum(int((~self._stays(slots)).sum()) for slots in self._produced)

    # Slots

    def _root(self, slot):
        while self._parents[slot] != slot:
            self._parents[slot] = slot = self._parents[self._parents[slot]]
        return slot

    def _join(self, first, second):
        for one, other in zip(first, second, strict=True):
            one, other = self._root(one), self._root(other)
            self._parents[max(one, other)] = min(one, other)  # `_LOCKED` is the least

    def _lock(self, slots):
        self._join(slots, [_LOCKED] * len(slots))

    def _stays(self, slots):
        return np.array([self._root(slot) == _LOCKED for slot in slots], bool)

    def _new(self, count):
        first = len(self._parents)
        self._parents.extend(range(first, first + count))
        slots = np.arange(first, first + count)
        self._produced.append(slots)
        return slots

    def _know(self, tensor, slots, constants):
        self._known[id(tensor)] = (slots, np.asarray(constants, "float64"))

    @staticmethod
    def _fixed(tensor):
        count = (tensor.shape[-1] or 0) if len(tensor.shape) > 1 else 0
        return np.full(count, _LOCKED), np.full(count, np.nan)

    # What operations do to channels

    def _visit(self, node):
        rule = self._rule(node.operation)
        known = [self._known[id(tensor)] for tensor in node.arguments.keras_tensors]
        result = None
        if rule is not None and len(node.output_tensors) == 1 and len(node.output_tensors[0].shape) > 1:
            result = rule(node, known)
        if result is not None:
            self._know(node.output_tensors[0], *result)
            self._plans[id(node.operation)] = known[0][0], result[0], known[0][1]
            return
        for slots, _ in known:
            self._lock(slots)
        for tensor in node.output_tensors:
            self._know(tensor, *self._fixed(tensor))

    def _rule(self, operation):
        if getattr(operation, "data_format", "channels_last") == "channels_first":
            return None
        if getattr(operation, "quantization_mode", None) or getattr(operation, "lora_enabled", False):
            return None
        if getattr(operation, "weights", ()) and (
            self._calls[id(operation)] > 1 or getattr(operation, "groups", 1) > 1
        ):
            return None
        rules = (
            ((*_LINEAR, *_TRANSPOSED, *_SEPARABLE), self._weighted),
            (_DEPTHWISE, self._depthwise),
            (layers.BatchNormalization, self._batch_norm),
            (_PASSING, self._passing),
            (_PADDING, self._padding),
            (tuple(_MERGES), self._merge),
            (layers.Concatenate, self._concatenate),
            ((layers.Flatten, layers.Reshape), self._reshape),
            ((layers.Activation, layers.ReLU, layers.LeakyReLU, layers.ELU), self._activation),
        )
        for kinds, rule in rules:
            if is_a(operation, kinds):
                return rule
        if isinstance(operation, layers.Layer):
            return None
        name = kind_of(operation)
        if name in _MERGES_BY_NAME:
            return self._merge
        if name == "Concatenate":
            return self._concatenate
        return self._activation if name is not None and name.lower() in _FUNCTION_NAMES else None

    def _weighted(self, node, known):
        layer, ((slots, constants),) = node.operation, known
        sums, read = _by_channels(layer)
        usable = self._usable(layer, constants, read.any(axis=1))
        self._lock(slots[read.any(axis=1) & ~usable])
        if layer.activation not in _FUNCTIONS:  # such as softmax, which looks at all channels
            return self._fixed(node.output_tensors[0])
        values = np.where(usable, constants, 0.0) @ sums + _bias(layer)
        values[(read & ~usable[:, None]).any(axis=0)] = np.nan
        return self._new(sums.shape[1]), self._activated(layer.activation, values)

    def _depthwise(self, node, known):
        layer, ((slots, constants),) = node.operation, known
        if layer.activation not in _FUNCTIONS:
            return None
        kernel = numpy_value(layer.kernel).astype("float64")
        kernel = kernel.reshape(-1, *kernel.shape[-2:])
        usable = self._usable(layer, constants, kernel.any(axis=(0, 2)))
        values = kernel.sum(axis=0) * np.where(usable, constants, 0.0)[:, None]
        values[kernel.any(axis=0) & ~usable[:, None]] = np.nan
        values = self._activated(layer.activation, values.reshape(-1) + _bias(layer))
        return np.repeat(slots, kernel.shape[-1]), values

    def _usable(self, layer, constants, read):
        """Which inputs of a layer are constants that its bias can take over."""
        known = np.isfinite(constants)
        if _sees_no_border(layer):
            return known
        blocked = known & (constants != 0) & read
        if self._exact or is_a(layer, _TRANSPOSED):
            if blocked.any():
                self.blocked[layer.name] = int(blocked.sum())
            return known & ~blocked
        return known

    def _batch_norm(self, node, known):
        layer, ((slots, constants),) = node.operation, known
        if layer.axis % len(node.output_tensors[0].shape) != len(node.output_tensors[0].shape) - 1:
            return None
        scale, offset = scale_and_offset(layer)
        return slots, np.where(scale == 0, 0.0, constants) * scale + offset

    def _passing(self, node, known):
        return known[0]

    def _padding(self, node, known):
        ((slots, constants),) = known
        return slots, np.where(constants == 0, 0.0, np.nan) if self._exact else constants

    def _activation(self, node, known):
        operation = node.operation
        if len(known) != 1 or (is_a(operation, layers.Activation) and operation.activation not in _FUNCTIONS):
            return None
        ((slots, constants),) = known
        return slots, self._activated(operation.call, constants)

    @staticmethod
    def _activated(function, constants):
        known = np.isfinite(constants)
        inputs = ops.convert_to_tensor(np.where(known, constants, 0.0).astype("float32")[None])
        return np.where(known, ops.convert_to_numpy(function(inputs))[0], np.nan)

    def _merge(self, node, known):
        operation, found = node.operation, iter(known)
        parts = keras.tree.flatten(node.arguments.args)
        operands = [next(found) if keras.utils.is_keras_tensor(part) else part for part in parts]
        numbers = [part for part in operands if not isinstance(part, tuple)]
        if any(not isinstance(part, int | float) for part in numbers) or len(parts) != len(known) + len(numbers):
            return None
        if len({len(slots) for slots, _ in known}) != 1:
            return None  # one channel beside many
        function = next((each for kind, each in _MERGES.items() if is_a(operation, kind)), None)
        function = function or _MERGES_BY_NAME[kind_of(operation)]
        for slots, _ in known[1:]:
            self._join(known[0][0], slots)
        first, *others = (part[1] if isinstance(part, tuple) else part for part in operands)
        for other in others:
            product = function(first, other)
            first = np.where((first == 0) | (other == 0), 0.0, product) if function is np.multiply else product
        return known[0][0], first

    def _concatenate(self, node, known):
        rank = len(node.output_tensors[0].shape)
        if node.operation.axis % rank != rank - 1:
            return None
        return tuple(np.concatenate(parts) for parts in zip(*known, strict=True))

    def _reshape(self, node, known):
        ((slots, constants),) = known
        before, after = node.arguments.keras_tensors[0].shape[1:], node.output_tensors[0].shape[1:]
        if after[-1] == before[-1]:
            return slots, constants
        if len(after) > 1 or None in before:
            return None
        positions = math.prod(before[:-1])
        return np.tile(slots, positions), np.tile(constants, positions)

    # The new model

    def call(self, operation, *args, **kwargs):
        """Calls an operation on new arguments, or in its place a layer with fewer channels: for `rewrite`."""
        inputs, outputs, constants = self._plans.get(id(operation), ((), (), ()))
        inputs, outputs = self._stays(inputs), self._stays(outputs)
        if (inputs.all() and outputs.all()) or not isinstance(operation, layers.Layer):
            return operation(*args, **kwargs)
        config, weights = operation.get_config(), {}
        if is_a(operation, (*_LINEAR, *_TRANSPOSED, *_SEPARABLE)):
            config["units" if is_a(operation, layers.Dense) else "filters"] = int(outputs.sum())
            sums, _ = _by_channels(operation)
            bias = _bias(operation) + np.where(inputs | np.isnan(constants), 0.0, constants) @ sums
            config["use_bias"] = operation.use_bias or bool(bias.any())
            weights = _kernels(operation, inputs, outputs)
            if config["use_bias"]:
                weights["bias"] = bias[outputs]
        elif is_a(operation, _DEPTHWISE):
            weights["kernel"] = numpy_value(operation.kernel)[..., inputs, :]
            if operation.use_bias:
                weights["bias"] = numpy_value(operation.bias)[outputs]
        elif is_a(operation, layers.BatchNormalization):
            for name in ("gamma", "beta", "moving_mean", "moving_variance"):
                if getattr(operation, name, None) is not None:
                    weights[name] = numpy_value(getattr(operation, name))[outputs]
        elif is_a(operation, layers.Reshape) and operation.target_shape[-1] != -1:
            config["target_shape"] = (*operation.target_shape[:-1], int(outputs.sum()))
        layer = type(operation).from_config(config)
        with _without_random_numbers(layer):
            result = layer(*args, **kwargs)
        for name, value in weights.items():
            getattr(layer, name).assign(value)
        return result


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
        copy = copy_model(model)
    for old, new in zip(model.layers, copy.layers, strict=True):
        for name, value in vars(old).items():
            if name.endswith("_initializer") and value is not None:
                setattr(new, name, value)
    return copy


def _bias(layer):
    return numpy_value(layer.bias).astype("float64") if layer.use_bias else 0.0


def _by_channels(layer):
    """(sums, read) of a layer's kernel, of shape (inputs, outputs): its sums over positions, and what is not zero."""
    if is_a(layer, _SEPARABLE):
        depthwise = numpy_value(layer.depthwise_kernel).astype("float64")
        depthwise = depthwise.reshape(-1, *depthwise.shape[-2:])
        pointwise = numpy_value(layer.pointwise_kernel).astype("float64")
        pointwise = pointwise.reshape(*depthwise.shape[1:], -1)
        sums = np.einsum("pim,imo->io", depthwise, pointwise)
        return sums, (depthwise.any(axis=0)[..., None] & (pointwise != 0)).any(axis=1)
    kernel = numpy_value(layer.kernel).astype("float64")
    kernel = kernel.reshape(-1, *kernel.shape[-2:])
    if is_a(layer, _TRANSPOSED):
        kernel = kernel.swapaxes(-1, -2)
    return kernel.sum(axis=0), kernel.any(axis=0)


def _kernels(layer, inputs, outputs):
    """Dictionary from names to the kernels of a layer, without the inputs and outputs that do not stay."""
    if is_a(layer, _SEPARABLE):
        repeated = np.repeat(inputs, layer.depth_multiplier)
        return {
            "depthwise_kernel": numpy_value(layer.depthwise_kernel)[..., inputs, :],
            "pointwise_kernel": numpy_value(layer.pointwise_kernel)[..., repeated, :][..., outputs],
        }
    if is_a(layer, _TRANSPOSED):
        inputs, outputs = outputs, inputs
    return {"kernel": numpy_value(layer.kernel)[..., inputs, :][..., outputs]}


def _sees_no_border(layer):
    """Whether every output of a layer sums over as many inputs, none of them beyond the border."""
    if is_a(layer, layers.Dense):
        return True
    if is_a(layer, _TRANSPOSED):
        return False
    return layer.padding == "valid" or set(layer.kernel_size) == {1}
