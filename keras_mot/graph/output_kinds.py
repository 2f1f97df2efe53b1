"""What the outputs of a model are, by what computes them last."""

from typing import Any

import keras

from keras_mot.graph.functional import as_functional
from keras_mot.graph.kinds import MOVES, SAME, has_role, kind_of, kind_of_function
from keras_mot.graph.model_graph import Graph

_PROBABILITIES = "sigmoid", "softmax"


def outputs_are_probabilities(model: keras.Model) -> list[bool]:
    """Of each output of a model, whether a sigmoid or a softmax makes it.

    Args:
        model: any model. Of one that has no graph to be read, none is known to be.
    """
    functional = as_functional(model)
    if functional is None:
        return []
    graph = Graph(functional)
    return [_is_probability(graph, tensor) for tensor in graph.outputs]


def _is_probability(graph: Graph, tensor: Any) -> bool:
    call = graph.producer(tensor)
    if call is None:
        return False
    operation, kind = call.operation, kind_of(call.operation)
    if as_functional(operation) is not None:
        place = next(number for number, each in enumerate(call.outputs) if each is tensor)
        return outputs_are_probabilities(operation)[place]
    if kind is None:
        return False
    if has_role(operation, MOVES) and kind.ranges == SAME and call.inputs:
        return _is_probability(graph, call.inputs[0])
    function = kind_of_function(getattr(operation, "activation", None))
    return kind.name in _PROBABILITIES or (function is not None and function.name in _PROBABILITIES)
