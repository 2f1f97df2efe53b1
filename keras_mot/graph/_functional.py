"""Who reads what in a functional model."""

from keras_mot._keras import Functional, Sequential


def as_functional(model):
    """The functional graph of a sequential or functional model, or `None` for others."""
    if isinstance(model, Sequential):
        model = model._functional
    return model if isinstance(model, Functional) else None


def nodes_of(model):
    """The calls (nodes) that belong to a functional model: a shared layer has others elsewhere."""
    return [node for nodes in model._nodes_by_depth.values() for node in nodes if not node.is_input]


def consumers_of(model):
    """Dictionary from id(tensor) to the nodes of the model that read it."""
    consumers = {}
    for node in nodes_of(model):
        for tensor in node.arguments.keras_tensors:
            consumers.setdefault(id(tensor), []).append(node)
    return consumers
