"""Sums and products that are angles: what sine and cosine read."""

from typing import Any

from keras_mot.graph.kinds import MERGES, has_role, is_kind
from keras_mot.graph.model_graph import Graph


def is_angle(graph: Graph, operation: Any) -> bool:
    """Whether nothing but sine, cosine and tangent reads a sum or product, as in embeddings of positions and times.

    Such numbers are of many periods: rounded to integers of 8 bits, most of what they say is lost.
    """
    if not has_role(operation, MERGES):
        return False
    tensors = [tensor for call in graph.calls_of(operation) for tensor in call.outputs]
    readers = [reader for tensor in tensors for reader in graph.readers(tensor)]
    return bool(readers) and all(is_kind(reader.operation, "periodic") for reader in readers)
