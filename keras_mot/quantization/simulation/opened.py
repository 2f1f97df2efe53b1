"""The user's model as one flat graph of layers that are copies: what quantization works on."""

import dataclasses
import warnings
from collections.abc import Callable
from typing import Any

import keras

from keras_mot._keras import forgetting_calls
from keras_mot.graph.opening import open_model
from keras_mot.graph.origins import Origins
from keras_mot.graph.rewrite import everything_of, flatten_with_origins, operations_of
from keras_mot.quantization.lowering.table import lowering_of


@dataclasses.dataclass(frozen=True, eq=False)
class FlatModel:
    """A flat copy of a model.

    Attributes:
        model: the copy.
        origins: the `Origins` of its operations in the user's model.
        in_plain: the `Origins` of its operations in the plain model that was given.
        operations: the operations that it was made from.
        around: dictionary from the id of one of these to the layers that it is called in, the outermost first.
        fixed: the variables of the user's model that have become constants.
        closed: pairs of (layer of the user's model, why it could not be taken apart).
    """

    model: keras.Model
    origins: Origins
    in_plain: Origins
    operations: tuple
    around: dict[int, tuple]
    fixed: tuple[keras.Variable, ...]
    closed: tuple[tuple, ...]


def flat_copy(
    model: keras.Model,
    given: Origins,
    data: Any = None,
    trained: bool = False,
    left: Callable[[Any], bool] = lambda layer: False,
) -> FlatModel:
    """The `FlatModel` of a plain model, whose composite layers are taken apart.

    Warns of what stays one operation though it may be made of others.

    Args:
        model: a built model without weight transforms, which remembers nothing of it.
        given: its `Origins` in the user's model; empty, if it is this one.
        data: calibration data, if there are any.
        trained: whether the copy is going to be trained: then it warns of what is not trained any more.
        left: function from a layer of the user's model to whether it is left in floats: then it stays as it is, if it
            does something in training alone.
    """
    flat, opened = _flat(model, given, data, trained, left)
    if flat.closed:
        listed = "".join(f"\n  {_described(layer)}: {reason}" for layer, reason in flat.closed)
        warnings.warn(
            f"Some layers of '{model.name}' stay as they are, in floats, since they could not be taken apart:{listed}",
            stacklevel=2,
        )
    fixed = [variable.path for variable in flat.fixed if variable.trainable]
    if trained and fixed:
        warnings.warn(
            f"These weights of '{model.name}', which its layers compute with in their own `call`, are constants of the "
            f"quantized model, and are not trained: {', '.join(fixed)}.",
            stacklevel=2,
        )
    apart = _trained_apart(opened) if trained else []
    if apart:
        warnings.warn(
            f"These weights of '{model.name}' are used by a layer that holds them and by others: {', '.join(apart)}. "
            "The quantized model has a weight for each use; they begin alike, and are trained apart.",
            stacklevel=2,
        )
    if opened.lost:
        listed = "".join(f"\n  {_described(given.of(layer))}: {what}" for layer, what in opened.lost)
        warnings.warn(
            f"Some layers of '{model.name}' do something in training alone, in their own `call`. The quantized model "
            f"computes what they do in inference, in training too:{listed}\nPut what is for training into a layer of "
            "its own that otherwise returns its input, as `Dropout` does: then it is kept. Or leave the layer whole, "
            "in floats, by `overrides={layer: None}`.",
            stacklevel=2,
        )
    return flat


def _trained_apart(opened):
    """Paths of the variables that layers of an opened model hold, and that others have as kernels of theirs, too."""
    layers = [each for each in operations_of(opened.model) if isinstance(each, keras.layers.Layer)]
    held = {id(variable) for layer in layers for variable in layer.trainable_variables}
    read = [variable for key, variable in opened.read.items() if key in held and key not in opened.fixed]
    return [variable.path for variable in read]


def _flat(model, given, data, trained, left):
    def is_left(layer):
        return left(given.of(layer))

    with forgetting_calls(everything_of(model)):
        opened = open_model(model, lambda operation: lowering_of(operation) is not None, data, trained, is_left)

        def user(operation):
            return given.of(opened.origins.of(operation))

        operations = operations_of(opened.model)
        around = {id(user(each)): tuple(map(given.of, opened.layers_around(each))) for each in operations}
        flat, origins = flatten_with_origins(opened.model, opened.names)
        origins = origins.through(opened.origins)
        fixed = tuple(opened.fixed.values())
        closed = tuple((given.of(layer), reason) for layer, reason in opened.closed)
        known = tuple(map(user, operations))
        return FlatModel(flat, origins.through(given), origins, known, around, fixed, closed), opened


def _described(layer: Any) -> str:
    return f"'{layer.path or layer.name}' ({type(layer).__name__})"
