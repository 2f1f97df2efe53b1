"""Which operations and functions look at each element of one tensor by itself."""

import functools
import inspect
from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from keras_mot._keras import calls_anywhere
from keras_mot.graph.functional import operations_between


def is_of_one_tensor(operation: Any) -> bool:
    """Whether every call of an operation has one symbolic tensor, beside single numbers."""
    calls = calls_anywhere(operation)
    return bool(calls) and all(
        len(call.arguments.keras_tensors) == 1
        and all(np.size(part) == 1 for part in _others(call) if _is_numeric(part))
        for call in calls
    )


def divides_a_number(operation: Any) -> bool:
    """Whether a division is one of a single number by a tensor."""
    if not is_of_one_tensor(operation):
        return False
    return all(not keras.utils.is_keras_tensor(_first(call)) for call in calls_anywhere(operation))


def has_numbers(operation: Any) -> bool:
    """Whether the bounds of a clipping are single numbers."""
    return all(np.ndim(bound) == 0 for bound in (operation.x_min, operation.x_max))


@functools.lru_cache(maxsize=256)
def is_of_each_element(function: Callable) -> bool:
    """Whether a function of a tensor computes each element of its result from the one at that place.

    It is called on a symbolic tensor; one that is not made of operations of `keras.ops` alone is not looked into.
    """
    from keras_mot.graph.kinds import kind_of

    inputs = keras.Input((3,), name="elements")
    try:
        outputs = function(inputs)
        found = list(operations_between(inputs, outputs))
    except Exception:  # whatever a user's function may raise on what is no number
        return False
    if not keras.utils.is_keras_tensor(outputs) or outputs.shape != inputs.shape or not found:
        return False
    return all(_looks_at_elements(operation, kind_of(operation)) for operation in found)


def _looks_at_elements(operation, kind):
    if isinstance(operation, keras.layers.Layer) or kind is None:
        return False
    merges = kind.role == "merges" and all(
        np.size(part) == 1 for call in calls_anywhere(operation) for part in _others(call) if _is_numeric(part)
    )
    return kind.table or kind.name in ("clip", "negative", "square") or merges


def _first(call):
    return next(iter((*call.arguments.args, *call.arguments.kwargs.values())))


def _others(call):
    """The arguments of a call that are no symbolic tensors."""
    leaves = keras.tree.flatten((call.arguments.args, call.arguments.kwargs))
    return [leaf for leaf in leaves if not keras.utils.is_keras_tensor(leaf)]


def _is_numeric(part):
    return part is not None and not isinstance(part, (str, bool)) and not inspect.isclass(part)
