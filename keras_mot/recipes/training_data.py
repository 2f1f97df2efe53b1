"""The user's training and validation data, as training, calibration and checks need them."""

import copy
import hashlib
import itertools

import keras
import numpy as np

from keras_mot._arrays import to_numpy
from keras_mot._messages import describe
from keras_mot.data.arrays import is_finite, is_number, joined, random_part
from keras_mot.data.pairs import as_pair, check_data, count_batches, first, head_of, is_pair, labels_of
from keras_mot.data.sources import arranged as arranged_data
from keras_mot.data.sources import count_repeatable, for_keras

_EXAMPLES, _EXAMPLES_BYTES = 256, 2**24
_FINGERPRINTED = 64  # samples


class TrainingData:
    """Training and validation data.

    Args:
        train: tuple (x, y) of arrays; or batches (x, y) that can be gone through many times: a `tf.data.Dataset`, a
            `keras.utils.PyDataset`, a PyTorch `DataLoader`, or a sequence.
        validation: the same, or `None`.

    Raises:
        TypeError: if either is of another kind, such as a generator.
        ValueError: if they are empty, uneven, without end, can be gone through once only, hold NaN, infinite values or
            labels that are no numbers, or a batch is no pair of inputs and labels.
    """

    def __init__(self, train, validation):
        counts = {}
        for name, data in _named(train, validation):
            if data is None and name == "validation_data":
                continue
            check_data(data, name)
            counts[name] = count_repeatable(name, data)
            _check_first(name, data)
        self.train, self.validation = for_keras(train), for_keras(validation)
        self._batches = counts["train_data"]

    def named(self):
        """The data that there are, with the names of their arguments."""
        return [(name, data) for name, data in _named(self.train, self.validation) if data is not None]

    def arranged(self, arrangement):
        """The data as a model takes them: see `Arrangement`."""
        arranged = copy.copy(self)
        arranged.train, arranged.validation = (
            None if data is None else arranged_data(data, arrangement, name)
            for name, data in _named(self.train, self.validation)
        )
        return arranged

    @property
    def evaluated(self):
        """What results are measured on: the validation data, or else the training data."""
        return self.train if self.validation is None else self.validation

    def head(self, samples=64):
        """The first samples and labels, as NumPy arrays in the structures of the data."""
        return head_of(self.train, samples)

    def labels(self):
        """All labels of arrays; of batches, those of the first."""
        return labels_of(self.train)

    def not_finite(self):
        """Which batch of the training data holds NaN or infinite values, as words; empty, if none does."""
        for number, batch in enumerate([] if is_pair(self.train) else self.train):  # arrays have been looked at
            if not all(map(is_finite, keras.tree.flatten(to_numpy(batch)))):
                return f"Batch {number} of `train_data` (counted from 0)"
        return ""

    def steps(self, batch_size):
        """Training steps of an epoch."""
        known = count_batches(self.train, batch_size)
        return self._batches if known is None else known

    def fit_arguments(self, batch_size):
        """Arguments of `fit`."""
        if is_pair(self.train):
            return {"x": self.train[0], "y": self.train[1], "batch_size": batch_size}
        return {"x": self.train}

    def validation_arguments(self, batch_size):
        """Arguments of `fit` for validation."""
        if is_pair(self.evaluated):
            return {"validation_data": self.evaluated, "validation_batch_size": batch_size}
        return {"validation_data": self.evaluated}

    def calibration(self, samples, seed):
        """Inputs to calibrate with: a random part of arrays, or the first batches."""
        if is_pair(self.train):
            return random_part(to_numpy(self.train[0]), samples, seed)
        return [to_numpy(x) for x, _ in first(self.train, samples)]

    def examples(self, seed):
        """Some calibration inputs, few of large ones, that a result may keep in memory: as the model takes them."""
        size = sum(np.asarray(leaf).nbytes for leaf in keras.tree.flatten(self.head(1)[0]))
        found = self.calibration(int(np.clip(_EXAMPLES_BYTES // max(size, 1), 8, _EXAMPLES)), seed)
        return joined(found) if isinstance(found, list) and not is_pair(self.train) else found

    def unseen(self, samples, seed):
        """Validation inputs and labels: a random part of arrays, or the first batches; `None`, if there are none."""
        if self.validation is None:
            return None
        if is_pair(self.validation):
            return random_part(to_numpy(self.validation), samples, seed)
        return [to_numpy(tuple(pair)) for pair in first(self.validation, samples)]

    def fingerprint(self):
        """A short text that differs between data sets; only arrays are looked into."""
        digest = hashlib.sha256()
        for data in (self.train, self.validation):
            if not is_pair(data):
                digest.update(type(data).__name__.encode())
                continue
            for leaf in map(np.asarray, itertools.chain(*(keras.tree.flatten(to_numpy(item)) for item in data))):
                digest.update(f"{leaf.shape} {leaf.dtype}".encode())
                chosen = np.linspace(0, len(leaf) - 1, min(len(leaf), _FINGERPRINTED)).astype(int)
                digest.update(np.ascontiguousarray(leaf[chosen]).tobytes())
        return digest.hexdigest()[:16]


def _named(train, validation):
    return ("train_data", train), ("validation_data", validation)


def _check_first(name, data):
    """Looks at the first batch, or at all of arrays."""
    batch = data if is_pair(data) else next(iter(data), None)
    if batch is None:
        raise ValueError(f"`{name}` is empty; at least one batch is needed.")
    for what, structure in zip(("samples", "labels"), as_pair(batch, name), strict=True):
        for leaf in map(np.asarray, keras.tree.flatten(to_numpy(structure))):
            if leaf.ndim == 0:
                raise ValueError(
                    f"The {what} of `{name}` have no dimension for the batch: it should yield batches, and not single "
                    "samples. Make batches, such as by `dataset.batch(32)`."
                )
            if what == "labels" and not is_number(leaf):
                raise ValueError(
                    f"The labels of `{name}` should be numbers; received {describe(leaf)}. Number the classes, such as "
                    "by `numpy.unique(labels, return_inverse=True)`."
                )
            if not is_finite(leaf):
                raise ValueError(f"The {what} of `{name}` hold NaN or infinite values: remove or replace them.")
