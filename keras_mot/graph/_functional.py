"""Who reads what in a functional model."""

from keras_mot._keras import Functional, Sequential


def is_a(operation, kinds):
    """Whether an operation is a layer of one of these classes, and computes as they do: with their own `call`."""
    own = getattr(type(operation), "_plain_class", type(operation))
    kinds = kinds if isinstance(kinds, tuple) else (kinds,)
    return any(issubclass(own, kind) and own.call is kind.call for kind in kinds)


def as_functional(model):
    """The functional graph of a sequential or functional model, or `None` for others.

    Those are others, too, whose class has a `call` of its own.
    """
    if isinstance(model, Sequential | Functional) and not is_a(model, (Sequential, Functional)):
        return None
    if isinstance(model, Sequential):
        model = model._functional
    return model if isinstance(model, Functional) else None


def nodes_of(model):
    """The calls (nodes) of a functional model, in the order in which they run: a shared layer has others elsewhere."""
    by_depth = model._nodes_by_depth
    return [node for depth in sorted(by_depth, reverse=True) for node in by_depth[depth] if not node.is_input]


def consumers_of(model):
    """Dictionary from id(tensor) to the nodes of the model that read it."""
    consumers = {}
    for node in nodes_of(model):
        for tensor in node.arguments.keras_tensors:
            consumers.setdefault(id(tensor), []).append(node)
    return consumers
