"""Calls that were recorded for one size of the batch, stated for all sizes.

`ops.shape(x)[0]` is `None` for a symbolic tensor of an open batch, and a `call` that computes with it fails. So the
layer is called with a size that is known and that nothing else is likely to have, and whatever then has this size is
replaced: the size in a shape to reshape to by -1, arrays that repeat one thing for each sample by that one.
"""

import dataclasses
import itertools
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_mot._arrays import numpy_value
from keras_mot._keras import get_keras_mask, operation_class, set_keras_mask

_SIZE = 211  # a prime, so that products with it are told from other sizes
_OTHER_SIZE = 223


class FixedBatchError(ValueError):
    """A call depends on the size of the batch in a way that has no statement for all sizes."""


def is_open(arguments: Any) -> bool:
    """Whether a structure holds symbolic tensors of an open batch."""
    return any(_is_open(item) for item in keras.tree.flatten(arguments))


def _is_open(item):
    return isinstance(item, keras.KerasTensor) and len(item.shape) > 0 and item.shape[0] is None


def multiples(args: tuple, kwargs: dict) -> list[int]:
    """Of which numbers the size of the batch may have to be a multiple.

    The windows of an image stand in the batch, too, and a mask that a layer gets has a row for each of them.
    """
    arrays = [item for item in keras.tree.flatten((args, kwargs)) if _is_array(item) and len(np.shape(item)) > 1]
    return sorted({1, *(int(np.shape(item)[0]) for item in arrays)})


def closed(args: tuple, kwargs: dict, other: bool = False, multiple: int = 1) -> tuple[tuple, dict]:
    """The arguments, with symbolic tensors of a batch of known size in place of those of an open batch.

    Args:
        args: positional arguments.
        kwargs: the others.
        other: whether the batch has the second of two sizes.
        multiple: what its size is a multiple of.
    """
    made, batch_size = {}, multiple * (_OTHER_SIZE if other else _SIZE)

    def like(item):
        if not isinstance(item, keras.KerasTensor):
            return item
        if id(item) not in made:
            shape = (batch_size, *item.shape[1:]) if _is_open(item) else item.shape
            made[id(item)] = keras.Input(batch_shape=shape, dtype=item.dtype)
            if get_keras_mask(item) is not None:
                set_keras_mask(made[id(item)], like(get_keras_mask(item)))
        return made[id(item)]

    return keras.tree.map_structure(like, args), keras.tree.map_structure(like, kwargs)


def opened(inner: Any, arguments: tuple[tuple, dict]) -> Any:
    """The `InnerCalls` of a layer on what `closed` returned, for its own arguments.

    Args:
        inner: the `InnerCalls`.
        arguments: the arguments before `closed`.

    Raises:
        FixedBatchError: if a call cannot be stated without the size.
    """
    given = [item for item in keras.tree.flatten(arguments) if isinstance(item, keras.KerasTensor)]
    given += [mask for mask in map(get_keras_mask, given) if mask is not None]
    stand_ins = list(inner.tensors)
    if len(stand_ins) != len({id(tensor): None for tensor in given}):
        raise FixedBatchError("its arguments share a mask")
    calls = [step for call in inner.calls for step in _steps(call)]
    outputs = keras.tree.map_structure(_without_size, inner.outputs)
    tensors = dict(zip(stand_ins, {id(tensor): tensor for tensor in given}.values(), strict=True))
    return dataclasses.replace(inner, calls=tuple(calls), tensors=tensors, outputs=outputs)


def check_same_numbers(inner: Any, other: Any) -> None:
    """Raises a `FixedBatchError` if calls compute with numbers that follow from the size of the batch.

    Args:
        inner: the `InnerCalls` of a layer on what `closed` returned.
        other: the same for another size.
    """
    calls = [[keras.tree.flatten((call.args, call.kwargs)) for call in each.calls] for each in (inner, other)]
    if [len(items) for items in calls[0]] != [len(items) for items in calls[1]]:
        raise FixedBatchError("which operations it calls")
    for first, second in zip(*map(itertools.chain.from_iterable, calls), strict=True):
        if _is_array(first) and _is_array(second):
            first, second = numpy_value(first), numpy_value(second)
            same = first.shape != second.shape or np.array_equal(first, second)  # or told by its rows
        else:
            numbers = isinstance(first, int | float | np.generic | slice) and not _is_size(first)
            same = not numbers or first == second or (first != first and second != second)
        if not same:
            raise FixedBatchError("a number that follows from it")


def _steps(call):
    """A call for all sizes of the batch, or the calls that do the same."""
    operation = call.operation
    if isinstance(operation, operation_class("Concatenate")) and any(map(_repeats, call.args[0])):
        return _concatenated(call)
    if not isinstance(operation, keras.layers.Layer):
        operation = _of_open_shape(operation, call.outputs)
    args, kwargs = (keras.tree.map_structure(_without_size, item) for item in (call.args, call.kwargs))
    return [dataclasses.replace(call, operation=operation, args=args, kwargs=kwargs)]


def _of_open_shape(operation, outputs):
    """The operation of `keras.ops`, without the size in what it was made with."""
    changed = {}
    for name, value in vars(operation).items():
        if name.startswith("_") or not isinstance(value, (int, tuple, list)) or not _has_size(value):
            continue
        shape = outputs[0].shape if name == "newshape" else ()
        if sum(map(_is_size, shape)) != 1 or None in shape:
            raise FixedBatchError(f"`{name}` of an operation '{type(operation).__name__}'")
        changed[name] = tuple(-1 if _is_size(size) else size for size in shape)
    return type(operation).from_config({**operation.get_config(), **changed}) if changed else operation


def _without_size(item):
    if _repeats(item):
        return numpy_value(item)[:1]  # elementwise operations repeat it
    if (_is_array(item) and _has_size(np.shape(item))) or _is_size(item):
        raise FixedBatchError("an array that has a row for each sample")
    return item


def _concatenated(call):
    """Constants beside a tensor: this one is padded, and they are added where it was."""
    tensors, axis = call.args[0], call.operation.axis
    (output,) = call.outputs
    axis %= len(output.shape)
    symbolic = [index for index, item in enumerate(tensors) if isinstance(item, keras.KerasTensor)]
    if len(symbolic) != 1 or axis == 0 or sum(map(_is_array, tensors)) != len(tensors) - 1:
        raise FixedBatchError("a constant beside several tensors")
    source = tensors[symbolic[0]]
    if "float" not in str(source.dtype):
        raise FixedBatchError("a constant beside integers")
    sizes = [tensor.shape[axis] for tensor in tensors]
    if None in source.shape:
        raise FixedBatchError("a constant beside a tensor of open size")
    before, after = sum(sizes[: symbolic[0]]), sum(sizes[symbolic[0] + 1 :])
    pad_width = [(0, 0)] * len(output.shape)
    pad_width[axis] = (before, after)
    rows = [_row(item, source) for item in tensors]
    padded = keras.KerasTensor(output.shape, output.dtype)
    inner = type(call)(operation_class("Pad")(pad_width), (source,), {}, (padded,))
    constant = np.concatenate(rows, axis=axis)
    return [inner, type(call)(operation_class("Add")(), (padded, constant), {}, (output,))]


def _row(item, source):
    if item is source:
        return np.zeros((1, *source.shape[1:]), source.dtype)
    value = numpy_value(item).astype(source.dtype)
    if not _repeats(item):
        raise FixedBatchError("an array that has a row for each sample")
    return value[:1]


def _is_array(item):
    return isinstance(item, (np.ndarray, keras.Variable)) or ops.is_tensor(item)


def _is_size(item):
    return isinstance(item, (int, np.integer)) and not isinstance(item, bool) and item != 0 and item % _SIZE == 0


def _has_size(value):
    return any(_is_size(item) for item in (value if isinstance(value, (tuple, list)) else (value,)))


def _repeats(item):
    """Whether something is an array whose rows, one for each sample, are all the same."""
    if not _is_array(item) or len(np.shape(item)) == 0 or not _is_size(np.shape(item)[0]):
        return False
    value = numpy_value(item)
    return bool((value == value[:1]).all())
