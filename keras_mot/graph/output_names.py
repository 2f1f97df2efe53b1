"""The names of a model's outputs, which losses, metrics and files refer to them by."""

import itertools
from collections.abc import Sequence

import keras

from keras_mot._keras import producer_of
from keras_mot.graph.functional import as_functional
from keras_mot.layers.named_output import NamedOutput


def output_names(model: keras.Model) -> list[str] | None:
    """The names that Keras gives the outputs of a functional model; `None` for others, which have no such names."""
    return list(model.output_names) if as_functional(model) is model else None


def with_output_names(model: keras.Model, names: Sequence[str] | None) -> keras.Model:
    """A rewritten model whose outputs have the names that they had before; it has the layers of the given one.

    Keras calls an output after the operation that it comes from. Quantizers behind it take its name for that, and keep
    their own as layers; other operations are renamed, where no other one has the name, or get a `NamedOutput` behind
    them.

    Args:
        model: a functional model without nested models, which may be changed.
        names: the names, one for each output; `None` leaves all as it is.
    """
    if names is None or len(names) != len(model.outputs):
        return model
    used = {operation.name for operation in model.operations}
    settled = {}  # id of an operation -> the name of what comes from it
    outputs = []
    for tensor, name in zip(model.outputs, names, strict=True):
        operation = producer_of(tensor)
        if id(operation) not in settled:
            if hasattr(operation, "output_name"):
                operation.output_name = name if name != operation.name else None
                settled[id(operation)] = name
            elif name not in used and not isinstance(operation, keras.layers.InputLayer):
                used.add(name)
                operation.name = name
            settled.setdefault(id(operation), operation.name)
        if settled[id(operation)] != name and not isinstance(operation, keras.layers.InputLayer):
            own = next(f"{name}_output{end}" for end in _numbers() if f"{name}_output{end}" not in used)
            used.add(own)
            tensor = NamedOutput(name, name=own, dtype=tensor.dtype)(tensor)
        outputs.append(tensor)
    return keras.Model(model.input, keras.tree.pack_sequence_as(model.output, outputs), name=model.name)


def given_names(model: keras.Model) -> list[str | None]:
    """The names of a rewritten model's outputs; `None` for those that are called after a layer of this package."""
    producers = map(producer_of, model.outputs)
    return [
        None if getattr(producer, "output_name", name) is None else name
        for producer, name in zip(producers, model.output_names, strict=True)
    ]


def rename_outputs(model: keras.Model, names: Sequence[str | None]) -> keras.Model:
    """A model whose outputs have the names given, without layers of this package; it has the layers of the given one.

    The operation that an output comes from takes its name; one that had it before is called `<name>_linear`, as it is
    the sum before an activation in the models that this is for.

    Args:
        model: a functional model without nested models, which is changed.
        names: the names, one for each output; `None` leaves it as it is.
    """
    by_name = {operation.name: operation for operation in model.operations}
    wanted = {}
    for tensor, name in zip(model.outputs, names, strict=True):
        wanted.setdefault(id(producer_of(tensor)), (producer_of(tensor), name))
    for producer, name in wanted.values():
        if name in (None, producer.name) or isinstance(producer, keras.layers.InputLayer):
            continue
        before = by_name.get(name)
        if isinstance(before, keras.layers.InputLayer) or id(before) in wanted:
            continue
        if before is not None:
            before.name = next(f"{name}_linear{end}" for end in _numbers() if f"{name}_linear{end}" not in by_name)
            by_name[before.name] = before
        producer.name = name
        by_name[name] = producer
    return keras.Model(model.input, model.output, name=model.name)


def _numbers():
    return itertools.chain([""], (f"_{number}" for number in itertools.count(1)))
