"""Names of operations, which a functional model asks to be different while it is made."""

import contextlib
from collections.abc import Iterable
from typing import Any

import keras

from keras_mot._keras import call_of, producer_of


def name_apart(operations: Iterable[Any], used: Iterable[str] = ()) -> list[tuple[Any, str]]:
    """Numbers the names of operations that others have already.

    Args:
        operations: layers and operations of `keras.ops`; the first of a name keeps it.
        used: names that none of them may have.

    Returns:
        List of (operation with another name, the name that it had).
    """
    used, changed = set(used), []
    for operation in operations:
        before, name, number = operation.name, operation.name, 1
        while name in used:
            name, number = f"{before}_{number}", number + 1
        used.add(name)
        if name != before:
            operation.name = name
            changed.append((operation, before))
    return changed


def model_of(inputs: Any, outputs: Any, name: str) -> keras.Model:
    """The functional model between symbolic tensors, whose layers may have one name, as those of several models may.

    Copies of it can be made; for one that can be loaded from a file, `flatten` it.
    """
    with contextlib.ExitStack() as stack:
        for operation, before in name_apart(_operations_before(inputs, outputs)):
            stack.callback(setattr, operation, "name", before)
        return keras.Model(inputs, outputs, name=name)


def _operations_before(inputs, outputs):
    """The operations between tensors, each once, those of the inputs first."""
    found = {id(producer_of(tensor)): producer_of(tensor) for tensor in keras.tree.flatten(inputs)}
    waiting, seen = keras.tree.flatten(outputs), set()
    while waiting:
        tensor = waiting.pop()
        if isinstance(tensor, keras.KerasTensor) and id(tensor) not in seen:
            seen.add(id(tensor))
            found.setdefault(id(producer_of(tensor)), producer_of(tensor))
            waiting.extend(call_of(tensor).input_tensors)
    return list(found.values())
