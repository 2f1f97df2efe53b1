"""Calibration data as batches of inputs, the first of which can be had again, with labels or without."""

import heapq
import itertools
from typing import Any

import keras
import numpy as np

from keras_mot._arrays import to_numpy
from keras_mot._warnings import warn
from keras_mot.data.arrays import joined, part, sample_count, slices
from keras_mot.data.inputs import checked_inputs, fixed_batch_size, is_function, labelled_batches
from keras_mot.data.pairs import first

_KEPT = 128
_KEPT_WITH_LABELS = 2048
# Of data that do not tell how much there is, and may have no end. Ranges hardly move beyond some hundred samples.
_MOST = 4096


class Samples:
    """The batches of calibration data, checked, in the structure of a model's inputs.

    Iterating gives all of them; if the data is a generator, once.

    Args:
        model: the model that takes the inputs.
        data: inputs as arrays, a tuple of arrays of inputs and of labels, an iterable of batches of inputs or of
            (inputs, labels), or a function that yields samples, such as a `representative_dataset`.
        batch_size: how many samples of arrays, or of what a function yields, make a batch.
        labelled: whether labels are needed.
        most: how many samples to take; by default all, or 4096 of data that do not tell how many there are.

    Attributes:
        head: list of batches, of 128 samples or somewhat more, to be run as often as needed: the first ones, and after
            all have been gone through, samples of all at random, since data may be in the order of classes.
        labelled: list of pairs of inputs and labels, of 2048 samples or somewhat more, likewise; empty, if labels are
            not needed.
        total: how many batches there are, or `None` if that is not known.

    Warns if data that do not tell how many there are go on after as many as are taken by default.

    Raises:
        TypeError: if `data` is no data.
        ValueError: if there is no batch, its shapes do not fit the model, or it lacks labels that are needed.
    """

    def __init__(self, model, data, batch_size=32, labelled=False, most=None):
        prescribed = fixed_batch_size(model)
        self.total, batches = labelled_batches(model, data, prescribed or batch_size, "calibration_data")
        self._rest = _checked(model, batches, labelled)
        if is_function(data) and prescribed is None:
            self._rest = _gathered(self._rest, batch_size)
        if self.total is None or most is not None:
            self._rest = _limited(self._rest, most, whole=prescribed is not None)
        self._kept = first(self._rest, _KEPT_WITH_LABELS if labelled else _KEPT)
        if not self._kept:
            raise ValueError("The calibration data is empty: a batch of typical inputs is needed.")
        self.head = [inputs for inputs, _ in first(self._kept, _KEPT)]
        self.labelled = self._kept if labelled else []
        self._drawn = RandomSamples(_KEPT_WITH_LABELS if labelled else _KEPT) if prescribed is None else None
        _warn_of_sameness(model, self.head)

    def __iter__(self):
        for inputs, labels in itertools.chain(self._kept, self._rest):
            if self._drawn is not None:
                self._drawn.add((inputs, to_numpy(labels)) if self.labelled else (inputs,))
            yield inputs
        drawn = self._drawn.batches() if self._drawn is not None else []
        self._drawn = None
        if drawn:
            self.head = [batch[0] for batch in first(drawn, _KEPT)]
            self.labelled = drawn if self.labelled else []


class RandomSamples:
    """Some of all samples that come by, each with the same chance, in a random order.

    Args:
        most: how many samples to keep.
    """

    def __init__(self, most: int):
        self._most = most
        self._generator = np.random.default_rng(0)
        self._kept = []  # a heap of (-chance, number, sample): the one of the greatest chance goes first
        self._seen = self._batch_size = 0
        self._outlines = set()

    def add(self, batch: Any) -> None:
        """Takes in a batch: a structure of arrays, the first axes of which count the samples."""
        count = sample_count(batch)
        self._batch_size = self._batch_size or count
        self._outlines.add(tuple(leaf.shape[1:] for leaf in keras.tree.flatten(batch)))
        if len(self._outlines) > 1:
            self._kept = []  # which could not be put together
            return
        for place, chance in enumerate(self._generator.random(count)):
            self._seen += 1
            if len(self._kept) == self._most and -chance < self._kept[0][0]:
                continue
            sample = keras.tree.map_structure(np.copy, part(batch, slice(place, place + 1)))
            keep = heapq.heappush if len(self._kept) < self._most else heapq.heapreplace
            keep(self._kept, (-chance, self._seen, sample))

    def batches(self) -> list:
        """The samples in batches as large as the first; empty, if there are samples of several shapes."""
        samples = [sample for _, _, sample in sorted(self._kept, key=lambda item: item[:2])]
        return list(slices(joined(samples), self._batch_size)) if samples else []


class Recorded:
    """Samples that keep what has been iterated over, for who needs it once more.

    Args:
        samples: the `Samples`.
        most: how many samples to keep.

    Attributes:
        seen: list of the batches of inputs that were kept; those of the head, until all have been iterated over.
    """

    def __init__(self, samples: Samples, most: int = 512):
        self.head, self.labelled, self.total = samples.head, samples.labelled, samples.total
        self.seen = self.head
        self._samples, self._most = samples, most

    def __iter__(self):
        kept, count = [], 0
        for inputs in self._samples:
            if count < self._most:
                kept.append(inputs)
                count += sample_count(inputs)
            yield inputs
        self.seen = kept
        self.head, self.labelled = self._samples.head, self._samples.labelled


def _checked(model, batches, labelled):
    for count, (inputs, labels) in enumerate(batches):
        label = f"batch {count} of the calibration data (counted from 0)"
        if labelled and labels is None:
            raise ValueError(
                f"{label.capitalize()} has no labels, which `loss` needs: give batches of (inputs, labels), or a tuple "
                "of arrays."
            )
        yield checked_inputs(model, inputs, label), labels


def _gathered(batches, size):
    """The same samples in batches of some size, as far as they are of one shape."""
    kept = []
    for batch in batches:
        if kept and _outline(batch) != _outline(kept[-1]):
            yield _together(kept)
            kept = []
        kept.append(batch)
        if sum(map(_count, kept)) >= size:
            yield _together(kept)
            kept = []
    if kept:
        yield _together(kept)


def _outline(batch):
    inputs, labels = batch
    return [leaf.shape[1:] for leaf in keras.tree.flatten(inputs)], labels is None


def _together(batches):
    inputs, labels = zip(*batches, strict=True)
    return joined(inputs), None if labels[0] is None else joined(map(to_numpy, labels))


def _count(batch):
    return sample_count(batch[0])


def _limited(batches, most, whole):
    """Batches of so many samples, the last cut unless they are to stay whole; by default of `_MOST`, with a warning."""
    left = _MOST if most is None else most
    for inputs, labels in batches:
        if left <= 0:
            warn(
                f"The calibration data go on after {_MOST} samples, and may have no end: calibration stops there. Some "
                "hundred typical samples are enough. `max_samples` of `Calibration` takes more of them, or fewer."
            )
            return
        if sample_count(inputs) > left and not whole:
            inputs, labels = part(inputs, slice(left)), None if labels is None else part(to_numpy(labels), slice(left))
        left -= sample_count(inputs)
        yield inputs, labels
        if left <= 0 and most is not None:
            return


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
            warn(
                f"The calibration data of input '{tensor.name}' is the same in all samples{values}: the ranges that "
                "follow from it will not suit real inputs. Give some hundred typical ones."
            )
