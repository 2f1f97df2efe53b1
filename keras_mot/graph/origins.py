"""Which operation of one model each operation of another was made from, by the objects themselves."""

from collections.abc import Iterable
from typing import Any

import keras

from keras_mot.layers.copying import copy_and_note


class Origins:
    """The operation (a layer, or one of `keras.ops`) that each operation of a model was made from.

    Functions that make a model from another return such a mapping beside it; `through` composes those of several
    steps. Look-ups go by the objects, so that neither order nor names have to survive.

    Args:
        pairs: pairs of (operation, the operation that it was made from).
    """

    def __init__(self, pairs: Iterable[tuple[Any, Any]] = ()):
        self._pairs = {}  # id of an operation -> (the operation, kept so that its id stays its own; its origin)
        for made, origin in pairs:
            self.note(made, origin)

    def note(self, made: Any, origin: Any) -> None:
        """Says what an operation was made from. What was said first stays: a shared step belongs to its first user."""
        self._pairs.setdefault(id(made), (made, origin))

    def of(self, operation: Any) -> Any:
        """The operation that this one was made from; itself, if none is known."""
        return self._pairs.get(id(operation), (operation, operation))[1]

    def __len__(self) -> int:
        return len(self._pairs)

    def __contains__(self, operation: Any) -> bool:
        return id(operation) in self._pairs

    def through(self, earlier: "Origins") -> "Origins":
        """The origins of these origins: for a model that was made from one that itself was made, as `earlier` says."""
        result = Origins((made, earlier.of(origin)) for made, origin in self._pairs.values())
        for made, origin in earlier._pairs.values():  # operations that the later model shares with the one before
            result.note(made, origin)
        return result


def copy_with_origins(model: keras.layers.Layer) -> tuple[keras.layers.Layer, Origins]:
    """What `copy_model` returns, and the `Origins` of its layers and operations in `model`."""
    copy, pairs = copy_and_note(model)
    return copy, Origins(pairs)
