"""Chooses which weights of a file for microcontrollers are encoded: what is decoded stands in the arena."""

import dataclasses
import functools
import math
from collections.abc import Callable

import numpy as np

from keras_mot.export.dependencies import require
from keras_mot.export.litert.litert_file import enum_name, numpy_type, parse_model
from keras_mot.export.litert.micro.weights.rewriting import Candidate, candidates, kernel_names, with_encoded

_SHOWN = 4
"""Names of kernels in a reason."""


@dataclasses.dataclass(frozen=True)
class CompressedWeight:
    """A weight that TFLM decodes while it runs.

    Attributes:
        name: of its tensor in the file.
        method: how it is encoded, in words.
        bytes: what it takes in the file.
        dense_bytes: what it would take otherwise, and takes in the arena while its layer computes.
    """

    name: str
    method: str
    bytes: int
    dense_bytes: int


@dataclasses.dataclass(frozen=True)
class MicroFile:
    """A file for microcontrollers.

    Attributes:
        content: the file.
        weights: the weights that are encoded in it.
        reason: why no more are.
    """

    content: bytes
    weights: tuple[CompressedWeight, ...] = ()
    reason: str = ""


def choose(
    content: bytes, compress: bool, arena_limit: int | None, arena_of: Callable[[bytes], int], model_name: str
) -> MicroFile:
    """The smallest file that runs in an arena of a limited size.

    Args:
        content: a file with dense weights.
        compress: whether weights may be encoded.
        arena_limit: the most bytes of the arena, or `None` for any.
        arena_of: function from a file to the bytes of the arena that it needs.
        model_name: for messages.

    Raises:
        ValueError: the file needs a larger arena with dense weights already.
    """
    arena_of = functools.cache(arena_of)
    found = candidates(content) if compress else []
    kept = found
    if arena_limit is not None:
        needed = arena_of(content)
        if needed > arena_limit:
            raise ValueError(
                f"'{model_name}' needs an arena of {needed:,} bytes with no weights compressed, which is more than "
                f"`arena_limit`, {arena_limit:,}. Raise the limit, or take a model with smaller activations."
            )
        kept = _within(content, found, arena_limit, arena_of)
    packed = with_encoded(content, kept)
    if len(packed) >= len(content):
        kept, packed = [], content
    weights = tuple(
        CompressedWeight(each.name, each.encoded.method, each.encoded.bytes, each.dense_bytes) for each in kept
    )
    names = kernel_names(content) if compress else []
    return MicroFile(packed, weights, _reason(names, found, kept, arena_limit) if compress else "not asked for")


def _within(content, found, limit, arena_of):
    """The candidates with which a file runs in the arena: without those that need most of it, or that save least."""
    peaks = _peaks(content, found)
    kept = []
    for ranked in (sorted(found, key=peaks.get, reverse=True), sorted(found, key=lambda each: each.saved_bytes)):
        low, high = 0, len(ranked)  # the least number of them, with which it fits when they are left out
        while low < high:
            middle = (low + high) // 2
            fits = arena_of(with_encoded(content, ranked[middle:])) <= limit
            low, high = (low, middle) if fits else (middle + 1, high)
        kept = max(kept, ranked[low:], key=lambda group: sum(each.saved_bytes for each in group))
    return sorted(kept, key=lambda each: each.first)


def _reason(names, found, kept, arena_limit):
    """Why those kernels that are not encoded stay dense, by their names."""
    paying = {each.name for each in found}
    left, others = [each.name for each in found if each not in kept], [name for name in names if name not in paying]
    if left and arena_limit is None:
        return f"{_listed(left)} dense: the file would be no smaller, for what the decoders take"
    reasons = [f"{_listed(left)} dense for `arena_limit`, {arena_limit:,} bytes"] if left else []
    if others:
        reasons.append(f"{_listed(others)} dense, and would not become smaller by 5 %")
    return "; ".join(reasons) or "no other would become smaller by 5 %: all are compressed"


def _listed(names):
    """Names with the verb that follows them, the first of many."""
    shown = [f"'{name}'" for name in names[:_SHOWN]]
    more = [f"{len(names) - _SHOWN} more"] if len(names) > _SHOWN else []
    *first, last = shown + more
    return f"{', '.join(first)} and {last} stay" if first else f"{last} stays"


def _peaks(content: bytes, found: list[Candidate]) -> dict[Candidate, tuple[int, int]]:
    """By candidates, the most bytes of tensors that stand in the arena beside one of them, with its own, and what it
    costs to leave it out."""
    schema = require("ai_edge_litert.schema_py_generated")
    graph = parse_model(content).subgraphs[0]
    end = len(graph.operators)
    first, last = dict.fromkeys(map(int, graph.inputs), 0), dict.fromkeys(map(int, graph.outputs), end)
    for place, operator in enumerate(graph.operators):
        for index in map(int, operator.outputs):
            first[index] = place
        for index in map(int, operator.inputs):
            last[index] = max(place, last.get(index, 0))
    live = np.zeros(end + 1, "int64")
    for index, place in first.items():
        live[place : last.get(index, place) + 1] += _bytes(schema, graph.tensors[index])
    for each in found:
        live[each.first : each.last + 1] += each.dense_bytes
    return {each: (int(live[each.first : each.last + 1].max()), -each.saved_bytes) for each in found}


def _bytes(schema, tensor):
    dtype = numpy_type(enum_name(schema.TensorType, tensor.type))
    count = 1 if tensor.shape is None else math.prod(map(int, tensor.shape))
    return count * (1 if dtype is None else dtype.itemsize)
