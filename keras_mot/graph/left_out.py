"""Scores of which a mask leaves some out: what a softmax reads where a number stands for minus infinity."""

import keras
import numpy as np

from keras_mot.graph.kinds import MERGES, MOVES, has_role, is_kind
from keras_mot.graph.model_graph import Graph

_FAR = 1e4  # from here on, a number stands for infinity


def left_out(graph: Graph) -> set[int]:
    """Ids of the softmax operations that read such scores, and of what puts that number among them.

    A range that holds it would leave no integers for the scores. `where(mask, scores, -1e9)` is known, as is
    `scores + (1 - mask) * -1e9`, moved on or not.
    """
    far = {}  # id of an operation -> whether its results have such a number
    for call in graph.calls:  # each after those that it reads
        operation = call.operation
        sources = [graph.producer(tensor) for tensor in call.inputs]
        before = any(far.get(id(source.operation), False) for source in sources if source is not None)
        if has_role(operation, MERGES):
            far[id(operation)] = before or any(_is_far(each) for each in keras.tree.flatten((call.args, call.kwargs)))
        elif has_role(operation, MOVES) or is_kind(operation, "softmax"):
            far[id(operation)] = before
    found = set()
    for call in reversed(graph.calls):
        operation = call.operation
        read = any(id(reader.operation) in found for tensor in call.outputs for reader in graph.readers(tensor))
        if far.get(id(operation), False) and (read or is_kind(operation, "softmax")):
            found.add(id(operation))
    return found


def chosen_scores(graph: Graph) -> set[int]:
    """Ids of the `where(mask, scores, -1e9)` that a softmax of the last axis, and nothing else, reads."""
    found = set()
    for call in graph.calls:
        if not is_kind(call.operation, "where") or len(call.args) != 3 or len(graph.calls_of(call.operation)) != 1:
            continue
        reader, (_, scores, number) = graph.sole_reader(call.outputs[0]), call.args
        whole = keras.utils.is_keras_tensor(scores) and scores.shape == call.outputs[0].shape
        if reader is None or not is_kind(reader.operation, "softmax") or not whole or not _is_far(number):
            continue
        last = getattr(reader.operation, "axis", -1) in (-1, len(scores.shape) - 1) and len(reader.inputs) == 1
        if last and np.max(keras.ops.convert_to_numpy(number)) <= -_FAR:
            found.add(id(call.operation))
    return found


def _is_far(value):
    if value is None or isinstance(value, (str, bool)) or keras.utils.is_keras_tensor(value):
        return False
    try:
        return bool(np.max(np.abs(np.asarray(keras.ops.convert_to_numpy(value), "float32")), initial=0.0) >= _FAR)
    except (TypeError, ValueError):
        return False
