"""The user's model as one flat graph of layers that are copies: what quantization works on."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import keras

from keras_mot._keras import forgetting_calls
from keras_mot._warnings import warn
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
        closed: pairs of a layer of the user's that could not be taken apart, and why.
        lost: pairs of a layer of the user's, and what it does in training alone, which is not in the copy.
        apart: paths of the variables that layers hold, and that others have as kernels of theirs, too.
    """

    model: keras.Model
    origins: Origins
    in_plain: Origins
    operations: tuple
    around: dict[int, tuple]
    fixed: tuple[keras.Variable, ...]
    closed: tuple[tuple[Any, str], ...]
    lost: tuple[tuple[Any, str], ...]
    apart: tuple[str, ...]


def warn_of(flat: FlatModel, model: keras.Model, asked: Callable[[Any], bool], trained: bool = False) -> None:
    """Warns of what stays one operation though it may be made of others.

    Args:
        flat: the `FlatModel`.
        model: the model that it was made of.
        asked: function from a layer to whether its user left it in floats.
        trained: whether the copy is going to be trained: then it warns of what is not trained any more.
    """
    closed = [(layer, reason) for layer, reason in flat.closed if not asked(layer)]
    if closed:
        listed = "".join(f"\n  {_described(layer)}: {reason}" for layer, reason in closed)
        warn(f"Some layers of '{model.name}' stay as they are, in floats, since they could not be taken apart:{listed}")
    fixed = [variable.path for variable in flat.fixed if variable.trainable]
    if trained and fixed:
        warn(
            f"These weights of '{model.name}', which its layers compute with in their own `call`, are constants of the "
            f"quantized model, and are not trained: {', '.join(fixed)}."
        )
    if trained and flat.apart:
        names = ", ".join(flat.apart)
        warn(
            f"These weights of '{model.name}' are used by a layer that holds them and by others: {names}. The "
            "quantized model has a weight for each use; they begin alike, and are trained apart."
        )
    if flat.lost:
        listed = "".join(f"\n  {_described(layer)}: {what}" for layer, what in flat.lost)
        warn(
            f"Some layers of '{model.name}' do something in training alone, in their own `call`. The quantized model "
            f"computes what they do in inference, in training too:{listed}\nPut what is for training into a layer of "
            "its own that otherwise returns its input, as `Dropout` does: then it is kept. Or leave the layer whole, "
            "in floats, by `overrides={layer: None}`."
        )


def flat_copy(
    model: keras.Model,
    given: Origins,
    data: Any = None,
    shapes: Sequence[tuple] | None = None,
    trained: bool = False,
    left: Callable[[Any], bool] = lambda layer: False,
) -> FlatModel:
    """The `FlatModel` of a plain model, whose composite layers are taken apart.

    Args:
        model: a built model without weight transforms, which remembers nothing of it.
        given: its `Origins` in the user's model; empty, if it is this one.
        data: calibration data, if there are any.
        shapes: as of `open_model`.
        trained: whether the copy is going to be trained.
        left: function from a layer of the user's model to whether it is left in floats: then it stays as it is, if it
            does something in training alone.
    """

    def is_left(layer):
        return left(given.of(layer))

    with forgetting_calls(everything_of(model)):
        opened = open_model(model, _has_lowering, data, trained, is_left, shapes)

        def user(operation):
            return given.of(opened.origins.of(operation))

        operations = operations_of(opened.model)
        around = {id(user(each)): tuple(map(given.of, opened.layers_around(each))) for each in operations}
        flat, origins = flatten_with_origins(opened.model, opened.names)
        origins = origins.through(opened.origins)
        fixed = tuple(opened.fixed.values())
        closed, lost = (tuple((given.of(layer), why) for layer, why in each) for each in (opened.closed, opened.lost))
        known = tuple(map(user, operations))
        return FlatModel(
            flat, origins.through(given), origins, known, around, fixed, closed, lost, _trained_apart(opened)
        )


def _trained_apart(opened):
    layers = [each for each in operations_of(opened.model) if isinstance(each, keras.layers.Layer)]
    held = {id(variable) for layer in layers for variable in layer.trainable_variables}
    return tuple(variable.path for key, variable in opened.read.items() if key in held and key not in opened.fixed)


def _has_lowering(operation):
    return lowering_of(operation) is not None


def _described(layer: Any) -> str:
    return f"'{layer.path or layer.name}' ({type(layer).__name__})"
