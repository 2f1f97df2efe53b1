"""Moving batch normalization in front of a concatenation, where it can be folded, and where each part has a range.

What multiplies each channel and adds to it does so before channels are put side by side as well as behind:
BN(concat(a, b)) = concat(BN(a), BN(b)), and so does a ReLU that follows. Of integers it is better before: parts of
different size, rounded to the steps of the largest, would be brought to one size afterwards.
"""

from collections.abc import Callable
from typing import Any

import keras
from keras import layers, ops

from keras_mot._keras import call_of
from keras_mot.graph.functional import is_a
from keras_mot.graph.kinds import is_kind
from keras_mot.graph.model_graph import Graph
from keras_mot.graph.origins import Origins
from keras_mot.graph.rewrite import rewrite_with_origins


def move_before_concatenations(
    model: keras.Model, wanted: Callable[[Any], bool] = lambda operation: True
) -> tuple[keras.Model, Origins]:
    """The same function, with batch normalizations that alone read a concatenation of channels in front of it.

    Args:
        model: a flat functional model; the new one shares its other layers.
        wanted: function from a batch normalization, or an activation behind it, to whether it may be moved.

    Returns:
        The model, or the given one where there is nothing to move; and the `Origins` of its operations in it.
    """
    moving = _Moving(Graph(model), wanted)
    if not moving.moved:
        return model, Origins()
    return rewrite_with_origins(model, moving)


class _Moving:
    """Calls operations again, and those to be moved on the parts of a concatenation."""

    def __init__(self, graph, wanted):
        self._graph = graph
        self.moved = {}  # id of an operation -> what makes the layer for a part of it
        for call in graph.calls:
            operation = call.operation
            if len(graph.calls_of(operation)) != 1 or len(call.inputs) != 1 or not wanted(operation):
                continue
            source = graph.producer(call.inputs[0])
            if source is None or graph.sole_reader(call.inputs[0]) is None:
                continue
            joined = _joins_channels(source, wanted)
            if is_kind(operation, "batch_normalization") and joined and _of_channels(operation, call):
                self.moved[id(operation)] = _part_of_batch_norm
            elif is_kind(operation, "relu", "relu6") and id(source.operation) in self.moved:
                self.moved[id(operation)] = _part_of_relu

    def __call__(self, operation, *args, **kwargs):
        make = self.moved.get(id(operation))
        if make is None:
            return operation(*args, **kwargs)
        (tensor,) = [part for part in keras.tree.flatten((args, kwargs)) if keras.utils.is_keras_tensor(part)]
        parts, first, results = call_of(tensor).arguments.keras_tensors, 0, []
        for number, part in enumerate(parts):
            channels = slice(first, first + part.shape[-1])
            results.append(make(operation, number, part, channels))
            first = channels.stop
        return layers.Concatenate(name=f"{operation.name}_joined")(results)


def _joins_channels(call, wanted):
    """Whether a call puts the channels of known numbers of different tensors side by side."""
    operation = call.operation
    if not is_kind(operation, "concatenate") or not wanted(operation) or len(call.inputs) < 2:
        return False
    sizes = [tensor.shape[-1] for tensor in call.inputs]
    rank = len(call.outputs[0].shape)
    return operation.axis % rank == rank - 1 and None not in sizes and sum(sizes) == call.outputs[0].shape[-1]


def _of_channels(batch_norm, call):
    rank = len(call.outputs[0].shape)
    masked = [value for name, value in call.kwargs.items() if name == "mask" and value is not None]
    own = is_a(batch_norm, layers.BatchNormalization) and len(call.args) <= 1
    return own and batch_norm.axis % rank == rank - 1 and not masked


def _part_of_batch_norm(batch_norm, number, part, channels):
    config = {**batch_norm.get_config(), "axis": -1, "name": f"{batch_norm.name}_part_{number}"}
    layer = type(batch_norm).from_config(config)
    outputs = layer(part)
    for source, target in zip(batch_norm.variables, layer.variables, strict=True):
        target.assign(ops.convert_to_numpy(source)[channels])
    return outputs


def _part_of_relu(operation, number, part, channels):
    greatest = 6.0 if is_kind(operation, "relu6") else None
    return layers.ReLU(greatest, name=f"{operation.name}_part_{number}")(part)
