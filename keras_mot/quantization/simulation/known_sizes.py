"""Models that leave sizes beside the batch open, such as the length of a text: where a layer needs them, data say them.

Convolutions, dense layers and whatever looks at each element take any size in integers. Attention, which cuts what
dense layers give into heads, and layers of one's own that compute with sizes, do not.
"""

import dataclasses
import itertools
from typing import Any

import keras
from keras import layers

from keras_mot._keras import calls_anywhere
from keras_mot._warnings import warn
from keras_mot.data.inputs import checked_inputs, labelled_batches
from keras_mot.data.naming import input_name
from keras_mot.data.pairs import first
from keras_mot.graph.functional import as_functional, is_a
from keras_mot.graph.kinds import WEIGHTED, has_role
from keras_mot.graph.rewrite import new_inputs, operations_of, run_on

_SAMPLES = 128
_ITEMS = 8  # of an iterator, which is gone on with afterwards
_CUT_INTO_HEADS = layers.EinsumDense, layers.MultiHeadAttention, layers.GroupQueryAttention


def shapes_of_data(model: keras.Model, fitting: Any) -> tuple[list[tuple] | None, Any]:
    """The shapes that the inputs of a model have in the calibration data, where it leaves sizes open.

    Args:
        model: the user's model.
        fitting: the `Fitting`.

    Returns:
        The shapes, with the model's size of the batch, or `None`: without data, of sizes that all are known, and of
        data of several sizes. And the `Fitting` with all of its data, if some had to be taken out.
    """
    functional = as_functional(model)
    if functional is None or fitting.data is None or not any(None in each.shape[1:] for each in functional.inputs):
        return None, fitting
    data, calibration = fitting.data, fitting.calibration
    if hasattr(data, "__next__"):
        head = list(itertools.islice(data, _ITEMS))
        rest = dataclasses.replace(calibration, data=itertools.chain(head, data))
        data, fitting = iter(head), dataclasses.replace(fitting, calibration=rest)
    _, batches = labelled_batches(functional, data, calibration.batch_size, "calibration_data")
    found = set()
    for inputs, _ in first(batches, _SAMPLES):
        arrays = keras.tree.flatten(checked_inputs(functional, inputs, "a batch of the calibration data"))
        found.add(tuple(array.shape[1:] for array in arrays))
    if len(found) != 1:
        return None, fitting
    sizes = found.pop()
    return [(tensor.shape[0], *each) for tensor, each in zip(functional.inputs, sizes, strict=True)], fitting


def waiting_for_sizes(flat: Any, settings: Any, shapes: list[tuple]) -> list:
    """The user's layers that could compute in integers if sizes were known that their model leaves open.

    Args:
        flat: the `FlatModel`.
        settings: its `OperationSettings`.
        shapes: what `shapes_of_data` found.
    """
    operations = operations_of(flat.model)
    if not _takes(flat.model, shapes):
        return _each_once(around[0] for around in flat.around.values() if around) or [flat.model]
    found = [layer for layer, _ in flat.closed if settings.get(layer) is not None]
    for operation in operations:
        user = flat.origins.of(operation)
        is_cut = any(is_a(operation, each) for each in _CUT_INTO_HEADS)
        if is_cut and settings.get(user) is not None and _has_open_sizes(operation):
            found.append(user)
    if not found and not any(has_role(operation, WEIGHTED) for operation in operations):
        # Nothing would be left for integers: what computes in loops, as recurrent layers do, may.
        found = [flat.origins.of(each) for each in operations if getattr(each, "weights", ()) and _has_open_sizes(each)]
    return _each_once(found)


def _takes(model, shapes):
    """Whether a model of open sizes computes with these: a slice up to an open size, for example, takes all."""
    try:
        run_on(model, new_inputs(model, shapes), lambda operation, *args, **kwargs: operation(*args, **kwargs))
    except Exception:  # whatever operations raise of shapes that do not fit
        return False
    return True


def _has_open_sizes(operation):
    calls = calls_anywhere(operation)
    return any(None in tensor.shape[1:] for call in calls for tensor in call.arguments.keras_tensors)


def _each_once(found):
    return list({id(layer): layer for layer in found}.values())


def with_known_sizes(flat: Any, known: Any, waiting: list) -> Any:
    """The one of two `FlatModel`s to take: that of known sizes, unless nothing more can be taken apart for it.

    Warns of the sizes.

    Args:
        flat: the one that leaves sizes open.
        known: the one of known sizes.
        waiting: what `waiting_for_sizes` found.
    """
    closed = {id(layer) for layer, _ in known.closed}
    helped = [layer for layer in waiting if id(layer) not in closed]
    if not helped:
        return flat
    listed = ", ".join(f"{input_name(tensor)} {tuple(tensor.shape)}" for tensor in known.model.inputs)
    names = ", ".join(f"'{layer.name}'" for layer in helped[:3]) + (" and others" if len(helped) > 3 else "")
    warn(
        f"'{flat.model.name}' leaves sizes of its inputs open, and {names} can compute in integers with known sizes "
        f"alone. The quantized model takes those of the calibration data: {listed}. Give data of the sizes that it "
        "will be used with; to keep sizes open, leave these layers in floats (`overrides={...: None}`)."
    )
    return known
