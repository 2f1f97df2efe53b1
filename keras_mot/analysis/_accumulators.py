"""Metrics over the batches of an evaluation, added up."""

import keras
import numpy as np

from keras_mot._messages import describe
from keras_mot.data.arrays import joined


def count_correct(y_true, y_pred):
    """Counts correct classifications.

    Args:
        y_true: Integer labels of shape (..., ) or (..., 1), or one-hot labels of the shape of `y_pred`.
        y_pred: Scores of shape (..., classes), of which the largest wins; or, for two classes, probabilities
            of shape (..., 1) or (...), of which those above 0.5 mean class 1.

    Returns:
        (number of correct, number of classified).

    Raises:
        ValueError: Labels and predictions do not fit each other.
    """
    if y_pred.ndim >= 2 and y_pred.shape[-1] > 1 and y_pred.ndim >= y_true.ndim:
        predicted = y_pred.argmax(-1)
        expected = _labels(y_true, y_pred)
    else:
        predicted = (_drop_last(y_pred) > 0.5).astype(int)
        expected = _drop_last(y_true)
    if expected.shape != predicted.shape:
        raise ValueError(
            f"The labels do not fit the predictions for `metric='accuracy'`. Expected labels of shape "
            f"{predicted.shape} or one-hot labels of shape {y_pred.shape}; received {y_true.shape}."
        )
    return int((expected == predicted).sum()), int(predicted.size)


def _labels(y_true, y_pred):
    if y_true.shape == y_pred.shape:
        if not ((y_true == 0) | (y_true == 1)).all() or not (y_true.sum(-1) == 1).all():
            raise ValueError(
                "`metric='accuracy'` needs one class for each sample; received labels of the shape of the "
                "predictions that are not one-hot. Pass a keras.metrics.Metric or a function instead."
            )
        return y_true.argmax(-1)
    return _drop_last(y_true) if y_true.ndim == y_pred.ndim else y_true


def _drop_last(array):
    return array[..., 0] if array.ndim > 1 and array.shape[-1] == 1 else array


def _check_one_output(name, y_true, y_pred):
    if not isinstance(y_true, np.ndarray) or not isinstance(y_pred, np.ndarray):
        raise ValueError(
            f"`metric` '{name}' needs one array of labels for each output; received labels {describe(y_true)}, "
            f"predictions {describe(y_pred)}."
        )
    if y_true.dtype.kind not in "fiub":
        raise ValueError(
            f"`metric` '{name}' needs labels that are numbers; received {describe(y_true)}. Number the classes, such "
            "as by `numpy.unique(labels, return_inverse=True)`."
        )


class AccuracyAccumulator:
    """Counts right classifications."""

    def __init__(self):
        self.correct = self.total = 0

    def add(self, y_true, y_pred):
        _check_one_output("accuracy", y_true, y_pred)
        correct, total = count_correct(y_true, y_pred)
        self.correct += correct
        self.total += total

    def result(self):
        return self.correct / self.total


class KerasAccumulator:
    """Updates the user's metric at the end only, so that several models can be evaluated side by side."""

    def __init__(self, metric):
        self.metric, self.batches = metric, []

    def add(self, y_true, y_pred):
        if isinstance(y_true, np.ndarray):
            _check_one_output(self.metric.name, y_true, y_pred)
        self.batches.append((y_true, y_pred))

    def parts(self):
        return {}

    def result(self):
        self.metric.reset_state()
        for y_true, y_pred in self.batches:
            try:
                self.metric.update_state(y_true, y_pred)
            except Exception as error:
                raise _not_computed(self.metric.name, y_true, y_pred, error) from error
        value = _to_float(self.metric.result(), self.metric.name)
        self.metric.reset_state()
        return value


class FunctionAccumulator:
    """Gives a function all labels and predictions at once; `numbers`: arrays of numbers alone."""

    def __init__(self, function, name, numbers=False):
        self.function, self.name, self.numbers, self.batches = function, name, numbers, []

    def add(self, y_true, y_pred):
        if self.numbers:
            _check_one_output(self.name, y_true, y_pred)
        self.batches.append((y_true, y_pred))

    def parts(self):
        return {}

    def result(self):
        y_true, y_pred = (joined(items) for items in zip(*self.batches, strict=True))
        try:
            value = self.function(y_true, y_pred)
        except Exception as error:
            raise _not_computed(self.name, y_true, y_pred, error) from error
        return _to_float(value, self.name)


def _not_computed(name, y_true, y_pred, error):
    reason = str(error) or type(error).__name__
    return ValueError(
        f"`metric` '{name}' cannot be computed from labels of shape {_shapes(y_true)} and predictions of shape "
        f"{_shapes(y_pred)}: {reason}"
    )


def _shapes(structure):
    """The shape of an array; of several, by name or as a list."""
    return keras.tree.map_structure(np.shape, structure) if keras.tree.is_nested(structure) else np.shape(structure)


def _to_float(value, name):
    """The number that a metric returned."""
    if keras.ops.is_tensor(value):
        value = keras.ops.convert_to_numpy(value)
    array = np.asarray(value) if np.size(value) == 1 else None
    if array is None or array.dtype.kind not in "fiub":
        raise ValueError(f"The metric '{name}' should return a single number; received {describe(value)}.")
    return float(array.reshape(()))
