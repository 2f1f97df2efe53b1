"""Calibration data as batches of inputs, the first of which can be had again, with labels or without."""

import itertools
import warnings

import keras
import numpy as np
from keras import ops

from keras_mot._arrays import to_numpy
from keras_mot._keras import producer_of

_KEPT = 256
_KEPT_WITH_LABELS = 2048


class Samples:
    """The batches of calibration data, checked, in the structure of a model's inputs.

    Iterating gives all of them; if the data is a generator, once.

    Args:
        model: the model that takes the inputs.
        data: inputs as arrays, a tuple of arrays of inputs and of labels, or an iterable of batches of inputs or of
            (inputs, labels).
        batch_size: how many samples of arrays make a batch.
        labelled: whether labels are needed.

    Attributes:
        head: list of the first batches, of 256 samples or somewhat more, to be run as often as needed.
        labelled: list of the first pairs of inputs and labels, of 2048 samples or somewhat more; empty, if labels are
            not needed.
        total: how many batches there are, or `None` if that is not known.

    Raises:
        TypeError: if `data` is no data.
        ValueError: if there is no batch, its shapes do not fit the model, or it lacks labels that are needed.
    """

    def __init__(self, model, data, batch_size=32, labelled=False):
        batch_size = model.inputs[0].shape[0] or batch_size  # a model may prescribe it
        if _is_pair_of_arrays(model, data):
            self.total, batches = _count(model, data[0], batch_size), _slices(tuple(data[:2]), batch_size)
        else:
            self.total, batches = _count(model, data, batch_size), _batches(model, data, batch_size)
        self._rest = _checked(model, batches, labelled)
        self._kept = _first(self._rest, _KEPT_WITH_LABELS if labelled else _KEPT)
        if not self._kept:
            raise ValueError("The calibration data is empty: a batch of typical inputs is needed.")
        self.head = [inputs for inputs, _ in _first(iter(self._kept), _KEPT)]
        self.labelled = self._kept if labelled else []
        _warn_of_sameness(model, self.head)

    def __iter__(self):
        return (inputs for inputs, _ in itertools.chain(self._kept, self._rest))


def _warn_of_sameness(model, batches):
    """Warns of inputs that are the same in all samples: ranges from these say nothing of real ones."""
    flat = [keras.tree.flatten(batch) for batch in batches]
    for position, tensor in enumerate(model.inputs):
        arrays = [leaves[position] for leaves in flat]
        first, samples = arrays[0][:1], sum(map(len, arrays))
        if not np.issubdtype(first.dtype, np.floating) or samples == first.size == 1:
            continue
        constant = first.min() == first.max()
        same = all(array.shape[1:] == first.shape[1:] and (array == first).all() for array in arrays)
        if same and (constant or samples > 1):
            values = f", {first.min():g} everywhere" if constant else ""
            warnings.warn(
                f"The calibration data of input '{tensor.name}' is the same in all samples{values}: the ranges that "
                "follow from it will not suit real inputs. Give some hundred typical ones.",
                stacklevel=2,
            )


def _is_pair_of_arrays(model, data):
    """Whether `data` is a tuple of arrays of inputs and of labels (and perhaps of weights), as `fit` takes them.

    Raises:
        ValueError: if they are of different lengths.
    """
    if not isinstance(data, tuple) or len(data) not in (2, 3) or _is_arrays(model, data):
        return False
    leaves = keras.tree.flatten(data)
    if not _is_arrays(model, data[0]) or not all(len(getattr(leaf, "shape", ())) for leaf in leaves):
        return False
    lengths = sorted({int(leaf.shape[0]) for leaf in leaves})
    if len(lengths) > 1:
        raise ValueError(
            f"A tuple as calibration data is arrays of inputs and of labels; these have different lengths, {lengths}. "
            "Give batches as a list."
        )
    return True


def _slices(arrays, batch_size):
    """The batches of a structure of arrays."""
    for start in range(0, len(keras.tree.flatten(arrays)[0]), batch_size):
        yield keras.tree.map_structure(lambda leaf: leaf[start : start + batch_size], arrays)  # noqa: B023


def _first(batches, samples):
    """The first pairs of an iterator of inputs and labels, of so many samples or somewhat more."""
    taken, count = [], 0
    while count < samples:
        pair = next(batches, None)
        if pair is None:
            break
        taken.append(pair)
        count += len(keras.tree.flatten(pair[0])[0])
    return taken


def _checked(model, batches, labelled):
    for count, (inputs, labels) in enumerate(batches):
        if labelled and labels is None:
            raise ValueError(
                f"Batch {count} of the calibration data (counted from 0) has no labels, which `loss` needs: give "
                "batches of (inputs, labels), or a tuple of arrays."
            )
        inputs = _in_order(model, inputs, count)
        yield keras.tree.pack_sequence_as(model.input, _checked_arrays(model, inputs, count)), labels


def _is_arrays(model, data):
    """Whether `data` is an array for each input of the model, and not a list of batches."""
    if len(model.inputs) == 1 and isinstance(data, (list, tuple)):
        return False
    leaves = keras.tree.flatten(data)
    arrays = all(isinstance(leaf, np.ndarray) or ops.is_tensor(leaf) for leaf in leaves)
    return arrays and len(leaves) == len(model.inputs)


def _count(model, data, batch_size):
    if _is_arrays(model, data):
        return -(-len(keras.tree.flatten(data)[0]) // batch_size)
    try:
        return len(data)
    except TypeError:
        return None


def _batches(model, data, batch_size):
    """The batches in the data, as pairs of inputs, in the structure of the model's inputs, and labels or `None`."""
    if _is_arrays(model, data):
        yield from ((inputs, None) for inputs in _slices(data, batch_size))
        return
    if isinstance(data, (str, bytes, keras.KerasTensor)) or not hasattr(data, "__iter__"):
        raise TypeError(
            f"`calibration_data` should be arrays of inputs, or an iterable of batches; received {type(data).__name__}."
        )
    for batch in data:
        yield batch[:2] if _is_labelled(model, batch) else (batch, None)


def _is_labelled(model, batch):
    """Whether a batch is inputs and labels, and perhaps weights of samples, and not that many inputs."""
    if not isinstance(batch, (tuple, list)) or len(batch) not in (2, 3):
        return False
    if isinstance(batch[0], (tuple, list, dict)):
        return len(keras.tree.flatten(batch[0])) == len(model.inputs)
    return len(batch) != len(model.inputs)


def _in_order(model, inputs, count):
    """The inputs as the model orders them: a dictionary may name the inputs of a model that takes a list."""
    if not isinstance(inputs, dict):
        return inputs
    listed = not isinstance(model.input, dict)
    names = [producer_of(tensor).name for tensor in model.inputs] if listed else list(model.input)
    if set(inputs) != set(names):
        raise ValueError(
            f"Batch {count} of the calibration data (counted from 0) does not name the model's inputs. Expected: "
            f"{sorted(names)}; received: {sorted(map(str, inputs))}."
        )
    return [inputs[name] for name in names] if listed else inputs


def _checked_arrays(model, inputs, count):
    """The inputs as NumPy arrays: a `tf.data.Dataset` has tensors that other backends do not take."""
    given, expected = keras.tree.flatten(inputs), model.inputs
    shapes = [tuple(getattr(leaf, "shape", ())) for leaf in given]
    fits = len(given) == len(expected) and all(
        len(shape) == len(tensor.shape) and all(b in (None, a) for a, b in zip(shape, tensor.shape, strict=True))
        for shape, tensor in zip(shapes, expected, strict=True)
    )
    if not fits:
        wanted = [tuple(tensor.shape) for tensor in expected]
        raise ValueError(
            f"Batch {count} of the calibration data (counted from 0) does not fit the model's inputs. Expected arrays "
            f"of shapes {wanted}; received {shapes}."
        )
    if len({shape[0] for shape in shapes}) > 1:
        raise ValueError(
            f"Batch {count} of the calibration data (counted from 0) has inputs of different numbers of samples: "
            f"{shapes}."
        )
    arrays = to_numpy(given)
    for values in arrays:
        if values.dtype.kind not in "iufb" and "float" not in str(values.dtype):
            raise ValueError(
                f"Batch {count} of the calibration data (counted from 0) is of type {values.dtype}; numbers are needed."
            )
        if values.size == 0:
            raise ValueError(f"Batch {count} of the calibration data (counted from 0) is empty.")
        if np.issubdtype(values.dtype, np.floating) and not np.isfinite(values).all():
            raise ValueError(f"Batch {count} of the calibration data (counted from 0) has NaN or infinite values.")
    return arrays
