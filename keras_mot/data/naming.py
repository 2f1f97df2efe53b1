"""Names of a model's inputs and outputs: those that data, metrics and files call them by."""

import re
from collections.abc import Iterable, Iterator
from typing import Any

import keras

from keras_mot._keras import producer_of


def input_name(tensor: keras.KerasTensor) -> str:
    """The name of a symbolic input; one that the user did not name is called after its input layer."""
    name = tensor.name
    return producer_of(tensor).name if name.startswith("keras_tensor") else name


def leaf_names(structures: Any) -> Iterator[str]:
    """Names of leaves that have none of their own: the dictionary keys on the way, or `input_<i>`."""
    for position, (path, _) in enumerate(keras.tree.flatten_with_path(structures)):
        keys = [str(step) for step in path if isinstance(step, str)]
        yield "_".join(keys) if keys else f"input_{position}"


def unique_names(names: Iterable[str | None]) -> list[str]:
    """Turns `names` into distinct identifiers, as the signature of a file needs them."""
    result = []
    for position, name in enumerate(names):
        name = re.sub(r"\W", "_", str(name or f"tensor_{position}"), flags=re.ASCII)
        if not name or name[0].isdigit():
            name = f"_{name}"
        candidate, count = name, 1
        while candidate in result:
            candidate, count = f"{name}_{count}", count + 1
        result.append(candidate)
    return result


def name_outputs(model: keras.Model, outputs: Any) -> tuple[list[str], list[Any]]:
    """Flattens the outputs of `model` and names them: by dictionary key, by layer, or by position."""
    flat = keras.tree.flatten(outputs)
    if isinstance(outputs, dict):
        names = list(leaf_names(outputs))
    else:
        names = getattr(model, "output_names", None)
        if not names or len(names) != len(flat):
            names = [f"output_{position}" for position in range(len(flat))]
    return unique_names(names), flat
