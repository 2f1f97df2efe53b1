"""Metrics over the batches of an evaluation: accuracy, a Keras metric, or any function."""

import keras
import numpy as np


def make_metric(metric):
    """Turns the user's `metric` into (its name, a function that starts an accumulator).

    An accumulator has `add(y_true, y_pred)` and `result()`.
    """
    if isinstance(metric, str) and metric == "accuracy":
        return "accuracy", _Accuracy
    if isinstance(metric, str):
        metric = _named(metric)
    if isinstance(metric, keras.metrics.Metric):
        return metric.name, lambda: _KerasMetric(metric)
    if not callable(metric):
        raise ValueError(_EXPECTED.format(metric))
    return getattr(metric, "__name__", type(metric).__name__), lambda: _Function(metric)


_EXPECTED = (
    "`metric` must be 'accuracy', the name of a Keras metric such as 'mean_absolute_error', a keras.metrics.Metric, "
    "a function (y_true, y_pred) -> float, or None. Received: {!r}."
)


def _named(name):
    """The Keras metric of this name."""
    try:
        found = keras.metrics.get(name)
    except (TypeError, ValueError):  # the second, where the metric needs arguments
        found = None
    if isinstance(found, keras.metrics.Metric):
        return found
    if found is None:
        raise ValueError(_EXPECTED.format(name))
    return keras.metrics.MeanMetricWrapper(found, name=name)


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
            f"{predicted.shape} or one-hot labels of shape {y_pred.shape}. Received: {y_true.shape}."
        )
    return int((expected == predicted).sum()), int(predicted.size)


def _labels(y_true, y_pred):
    if y_true.shape == y_pred.shape:
        if not ((y_true == 0) | (y_true == 1)).all() or not (y_true.sum(-1) == 1).all():
            raise ValueError(
                "`metric='accuracy'` needs one class for each sample. Received: labels of the shape of the "
                "predictions that are not one-hot. Pass a keras.metrics.Metric or a function instead."
            )
        return y_true.argmax(-1)
    return _drop_last(y_true) if y_true.ndim == y_pred.ndim else y_true


def _drop_last(array):
    return array[..., 0] if array.ndim > 1 and array.shape[-1] == 1 else array


class _Accuracy:
    def __init__(self):
        self.correct = self.total = 0

    def add(self, y_true, y_pred):
        if not isinstance(y_true, np.ndarray) or not isinstance(y_pred, np.ndarray):
            raise ValueError(
                "`metric='accuracy'` needs a model with one output and one array of labels. Pass a function "
                "(y_true, y_pred) -> float that picks the output to judge."
            )
        correct, total = count_correct(y_true, y_pred)
        self.correct += correct
        self.total += total

    def result(self):
        return self.correct / self.total


class _KerasMetric:
    """Updates the user's metric at the end only, so that several models can be evaluated side by side."""

    def __init__(self, metric):
        self.metric, self.batches = metric, []

    def add(self, y_true, y_pred):
        self.batches.append((y_true, y_pred))

    def result(self):
        self.metric.reset_state()
        for y_true, y_pred in self.batches:
            try:
                self.metric.update_state(y_true, y_pred)
            except Exception as error:
                raise ValueError(
                    f"`metric` '{self.metric.name}' cannot be computed from labels of shape {np.shape(y_true)} and "
                    f"predictions of shape {np.shape(y_pred)}: {error}"
                ) from error
        value = _to_float(keras.ops.convert_to_numpy(self.metric.result()), self.metric.name)
        self.metric.reset_state()
        return value


class _Function:
    """Gives a function all labels and predictions at once."""

    def __init__(self, function):
        self.function, self.batches = function, []

    def add(self, y_true, y_pred):
        self.batches.append((y_true, y_pred))

    def result(self):
        labels, predictions = zip(*self.batches, strict=True)
        value = self.function(_concatenate(labels), _concatenate(predictions))
        return _to_float(value, getattr(self.function, "__name__", "metric"))


def _concatenate(structures):
    return keras.tree.map_structure(lambda *leaves: np.concatenate(leaves), *structures)


def _to_float(value, name):
    if keras.ops.is_tensor(value):
        value = keras.ops.convert_to_numpy(value)
    if np.size(value) != 1 or isinstance(value, str):
        raise ValueError(f"The metric '{name}' must return a single number. Received: {value!r}.")
    return float(np.asarray(value).reshape(()))
