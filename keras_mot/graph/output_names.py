"""The names of a model's outputs, which losses, metrics and files refer to them by."""

from collections.abc import Sequence

import keras

from keras_mot._keras import producer_of
from keras_mot.graph.functional import as_functional


def output_names(model: keras.Model) -> list[str] | None:
    """The names that Keras gives the outputs of a functional model; `None` for others, which have no such names."""
    return list(model.output_names) if as_functional(model) is model else None


def keep_output_names(model: keras.Model, names: Sequence[str] | None) -> None:
    """Gives the outputs of a rewritten model, in place, the names that they had before.

    Keras calls an output after the operation that it comes from. Quantizers behind it take its name for that, and keep
    their own as layers; other operations are renamed, where no other one has the name.

    Args:
        model: a functional model without nested models.
        names: the names, one for each output; `None` leaves all as it is.
    """
    if names is None or len(names) != len(model.outputs):
        return
    used = {operation.name for operation in model.operations}
    settled = {}  # id of an operation -> the name of what comes from it
    for tensor, name in zip(model.outputs, names, strict=True):
        operation = producer_of(tensor)
        if id(operation) in settled:
            continue
        if hasattr(operation, "output_name"):
            operation.output_name = name if name != operation.name else None
        elif name not in used and not isinstance(operation, keras.layers.InputLayer):
            used.add(name)
            operation.name = name
        settled[id(operation)] = name if hasattr(operation, "output_name") else operation.name
    model.output_names = [settled[id(producer_of(tensor))] for tensor in model.outputs]
