"""The user's training and validation data, as training, calibration and checks need them."""

import copy
import hashlib
import itertools

import keras
import numpy as np

from keras_mot._arrays import to_numpy
from keras_mot._messages import describe
from keras_mot.analysis.data import check_data, count_batches, is_pair
from keras_mot.recipes.arrangement import arranged_batches

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
            try:
                check_data(data)
            except (TypeError, ValueError) as error:
                raise type(error)(str(error).replace("`data`", f"`{name}`")) from error
            counts[name] = _check_repeatable(name, data)
            _check_first(name, data)
        self.train, self.validation = _for_keras(train), _for_keras(validation)
        self._batches = counts["train_data"]

    def named(self):
        """The data that there are, with the names of their arguments."""
        return [(name, data) for name, data in _named(self.train, self.validation) if data is not None]

    def arranged(self, arrangement):
        """The data as a model takes them: see `Arrangement`."""
        arranged = copy.copy(self)
        arranged.train, arranged.validation = (
            None if data is None else _arranged(data, arrangement, name)
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
        return to_numpy(self.train[1]) if is_pair(self.train) else self.head()[1]

    def not_finite(self):
        """Which batch of the training data holds NaN or infinite values, as words; empty, if none does."""
        for number, batch in enumerate([] if is_pair(self.train) else self.train):  # arrays have been looked at
            if not all(map(_is_finite, keras.tree.flatten(to_numpy(batch)))):
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
            total = len(keras.tree.flatten(self.train[0])[0])
            chosen = np.sort(np.random.default_rng(seed).permutation(total)[:samples])
            return _part(self.train[0], chosen)
        batches, count = [], 0
        for x, _ in self.train:
            batches.append(to_numpy(x))
            count += len(keras.tree.flatten(batches[-1])[0])
            if count >= samples:
                break
        return batches

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


class _Batches(keras.utils.PyDataset):
    """A sequence of batches, as `fit` takes it."""

    def __init__(self, items):
        super().__init__()
        self._items = items

    def __len__(self):
        return len(self._items)

    def __getitem__(self, index):
        return self._items[index]


def head_of(data, samples=64):
    """The first samples and labels of data, as NumPy arrays in their structures."""
    return tuple(_part(item, slice(samples)) for item in (data if is_pair(data) else next(iter(data))))


def _named(train, validation):
    return ("train_data", train), ("validation_data", validation)


def _arranged(data, arrangement, name):
    if not is_pair(data):
        return arranged_batches(data, arrangement, name)
    label = f"`{name}`"
    return arrangement.arrange_inputs(data[0], label), arrangement.arrange_labels(data[1], label)


def _known_to_keras(data):
    modules = {kind.__module__.split(".")[0] for kind in type(data).__mro__}
    return isinstance(data, keras.utils.PyDataset) or bool(modules & {"tensorflow", "torch", "grain"})


def _for_keras(data):
    return data if data is None or is_pair(data) or _known_to_keras(data) else _Batches(data)


def _check_repeatable(name, data):
    """Refuses what cannot be gone through many times; returns the number of batches where that took a pass."""
    if is_pair(data):
        return None
    kinds = "Pass arrays, a `tf.data.Dataset`, a `keras.utils.PyDataset` or a PyTorch `DataLoader`."
    if hasattr(data, "__next__"):
        raise TypeError(
            f"`{name}` is a generator, which ends after one pass: every stage goes through it again. {kinds}"
        )
    if not _known_to_keras(data) and not (hasattr(data, "__len__") and hasattr(data, "__getitem__")):
        raise TypeError(f"`{name}` is a {type(data).__name__}, which `fit` does not take. {kinds}")
    try:
        endless = isinstance(data, keras.utils.PyDataset) and data.num_batches is None
        len(data)
    except (TypeError, NotImplementedError) as error:
        endless = "infinite" in str(error)
    if endless:
        raise ValueError(f"`{name}` has no end: give it one, such as by `dataset.take(batches)`.")
    if next(iter(data), None) is not None:
        return _count_passing(name, data)
    return None


def _check_first(name, data):
    """Looks at the first batch, or at all of arrays."""
    batch = data if is_pair(data) else next(iter(data), None)
    if batch is None:
        raise ValueError(f"`{name}` is empty. Expected at least one batch.")
    if not isinstance(batch, tuple | list) or len(batch) != 2:
        many = f" of {len(batch)} items" if isinstance(batch, tuple | list) else ""
        raise ValueError(
            f"The batches of `{name}` should be pairs (x, y), without weights of samples; received "
            f"{type(batch).__name__}{many}."
        )
    for what, structure in zip(("samples", "labels"), batch, strict=True):
        for leaf in map(np.asarray, keras.tree.flatten(to_numpy(structure))):
            if what == "labels" and leaf.dtype.kind not in "fiub" and "float" not in str(leaf.dtype):
                raise ValueError(
                    f"The labels of `{name}` should be numbers; received {describe(leaf)}. Number the classes, such as "
                    "by `numpy.unique(labels, return_inverse=True)`."
                )
            if not _is_finite(leaf):
                raise ValueError(f"The {what} of `{name}` hold NaN or infinite values: remove or replace them.")


def _is_finite(leaf):
    return not np.issubdtype(leaf.dtype, np.floating) or bool(np.isfinite(leaf).all())


def _count_passing(name, data):
    """Refuses what the first pass uses up, such as a dataset around an iterator; counts batches of unknown number."""
    count = None
    try:
        len(data)
    except (TypeError, NotImplementedError):
        count = sum(1 for _ in data)
    if next(iter(data), None) is None:
        raise ValueError(
            f"`{name}` can be gone through once only: every stage goes through it again. Make it from arrays, or from "
            "a function that starts anew each time."
        )
    return count


def _part(structure, chosen):
    return keras.tree.map_structure(lambda leaf: leaf[chosen], to_numpy(structure))
