"""Metrics by name: short ones of our own, and those of Keras; and whether more of a metric is better."""

import re

import keras

from keras_mot._keras import metric_direction
from keras_mot._messages import nearest
from keras_mot.analysis import _scores

# From a name to a function of all labels and predictions.
SHORT_NAMES = {
    name: getattr(_scores, name) for name in ("f1", "precision", "recall", "auc", "mae", "mse", "rmse", "r2")
}
_TOP = re.compile(r"top_?(\d+)")
_ERRORS = re.compile(
    r"(error|loss|entropy|divergence|hinge|poisson|cosh|huber|deviation|distance|(^|[_\W])(mae|mse|rmse|mape|msle|false))",
    re.IGNORECASE,
)


def short_metric(name):
    """The function of a short name, such as "f1" or "top5", or `None` if it is none."""
    if name in SHORT_NAMES:
        return SHORT_NAMES[name]
    top = _TOP.fullmatch(name)
    return _scores.top_k(int(top[1])) if top and int(top[1]) else None


def keras_metric(name):
    """The Keras metric of a name, or `None` if there is none that works without arguments."""
    try:
        found = keras.metrics.get(name)
    except (TypeError, ValueError):  # the first, where the metric needs arguments
        found = _functions().get(name)
    if found is None or isinstance(found, keras.metrics.Metric):
        return found
    return keras.metrics.MeanMetricWrapper(found, name=name)


def _functions():
    """The metrics of Keras that are functions of labels and predictions, by name."""
    return {
        name: value
        for name, value in vars(keras.metrics).items()
        if name.islower() and callable(value) and name not in ("get", "serialize", "deserialize")
    }


def hint(name):
    """What may have been meant by a name that is none."""
    classes = {known for known, value in vars(keras.metrics).items() if isinstance(value, type)}
    snakes = {re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", known).lower() for known in classes}
    known = {"accuracy", "top5", *SHORT_NAMES, *_functions(), *snakes} - {"metric"}
    return nearest(str(name).lower(), sorted(known), 3)


def greater_is_better(metric, name):
    """Whether more of a metric is better.

    What a function says of itself (its attribute `greater_is_better`) or Keras knows of a metric comes first; then
    its name: what is called an error, a loss or the like should be small.
    """
    told = getattr(metric, "greater_is_better", None)
    if told is None and isinstance(metric, keras.metrics.Metric):
        told = metric_direction(metric)
    return not _ERRORS.search(name) if told is None else bool(told)
