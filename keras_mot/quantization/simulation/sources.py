"""Which layers of the user's model the operations of a quantized one were made from, remembered while it lives."""

import dataclasses
import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras

from keras_mot.data.typical_samples import remember, remembered
from keras_mot.graph.functional import as_functional

_SOURCES = weakref.WeakKeyDictionary()


@dataclasses.dataclass(frozen=True)
class Source:
    """A layer or operation of the user's model.

    Attributes:
        name: its name; of a layer within a model or another layer, its path there.
        left: whether the user leaves it in floats.
        closed: why it could not be taken apart, if it may be made of others.
    """

    name: str
    left: bool = False
    closed: str | None = None


def note_sources(
    model: keras.Model,
    user_model: keras.Model,
    origin: Callable[[Any], Any],
    is_left: Callable[[Any], bool],
    closed: Sequence[tuple],
    around: Mapping[int, Sequence[keras.layers.Layer]],
) -> None:
    """Remembers the sources of a quantized model's operations.

    Args:
        model: the quantized model.
        user_model: what it was made from.
        origin: function from an operation of it to one of the user's model.
        is_left: function from an operation of the user's model to whether it is left in floats.
        closed: pairs of (layer of the user's model, why it could not be taken apart).
        around: by the id of an operation of the user's model, the layers that it is called in, the outermost first.
    """
    found, reasons = {}, {id(layer): reason for layer, reason in closed}
    for operation in as_functional(model).operations:
        source = origin(operation)
        # Operations have no path, and Keras names them: the layer whose `call` has them is what the user knows.
        path = getattr(source, "path", None) or "/".join(each.name for each in (*around.get(id(source), ()), source))
        found[operation.name] = Source(
            path.removeprefix(f"{user_model.name}/"), is_left(source), reasons.get(id(source))
        )
    _SOURCES[model] = found


def sources_of(model: keras.Model) -> Mapping[str, Source]:
    """What `note_sources` found, by names of operations; empty for a model that was loaded."""
    return _SOURCES.get(model, {})


def hand_on(model: keras.Model, other: keras.Model) -> None:
    """Remembers for another model all that is remembered of one: the sources, and typical samples.

    Args:
        model: a quantized model.
        other: one that was made from it, and whose operations have their names.
    """
    if remembered(model) is not None:
        remember(other, remembered(model))
    hand_on_sources(model, other)


def hand_on_sources(model: keras.Model, other: keras.Model) -> None:
    """Remembers the sources of a model for another that was made from it, and whose operations have their names."""
    if model in _SOURCES:
        _SOURCES[other] = _SOURCES[model]
