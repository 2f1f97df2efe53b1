"""What the outputs of a model are, by what computes them last."""

from typing import Any

import keras

from keras_mot.graph.functional import as_functional
from keras_mot.graph.kinds import MOVES, SAME, has_role, kind_of, kind_of_function
from keras_mot.graph.model_graph import Graph

PROBABILITIES = "sigmoid", "softmax"
"""Kinds of operations whose results are probabilities."""


def outputs_are_probabilities(model: keras.Model) -> list[bool]:
    """Of each output of a model, whether a sigmoid or a softmax makes it.

    Args:
        model: any model. Of one that has no graph to be read, none is known to be.
    """
    functional = as_functional(model)
    if functional is None:
        return []
    graph = Graph(functional)
    return [maker_of(graph, tensor) in PROBABILITIES for tensor in graph.outputs]


def maker_of(graph: Graph, tensor: Any) -> str | None:
    """The name of the kind of operation, or of the activation, that makes a tensor, behind what moves it; or `None`."""
    call = graph.producer(tensor)
    if call is None:
        return None
    operation, kind = call.operation, kind_of(call.operation)
    inner = as_functional(operation)
    if inner is not None:
        place = next(number for number, each in enumerate(call.outputs) if each is tensor)
        return maker_of(Graph(inner), Graph(inner).outputs[place])
    if kind is None:
        return None
    if has_role(operation, MOVES) and kind.ranges == SAME and call.inputs:
        return maker_of(graph, call.inputs[0])
    function = kind_of_function(getattr(operation, "activation", None))
    return kind.name if function is None or kind.name in PROBABILITIES else function.name
