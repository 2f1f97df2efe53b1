"""Powers that nothing but a logarithm reads, as those of spectra: one scale leaves too little of small numbers."""

import keras

from keras_mot.graph.kinds import (
    AVERAGES,
    ELEMENTWISE,
    JOINS,
    MERGES,
    MOVES,
    REDUCES,
    WEIGHTED,
    has_role,
    is_kind,
)
from keras_mot.graph.model_graph import Graph

_LOGARITHMS = "log", "log2", "log10"
_SPREADING = "square", "power", "exponential", "exp2"  # what makes numbers of very different sizes


def before_logarithms(graph: Graph) -> set[int]:
    """Ids of logarithms of squares, products and exponentials, and of all that lies between these and them.

    In `log(a * a + b * b + epsilon)`, what is left of rounding to 8 bits are the loudest 24 decibels. Constant matrices
    in between, as those from frequencies to bands, are a part of it; layers that are trained are not.
    """
    read = set()  # ids of the operations whose results, and no others, logarithms come to read
    for call in reversed(graph.calls):
        operation = call.operation
        if is_kind(operation, *_LOGARITHMS) or (_goes_on(operation) and _is_read_by(graph, operation, read)):
            read.add(id(operation))
    found = set()
    for call in graph.calls:
        if id(call.operation) not in read:
            continue
        sources = [graph.producer(tensor) for tensor in call.inputs]
        if _spreads(graph, call.operation) or any(each and id(each.operation) in found for each in sources):
            found.add(id(call.operation))
    return found


def _goes_on(operation):
    if has_role(operation, WEIGHTED):
        return not operation.trainable  # a constant matrix
    known = is_kind(operation, "clip", *_SPREADING)
    return known or has_role(operation, MERGES, REDUCES, AVERAGES, MOVES, JOINS, ELEMENTWISE)


def _is_read_by(graph, operation, read):
    """Whether operations of a set alone read the results of one, and none of these makes powers anew."""
    tensors = [tensor for call in graph.calls_of(operation) for tensor in call.outputs]
    readers = [reader.operation for tensor in tensors for reader in graph.readers(tensor)]
    known = all(id(reader) in read and not _spreads(graph, reader) for reader in readers)
    return bool(readers) and known and not any(map(graph.is_output, tensors))


def _spreads(graph, operation):
    if is_kind(operation, *_SPREADING):
        return True
    calls = graph.calls_of(operation)
    return is_kind(operation, "multiply") and any(len(_tensors(call)) > 1 for call in calls)


def _tensors(call):
    leaves = keras.tree.flatten((call.args, call.kwargs))
    return [leaf for leaf in leaves if keras.utils.is_keras_tensor(leaf)]
