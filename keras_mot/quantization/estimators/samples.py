"""Calibration data as batches of inputs, the first of which can be had again, with labels or without."""

import itertools
import warnings

import keras
import numpy as np

from keras_mot.data.inputs import checked_inputs, fixed_batch_size, labelled_batches
from keras_mot.data.pairs import first

_KEPT = 128
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
        head: list of the first batches, of 128 samples or somewhat more, to be run as often as needed.
        labelled: list of the first pairs of inputs and labels, of 2048 samples or somewhat more; empty, if labels are
            not needed.
        total: how many batches there are, or `None` if that is not known.

    Raises:
        TypeError: if `data` is no data.
        ValueError: if there is no batch, its shapes do not fit the model, or it lacks labels that are needed.
    """

    def __init__(self, model, data, batch_size=32, labelled=False):
        batch_size = fixed_batch_size(model) or batch_size  # a model may prescribe it
        self.total, batches = labelled_batches(model, data, batch_size, "calibration_data")
        self._rest = _checked(model, batches, labelled)
        self._kept = first(self._rest, _KEPT_WITH_LABELS if labelled else _KEPT)
        if not self._kept:
            raise ValueError("The calibration data is empty: a batch of typical inputs is needed.")
        self.head = [inputs for inputs, _ in first(self._kept, _KEPT)]
        self.labelled = self._kept if labelled else []
        _warn_of_sameness(model, self.head)

    def __iter__(self):
        return (inputs for inputs, _ in itertools.chain(self._kept, self._rest))


def _checked(model, batches, labelled):
    for count, (inputs, labels) in enumerate(batches):
        label = f"batch {count} of the calibration data (counted from 0)"
        if labelled and labels is None:
            raise ValueError(
                f"{label.capitalize()} has no labels, which `loss` needs: give batches of (inputs, labels), or a tuple "
                "of arrays."
            )
        yield checked_inputs(model, inputs, label), labels


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
