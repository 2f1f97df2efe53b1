"""Calibration: the ranges of activations, from the data that a model will see."""

import contextlib
import math

import keras
import numpy as np
from keras import ops

from keras_mot._keras import no_gradients
from keras_mot._messages import describe
from keras_mot._progress import progress_bar
from keras_mot.data.arrays import sample_count
from keras_mot.graph.kinds import WEIGHTED, has_role
from keras_mot.graph.model_graph import Graph
from keras_mot.layers.activation_quantizer import ActivationQuantizer, activation_quantizers, intercepted
from keras_mot.layers.dynamic_quantizer import without_dynamic_rounding
from keras_mot.layers.transformed import transformed_weights
from keras_mot.layers.transformed_weight import evaluated_once
from keras_mot.quantization.estimators.by_place import MeanOfSamples, estimators_by_place
from keras_mot.quantization.estimators.passes import without_rounding
from keras_mot.quantization.estimators.ranges import MeanMinMax, MinMax, MovingAverage, SeenValues

_TIES = 0.1  # share of the values; by chance, one in five hundred lies so near to one


def calibrate(model, samples, estimator, progress=None):
    """Runs a model on data, without rounding, and sets the range of each of its activation quantizers.

    Args:
        model: a model with activation quantizers.
        samples: the `Samples`, or a list of batches of inputs.
        estimator: a `RangeEstimator`.
        progress: whether to show a progress bar; `None`: on a terminal.

    Raises:
        ValueError: if a batch makes an activation NaN or infinite.
    """
    histograms = not isinstance(estimator, (MinMax, MeanMinMax, MovingAverage))
    set_ranges(observe(model, samples, progress, histograms), estimator)


def observe(model, samples, progress=None, histograms=True):
    """What the activation quantizers of a model see of data, without rounding: list of (quantizer, `SeenValues`).

    Quantizers with a fixed range are left out. The arguments are those of `calibrate`; `histograms` tells whether
    histograms are needed.
    """
    seen = {
        id(quantizer): (quantizer, SeenValues(quantizer.grid.steps))
        for quantizer in activation_quantizers(model)
        if quantizer.fixed is None
    }
    count = size = 0

    def watch(quantizer, inputs, averages):
        if quantizer.fixed is not None:
            # What comes after sees these limits: a product with a gate would otherwise get the range of its other
            # factor, so that many results were halves of a step, which runtimes round in different ways.
            return ops.clip(inputs, *quantizer.fixed)
        if id(quantizer) in seen and not averages:
            values = np.asarray(ops.convert_to_numpy(ops.cast(inputs, "float32")))
            _, so_far = seen[id(quantizer)]
            try:
                so_far.add(values, histograms, len(so_far.batches) > count, size)
            except ValueError:
                raise _not_finite(count, quantizer) from None
        return inputs

    with intercepted(watch), evaluated_once(), progress_bar(progress) as bar:
        task = bar.add_task("calibrating", total=getattr(samples, "total", None))
        for inputs in samples:
            size = sample_count(inputs)
            with no_gradients():
                model(inputs, training=False)
            count += 1
            bar.advance(task)
    return list(seen.values())


def calibrate_by_extremes(passes, samples, estimator=None, progress=None):
    """Sets each range by what the extremes of samples tell, in compiled runs.

    Args:
        passes: the `Passes` of the model.
        samples: the `Samples`, or a list of batches of inputs.
        estimator: one that needs no histogram, `MinMax()` or `MeanMinMax()`; `None` for what suits each place.
        progress: whether to show a progress bar; `None`: on a terminal.

    Raises:
        ValueError: if a batch makes an activation NaN or infinite.
    """
    found = {}
    with progress_bar(progress) as bar:
        task = bar.add_task("calibrating", total=getattr(samples, "total", None))
        for count, calls in enumerate(passes.watch(samples)):
            for quantizer, extremes, values, size in calls:
                _, seen = found.setdefault(id(quantizer), (quantizer, SeenValues(quantizer.grid.steps)))
                try:
                    seen.note(extremes, values, size, further=len(seen.batches) > count)
                except ValueError:
                    raise _not_finite(count, quantizer) from None
            bar.advance(task)
    if estimator is None:
        set_by_place(passes.model, found.values())
    else:
        set_ranges(found.values(), estimator)


def set_by_place(model, seen):
    """Sets the ranges that suit the place of each quantizer, from what `observe` returned.

    Training does not widen those of inputs again, which would go back to the rare values that have been cut off.
    """
    estimators = {id(quantizer): estimator for quantizer, estimator in estimators_by_place(model)}
    for quantizer, values in seen:
        estimator = estimators[id(quantizer)]
        low, high = _checked_range(estimator, values)
        quantizer.set_range(low, high)
        if isinstance(estimator, MeanOfSamples) and estimator.held:
            least, greatest = values.limits
            quantizer.limit_to(low if low > least else None, high if high < greatest else None)


def _not_finite(count, quantizer):
    layer = quantizer.name.removesuffix("_quantizer")
    return ValueError(
        f"Batch {count} of the calibration data (counted from 0) makes the activation at '{quantizer.name}' NaN or "
        f"infinite. Look at that batch; if the model means it, as log(0), leave it in floats: `overrides={{'{layer}': "
        "None}`."
    )


def set_ranges(seen, estimator):
    """Sets the ranges that an estimator chooses, from what `observe` returned.

    Where one was asked for, training cuts off nothing of its own accord.
    """
    for quantizer, values in seen:
        quantizer.follow_batches()
        quantizer.set_range(*_checked_range(estimator, values))


def avoid_ties(model, batch):
    """Widens by a step each range in which many values lie half between two of its numbers, and fixes it.

    Images of 256 shades between -1 and 1 do, every pixel of them, since 0 has to be one of the 256 numbers. Which way
    each is rounded is then a matter of the last bit, in which model and runtime differ.

    Args:
        model: a model whose quantizers have ranges.
        batch: inputs as the model takes them.
    """
    early = _before_weights(model)
    if early is None:
        return
    found = {}

    def watch(quantizer, inputs, averages):
        if quantizer.fixed is None and not averages and id(quantizer) not in found:
            values = np.asarray(ops.convert_to_numpy(ops.cast(inputs, "float32"))).reshape(-1)
            chosen = values[np.random.default_rng(0).integers(0, values.size, min(values.size, 5000))]
            steps = chosen.astype("float64") / quantizer.parameters().scale
            near = np.abs(steps - np.floor(steps) - 0.5) < 1e-3
            found[id(quantizer)] = quantizer if near.mean() > _TIES else None
        return inputs

    with intercepted(watch), evaluated_once(), no_gradients():
        early(batch, training=False)
    for quantizer in filter(None, found.values()):
        # Training would go back to the extremes.
        quantizer.fix(*(end * (1.0 + 2.0**-quantizer.bits) for end in quantizer.clipping_range))


def _before_weights(model):
    """The part of a model that ends at quantizers with nothing weighted in front of them, or `None` if there are none.

    What weights have summed up takes any value, so that ties are rare behind them.
    """
    graph, weighted, ends = Graph(model), set(), []
    for call in graph.calls:
        if has_role(call.operation, WEIGHTED) or any(id(tensor) in weighted for tensor in call.inputs):
            weighted.update(id(tensor) for tensor in call.outputs)
        elif isinstance(call.operation, ActivationQuantizer):
            ends += call.outputs
    return keras.Model(model.input, ends, name=model.name) if ends else None


def _checked_range(estimator, seen):
    found = estimator.range(seen)
    try:
        low, high = (float(end) for end in found)
    except (TypeError, ValueError):
        low = high = math.nan
    if not (math.isfinite(low) and math.isfinite(high) and low <= high):
        raise ValueError(
            f"{estimator!r} should return the least and the greatest number; it returned {describe(found)}."
        )
    return low, high


@contextlib.contextmanager
def in_floats(model):
    """Context in which a quantized model, called eagerly, rounds neither weights nor activations."""
    untouched = intercepted(lambda quantizer, inputs, averages: inputs)
    with without_rounding(transformed_weights(model)), untouched, without_dynamic_rounding(), no_gradients():
        yield


def squared_error(received, expected):
    """The sum of the squared differences between two lists of arrays."""
    return sum(float(((a - b) ** 2).sum()) for a, b in zip(received, expected, strict=True))
