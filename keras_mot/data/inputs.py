"""Inputs of a model, with labels or without: which part of data is which, and whether the model takes it."""

import inspect
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import keras
import numpy as np

from keras_mot._arrays import to_numpy
from keras_mot._messages import describe
from keras_mot.data.arrangement import input_arrangement
from keras_mot.data.arrays import fit_samples, fits, is_finite, is_number, sample_count, slices
from keras_mot.data.naming import input_name
from keras_mot.data.pairs import is_iterable_of_batches, known_length


def fixed_batch_size(model: keras.Model) -> int | None:
    """The batch size that the model prescribes, or `None` if it takes any or does not tell."""
    shapes = [tensor.shape for tensor in getattr(model, "inputs", None) or []]
    return next((shape[0] for shape in shapes if len(shape) and shape[0] is not None), None)


def labelled_batches(
    model: keras.Model, data: Any, batch_size: int, name: str
) -> tuple[int | None, Iterator[tuple[Any, Any]]]:
    """The batches of inputs, with labels where there are some.

    Args:
        model: a functional model.
        data: inputs as arrays, a tuple of arrays of inputs and of labels (and weights of samples), an iterable of
            batches of inputs or of (inputs, labels), or a function that returns one: see `is_function`.
        batch_size: how many samples of arrays make a batch.
        name: of the argument, for messages.

    Returns:
        The number of batches, or `None` if that is not known; and an iterator of (inputs, labels or `None`).

    Raises:
        TypeError: if `data` is no data.
        ValueError: if arrays of inputs and of labels are of different lengths.
    """
    if is_function(data):
        data = _called(data, name)
    if _are_numbers(data):
        raise TypeError(
            f"`{name}` is made of Python's lists and numbers; arrays are needed. Pass `numpy.asarray(data, 'float32')`"
            ", of an array for each input if there are several."
        )
    if _are_inputs(model, data):
        data = (data, None)
    elif not _are_inputs_and_labels(model, data, name):
        if not is_iterable_of_batches(data) or isinstance(data, keras.KerasTensor):
            raise TypeError(
                f"`{name}` should be arrays of inputs, or an iterable of batches; received {describe(data)}."
                f"{_expected_inputs(model, data)}"
            )
        return known_length(data), (_split(model, batch) for batch in data)
    inputs, labels = data[:2]
    count = -(-sample_count(inputs) // batch_size)
    if labels is None:
        return count, ((batch, None) for batch in slices(inputs, batch_size))
    return count, slices((inputs, labels), batch_size)


def _expected_inputs(model, data):
    """Which inputs a model takes, for a message about others: where there are several, or names are given."""
    if len(model.inputs) < 2 and not isinstance(data, Mapping):
        return ""
    return f" The model takes {len(model.inputs)} inputs: {[input_name(tensor) for tensor in model.inputs]}."


def is_function(data: Any) -> bool:
    """Whether data are to be had by a call, as the `representative_dataset` of TensorFlow's converter is written.

    It yields samples one by one: lists of an array for each input, or dictionaries by the names of the inputs.
    """
    return isinstance(data, Callable) and not (
        isinstance(data, type | keras.Operation) or hasattr(data, "__iter__") or hasattr(data, "shape")
    )


def _called(function: Callable, name: str) -> Iterator[Any]:
    """What a function yields, without the names of signatures that may stand beside the inputs."""
    try:
        inspect.signature(function).bind()
    except (TypeError, ValueError) as error:
        raise TypeError(
            f"`{name}` is a function that needs arguments ({error}); one that is called without any, and yields "
            "inputs, will do."
        ) from None
    data = function()
    if hasattr(data, "shape") or not hasattr(data, "__iter__"):
        raise TypeError(f"The function that is `{name}` should yield inputs; it returned {describe(data)}.")
    if not hasattr(data, "__next__"):
        return data
    return (item[1] if _is_of_signature(item) else item for item in data)


def _is_of_signature(item):
    return isinstance(item, tuple) and len(item) == 2 and isinstance(item[0], str)


def _are_numbers(data):
    """Whether data are numbers in lists, as `numpy.ndarray.tolist` makes them."""
    while isinstance(data, list | tuple | dict) and data:
        data = next(iter(data.values() if isinstance(data, dict) else data))
    return isinstance(data, int | float)


def _are_inputs(model, data):
    """Whether `data` is an array for each input of the model, and not a list of batches."""
    if len(model.inputs) == 1 and isinstance(data, list | tuple):
        return False
    leaves = keras.tree.flatten(data)
    arrays = all(isinstance(leaf, np.ndarray) or keras.ops.is_tensor(leaf) for leaf in leaves)
    return arrays and len(leaves) == len(model.inputs)


def _are_inputs_and_labels(model, data, name):
    """Whether `data` is a tuple of arrays of inputs and of labels (and perhaps of weights), as `fit` takes them."""
    if not isinstance(data, tuple) or len(data) not in (2, 3):
        return False
    # A model that was made with a list of one input takes, and recipes give it, such a list.
    listed = isinstance(data[0], list) and len(data[0]) == len(model.inputs) == 1 and isinstance(model.input, list)
    if not _are_inputs(model, data[0][0] if listed else data[0]):
        return False
    leaves = keras.tree.flatten(data)
    if not all(len(getattr(leaf, "shape", ())) for leaf in leaves):
        return False
    lengths = sorted({int(leaf.shape[0]) for leaf in leaves})
    if len(lengths) > 1:
        raise ValueError(
            f"A tuple as `{name}` is arrays of inputs and of labels; these have different lengths, {lengths}. "
            "Give batches as a list."
        )
    return True


def _split(model, batch):
    """The inputs of a batch, and its labels or `None`; there may be weights of samples, but not as many inputs."""
    if not isinstance(batch, tuple | list) or len(batch) not in (2, 3):
        return batch, None
    if isinstance(batch[0], tuple | list | dict):
        labelled = len(keras.tree.flatten(batch[0])) == len(model.inputs)
    else:
        labelled = len(batch) != len(model.inputs)
    return tuple(batch[:2]) if labelled else (batch, None)


def checked_inputs(model: keras.Model, inputs: Any, label: str) -> Any:
    """A batch of inputs in the structure of the model's, as NumPy arrays, which every backend takes.

    Args:
        model: a functional model.
        inputs: arrays; a dictionary may name the inputs of a model that takes a list.
        label: what messages call the batch.

    Raises:
        ValueError: if they are not the model's inputs, of different numbers of samples, empty, or no finite numbers.
    """
    if isinstance(inputs, Mapping):
        inputs = input_arrangement(model).arrange_inputs(inputs, label)
    given, expected = keras.tree.flatten(inputs), [tuple(tensor.shape) for tensor in model.inputs]
    shapes = [tuple(getattr(leaf, "shape", ())) for leaf in given]
    if len(shapes) != len(expected) or not all(map(fits, shapes, expected)):
        if _are_numbers(inputs):
            raise ValueError(
                f"{_capitalized(label)} is made of Python's lists and numbers; arrays are needed, as by "
                "`numpy.asarray(batch, 'float32')`."
            )
        raise ValueError(_of_other_shapes(label, expected, shapes))
    subject = _capitalized(label)
    if len({shape[0] for shape in shapes}) > 1:
        raise ValueError(f"{subject} has inputs of different numbers of samples: {shapes}.")
    arrays = to_numpy(given)
    for values in arrays:
        if not is_number(values):
            raise ValueError(f"{subject} should be numbers; received {describe(values)}.")
        if values.size == 0:
            raise ValueError(f"{subject} is empty; at least one sample is needed.")
        if not is_finite(values):
            raise ValueError(f"{subject} holds NaN or infinite values: remove or replace them.")
    return keras.tree.pack_sequence_as(model.input, arrays)


def check_shapes(model: keras.Model, x: Any, label: str) -> None:
    """Refuses samples of other shapes than the inputs of a model; passes those of a model that does not tell them.

    Raises:
        ValueError: if they do not fit, however many they are.
    """
    tensors = getattr(model, "inputs", None)
    if not tensors:
        return
    shapes = [tuple(np.shape(leaf)) for leaf in keras.tree.flatten(x)]
    expected = [tuple(tensor.shape) for tensor in tensors]
    if len(shapes) != len(expected) or not all(map(fit_samples, shapes, expected)):
        raise ValueError(_of_other_shapes(label, expected, shapes))


def _of_other_shapes(label, expected, received):
    if len(received) > len(expected) + 4:
        received = f"{len(received)} of shapes {received[:3]} and so on"
    return (
        f"{_capitalized(label)} does not fit the model's inputs. Expected arrays of shapes {expected} (None: any "
        f"size); received {received}."
    )


def _capitalized(label):
    return label[:1].upper() + label[1:]
