"""What operations compute, which models have a graph, and what was called between symbolic tensors."""

import functools
import types
from collections.abc import Iterator
from typing import Any

import keras

from keras_mot._keras import Functional, Sequential, call_of, functional_of, own_name
from keras_mot.layers.transformed import plain_class

# What a subclass may define anew and still compute as its class does.
_HARMLESS = (
    *("build", "add_weight", "get_config", "from_config", "get_build_config", "build_from_config"),
    *("compute_output_shape", "compute_output_spec", "save_own_variables", "load_own_variables", "quantize"),
    *("transformable_weights", "get_prunable_weights", "get_clusterable_weights"),
)


def is_a(operation, kinds):
    """Whether an operation is a layer of one of these classes, and computes as they do: with their own methods."""
    own = plain_class(operation)
    kinds = kinds if isinstance(kinds, tuple) else (kinds,)
    return any(issubclass(own, kind) and _computes_as(own, kind) for kind in kinds)


@functools.cache
def _computes_as(own, kind):
    """Whether a subclass takes over all that `kind` computes with: its methods and its properties."""
    if own.call is not kind.call:
        return False
    for base in own.__mro__[: own.__mro__.index(kind)]:
        for name, value in vars(base).items():
            changes = isinstance(value, (types.FunctionType, property, classmethod, staticmethod))
            special = name.startswith("__") and name != "__call__"
            if changes and not special and name not in _HARMLESS and hasattr(kind, name):
                return False
    return True


def keras_class(operation):
    """Keras's own class that an operation is of, and computes as; `None` for users' own."""
    for kind in plain_class(operation).__mro__:
        if own_name(kind) is not None:
            return kind if is_a(operation, kind) else None
    return None


def as_functional(model):
    """The functional graph of a sequential or functional model, or `None` for others.

    Those are others, too, whose class has a `call` of its own.
    """
    own = plain_class(model)
    if isinstance(model, Sequential | Functional) and own.call not in (Sequential.call, Functional.call):
        return None
    if isinstance(model, Sequential):
        model = functional_of(model)
    return model if isinstance(model, Functional) else None


def operations_between(inputs: Any, outputs: Any) -> Iterator[Any]:
    """Yields the operations that were called on the way from structures of symbolic tensors to others.

    The last ones come first; an operation comes once for each of its calls.
    """
    seen = {id(tensor) for tensor in keras.tree.flatten(inputs)}
    waiting, calls = keras.tree.flatten(outputs), set()
    while waiting:
        tensor = waiting.pop()
        if not isinstance(tensor, keras.KerasTensor) or id(tensor) in seen:
            continue
        seen.add(id(tensor))
        call = call_of(tensor)
        if id(call) not in calls:
            calls.add(id(call))
            yield call.operation
            waiting += call.input_tensors
