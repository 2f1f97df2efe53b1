"""What the user gives as a metric: a name, a Keras metric, any function, or one of these for each output."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import numpy as np

from keras_mot._messages import describe
from keras_mot.analysis._accumulators import AccuracyAccumulator, FunctionAccumulator, KerasAccumulator
from keras_mot.analysis._metric_names import greater_is_better, hint, keras_metric, short_metric


@dataclasses.dataclass(frozen=True)
class ResolvedMetric:
    """A metric, ready to be computed.

    Attributes:
        name: for tables.
        start: function that starts an accumulator, with `add(y_true, y_pred)` for each batch, `result()`, one number,
            and `parts()`, dictionary from the outputs of a model with several to a number for each.
        greater_is_better: whether more of it is better.
        directions: the same for each output that is judged by a metric of its own.
        names: the names of these metrics.
    """

    name: str
    start: Callable[[], Any]
    greater_is_better: bool = True
    directions: Mapping[str, bool] = dataclasses.field(default_factory=dict)
    names: Mapping[str, str] = dataclasses.field(default_factory=dict)


def make_metric(metric: Any) -> ResolvedMetric:
    """What the user gave as `metric`, resolved.

    Raises:
        ValueError: if it is no metric, or a name that is not known.
    """
    if isinstance(metric, ResolvedMetric):
        return metric
    if isinstance(metric, Mapping):
        return _by_output(metric)
    if isinstance(metric, str):
        one = _named(metric)
        return dataclasses.replace(one, start=lambda: OutputsAccumulator(one, mean=True))
    if isinstance(metric, keras.metrics.Metric):
        return ResolvedMetric(metric.name, lambda: KerasAccumulator(metric), greater_is_better(metric, metric.name))
    if not callable(metric) or isinstance(metric, type):
        raise ValueError(_EXPECTED.format(describe(metric)))
    name = getattr(metric, "__name__", type(metric).__name__)
    return ResolvedMetric(name, lambda: FunctionAccumulator(metric, name), greater_is_better(metric, name))


_EXPECTED = (
    "`metric` should be 'accuracy', the name of a Keras metric such as 'mean_absolute_error', a short name such as "
    "'f1', 'auc', 'mae' or 'top5', a keras.metrics.Metric, a function (y_true, y_pred) -> float, a dictionary from "
    "outputs to these, or None; received {}."
)


def _named(name):
    """The metric of this name, for one output."""
    if name in ("accuracy", "acc"):
        return ResolvedMetric("accuracy", AccuracyAccumulator)
    function = short_metric(name)
    if function is not None:
        more = greater_is_better(function, name)
        return ResolvedMetric(name, lambda: FunctionAccumulator(function, name, numbers=True), more)
    found = keras_metric(name)
    if found is None:
        raise ValueError(_EXPECTED.format(repr(name)) + hint(name))
    return ResolvedMetric(found.name, lambda: KerasAccumulator(found), greater_is_better(found, found.name))


def _by_output(metrics):
    if not metrics or not all(isinstance(name, str) for name in metrics):
        raise ValueError(_EXPECTED.format(describe(metrics)))
    each = {name: _named(item) if isinstance(item, str) else make_metric(item) for name, item in metrics.items()}
    output, first = next(iter(each.items()))
    alike = len(metrics) > 1 and all(item == metrics[output] for item in metrics.values())
    return ResolvedMetric(
        first.name if alike else f"{first.name} of '{output}'",
        lambda: OutputsAccumulator(each, mean=alike),
        first.greater_is_better,
        {name: one.greater_is_better for name, one in each.items()},
        {} if alike else {name: one.name for name, one in each.items()},
    )


class OutputsAccumulator:
    """A metric for each output, and one number for all.

    Args:
        metrics: dictionary from output to `ResolvedMetric`; or one metric for whatever outputs there are.
        mean: whether the one number is the mean; else it is that of the first output named.
    """

    def __init__(self, metrics, mean):
        self._metrics, self._mean, self._started = metrics, mean, None

    def add(self, y_true, y_pred):
        """Takes in the labels and predictions of a batch."""
        several = isinstance(y_pred, Mapping)
        if self._started is None:
            self._started = self._start(y_pred) if several else {None: self._start_one()}
        if not several:
            self._started[None].add(y_true, y_pred)
            return
        labels = labels_by_name(y_true, list(y_pred))
        for name, accumulator in self._started.items():
            accumulator.add(labels[name], y_pred[name])

    def _start(self, y_pred):
        metrics = self._metrics if isinstance(self._metrics, Mapping) else dict.fromkeys(y_pred, self._metrics)
        unknown = [name for name in metrics if name not in y_pred]
        if unknown:
            raise ValueError(f"`metric` names the outputs {unknown}; the model has {list(y_pred)}.")
        return {name: metric.start() for name, metric in metrics.items()}

    def _start_one(self):
        if isinstance(self._metrics, Mapping):
            raise ValueError(f"`metric` names the outputs {list(self._metrics)}; the model has one: give one metric.")
        return self._metrics.start()

    def parts(self):
        """Dictionary from output to its number; empty for one output."""
        if None in self._started:
            return {}
        return {name: accumulator.result() for name, accumulator in self._started.items()}

    def result(self):
        """The one number."""
        values = [accumulator.result() for accumulator in self._started.values()]
        return float(np.mean(values)) if self._mean else values[0]


def labels_by_name(labels, names):
    """The labels of a model of several outputs as a dictionary, from one, or from a list in the order of the outputs.

    Raises:
        ValueError: if there are others than the outputs.
    """
    if isinstance(labels, Mapping) and set(labels) == set(names):
        return labels
    if isinstance(labels, list | tuple) and len(labels) == len(names):
        return dict(zip(names, labels, strict=True))
    raise ValueError(
        f"The model has the outputs {list(names)}: the labels should be a list of an array for each, in this order, or "
        f"a dictionary of these names; received {describe(labels)}."
    )


def with_output_names(metric: ResolvedMetric, names: Sequence[str]) -> ResolvedMetric:
    """The metric for models that give several outputs in this order, but under names of their own."""
    return dataclasses.replace(metric, start=lambda: _NamedOutputs(metric.start(), names))


class _NamedOutputs:
    def __init__(self, accumulator, names):
        self._accumulator, self._names = accumulator, names

    def add(self, y_true, y_pred):
        labels, outputs = labels_by_name(y_true, self._names), list(y_pred.values())
        self._accumulator.add(labels, dict(zip(self._names, outputs, strict=True)))

    def parts(self):
        return self._accumulator.parts()

    def result(self):
        return self._accumulator.result()
