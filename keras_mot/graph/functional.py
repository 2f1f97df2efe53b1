"""What operations are, and who reads what in a functional model."""

import functools
import types

from keras_mot._keras import Functional, Sequential, calls_by_depth, functional_of, own_name
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


def kind_of(operation):
    """The name of Keras's own layer or operation that an operation is, and computes as; `None` for users' own."""
    kind = keras_class(operation)
    return None if kind is None else kind.__name__


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


def nodes_of(model):
    """The calls (nodes) of a functional model, in the order in which they run: a shared layer has others elsewhere."""
    return [node for node in calls_by_depth(model) if not node.is_input]
