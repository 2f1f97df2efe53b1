"""Models with channels first, made to compute with channels last, which is what runtimes on devices have kernels for.

Each tensor between two layers with `data_format="channels_first"` has a twin with the channels last. Layers and
operations that can compute on twins do so; what needs the channels where they were gets them by a transposition. So a
network that is in this form from its input to its head is transposed once.
"""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import layers, ops

from keras_mot._keras import operation_class, own_flag
from keras_mot.graph.functional import is_a, keras_class, operations_between
from keras_mot.graph.kinds import ACTIVATION, ELEMENTWISE, MERGES, has_role, is_kind, kind_of
from keras_mot.graph.model_graph import Graph
from keras_mot.graph.origins import Origins
from keras_mot.graph.rewrite import rewrite
from keras_mot.layers.functions import config_of
from keras_mot.layers.transformed import plain_class

_ALONE = (layers.Dropout, layers.GaussianDropout, layers.GaussianNoise, layers.AlphaDropout, layers.Identity)
_BY_CHANNEL = (layers.BatchNormalization, layers.LayerNormalization, layers.GroupNormalization)


def has_channels_first(operation: Any) -> bool:
    """Whether an operation computes on tensors with the channels behind the batch."""
    return getattr(operation, "data_format", None) == "channels_first"


def with_channels_last(model: keras.Model) -> tuple[keras.Model, Origins]:
    """The same function, with the same inputs and outputs, whose layers have the channels last.

    Args:
        model: a flat functional model. The new one shares those of its layers that have no order of channels.

    Returns:
        The model, or the given one where nothing has the channels first; and the `Origins` of its operations in it.
    """
    graph = Graph(model)
    if not any(has_channels_first(call.operation) for call in graph.calls):
        return model, Origins()
    turning = _Turning(graph)
    return rewrite(model, turning), turning.origins


class _Turning:
    """Calls operations on twins where they can be, and else as they are."""

    def __init__(self, graph: Graph):
        self._graph = graph
        self._twins = {}  # id of a tensor with channels first -> (the tensor, the same with channels last)
        self._made = {}  # id of a layer -> what computes the same with channels last
        self.origins = Origins()

    def __call__(self, operation: Any, *args: Any, **kwargs: Any) -> Any:
        """The results of an operation, with the channels where they were."""
        known = [self._twins[id(each)][1] for each in _tensors((args, kwargs)) if id(each) in self._twins]
        outputs = self._outputs(operation, args, kwargs, bool(known))
        for made in operations_between((args, kwargs, known), outputs):
            self.origins.note(made, operation)
        return outputs

    def _outputs(self, operation, args, kwargs, has_twin):
        step = None
        if has_channels_first(operation):
            step = self._of_positions(operation)
        elif has_twin:
            step = self._of_channels(operation, args, kwargs)
        if step is None:
            return operation(*args, **kwargs)
        rank = max(len(tensor.shape) for tensor in _tensors((args, kwargs)))

        def turned(value):
            return self._turned(value, rank)

        args, kwargs = keras.tree.map_structure(turned, (args, kwargs))
        twin = step(*args, **kwargs)
        if len(twin.shape) < 3:  # its positions are gone
            return twin
        outputs = ops.moveaxis(twin, -1, 1)
        self._twins[id(outputs)] = outputs, twin
        return outputs

    def _turned(self, value, rank):
        """An argument of a call, with the channels last."""
        if isinstance(value, keras.KerasTensor):
            if len(value.shape) < 3:
                return value
            if id(value) not in self._twins:
                self._twins[id(value)] = value, ops.moveaxis(value, 1, -1)
            return self._twins[id(value)][1]
        array = np.asarray(ops.convert_to_numpy(value)) if _is_array(value) else None
        if array is None or array.ndim == 0:
            return value
        return np.moveaxis(array.reshape((1,) * (rank - array.ndim) + array.shape), 1, -1)

    def _of_positions(self, operation):
        """What computes the same as an operation with `data_format` on twins, or `None`."""
        own = keras_class(operation) if isinstance(operation, layers.Layer) else None
        if own is not None:
            return self._layer(operation, own, {"data_format": "channels_last"})
        if is_a(operation, operation_class("MaxPool")):
            return lambda x: ops.max_pool(x, operation.pool_size, operation.strides, operation.padding, "channels_last")
        if is_a(operation, operation_class("AveragePool")):
            return lambda x: ops.average_pool(
                x, operation.pool_size, operation.strides, operation.padding, "channels_last"
            )
        return None

    def _of_channels(self, operation, args, kwargs):
        """What computes the same as another operation on twins, or `None`."""
        tensors = _tensors((args, kwargs))
        ranks = {len(tensor.shape) for tensor in tensors}
        if len(ranks) != 1:
            return None
        (rank,) = ranks
        own = keras_class(operation) if isinstance(operation, layers.Layer) else None
        if own is not None and is_a(operation, _BY_CHANNEL) and _axes(operation, rank) == [1]:
            once = len(self._graph.calls_of(operation)) == 1
            return self._layer(operation, own, {"axis": -1}) if once else None
        if own is not None and is_kind(operation, "prelu"):
            once = len(self._graph.calls_of(operation)) == 1
            return self._slopes(operation, own) if once else None
        if is_kind(operation, "concatenate"):
            axis = _behind(operation.axis % rank, rank)
            return None if axis is None else lambda values: ops.concatenate(values, axis=axis)
        if is_kind(operation, "mean", "sum", "max", "min") and hasattr(operation, "keepdims"):
            return _reduction(operation, rank)
        return operation if _is_of_each_element(operation) and _can_be_turned((args, kwargs), rank) else None

    def _layer(self, layer, own, changes, values: Callable = lambda value: value):
        """A layer like another, but for its configuration; it is built, and gets its values, when it is called."""

        def call(*args, **kwargs):
            if id(layer) in self._made:
                return self._made[id(layer)](*args, **kwargs)
            config = config_of(layer) if plain_class(layer) is own else own.get_config(layer)
            made = self._made[id(layer)] = own.from_config({**config, **changes})
            outputs = made(*args, **kwargs)
            for source, target in zip(layer.variables, made.variables, strict=True):
                target.assign(values(ops.convert_to_numpy(source)))
                if own_flag(target) != own_flag(source):
                    target.trainable = own_flag(source)
            return outputs

        return call

    def _slopes(self, layer, own):
        rank = len(layer.alpha.shape) + 1
        shared = [_behind(axis, rank) for axis in layer.shared_axes or ()]
        return self._layer(layer, own, {"shared_axes": shared or None}, lambda slopes: np.moveaxis(slopes, 0, -1))


def _tensors(structure):
    return [each for each in keras.tree.flatten(structure) if isinstance(each, keras.KerasTensor)]


def _is_array(value):
    return isinstance(value, np.ndarray) or (ops.is_tensor(value) and not isinstance(value, keras.KerasTensor))


def _can_be_turned(structure, rank):
    """Whether the arguments of a call are tensors, numbers, and arrays of constants of no more axes."""
    leaves = [leaf for leaf in keras.tree.flatten(structure) if not isinstance(leaf, keras.KerasTensor)]
    arrays = [leaf for leaf in leaves if _is_array(leaf)]
    others = [leaf for leaf in leaves if not _is_array(leaf)]
    return all(len(array.shape) <= rank for array in arrays) and not any(hasattr(each, "shape") for each in others)


def _axes(layer, rank):
    axes = layer.axis if isinstance(layer.axis, (list, tuple)) else [layer.axis]
    return [axis % rank for axis in axes]


def _behind(axis, rank):
    """Where an axis is once the channels are last; `None` of the batch."""
    return None if axis == 0 else rank - 1 if axis == 1 else axis - 1


def _reduction(operation, rank):
    """A mean, sum, maximum or minimum of positions or channels of the sample, or `None`."""
    given = operation.axis if isinstance(operation.axis, (list, tuple)) else [operation.axis]
    if None in given:
        return None
    axes = [_behind(axis % rank, rank) for axis in given]
    kept = operation.keepdims or set(axes) == set(range(1, rank - 1))
    if None in axes or not kept:  # what is left would not have the channels behind the batch
        return None
    function = {"mean": ops.mean, "sum": ops.sum, "max": ops.max, "min": ops.min}[kind_of(operation).name]
    return lambda x: function(x, axis=tuple(axes), keepdims=operation.keepdims)


def _is_of_each_element(operation):
    if is_a(operation, _ALONE):
        return getattr(operation, "noise_shape", None) is None
    if not has_role(operation, ACTIVATION, ELEMENTWISE, MERGES) or getattr(operation, "variables", None):
        return False
    return not is_kind(operation, "glu") and not hasattr(operation, "axis")
