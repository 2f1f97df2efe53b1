"""Names of operations, which a functional model asks to be different while it is made."""

import contextlib
from collections.abc import Iterable
from typing import Any

import keras

from keras_mot._keras import producer_of
from keras_mot.graph.functional import operations_between


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


def model_between(inputs: Any, outputs: Any, name: str) -> keras.Model:
    """The functional model between symbolic tensors, whose layers may have one name, as those of several models may.

    Copies of it can be made; for one that can be loaded from a file, `flatten` it.
    """
    with contextlib.ExitStack() as stack:
        # Those of the inputs first, which keep their names.
        found = [producer_of(tensor) for tensor in keras.tree.flatten(inputs)]
        found += reversed(list(operations_between(inputs, outputs)))
        for operation, before in name_apart({id(operation): operation for operation in found}.values()):
            stack.callback(setattr, operation, "name", before)
        return keras.Model(inputs, outputs, name=name)
