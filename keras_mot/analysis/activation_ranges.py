"""The ranges in which a quantized model rounds activations, against the values that data have there."""

import dataclasses
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_mot._keras import no_gradients
from keras_mot._messages import describe
from keras_mot.layers.activation_quantizer import activation_quantizers, intercepted, is_quantized
from keras_mot.layers.transformed import transformed_weights
from keras_mot.quantization.estimators.passes import without_rounding
from keras_mot.quantization.estimators.samples import Samples

_KEPT = 2**17  # values of an activation
_USUAL = (0.1, 99.9)  # percentiles


@dataclasses.dataclass(frozen=True)
class ActivationRange:
    """One place where activations are rounded.

    Attributes:
        name: of the `ActivationQuantizer`.
        bits: of an integer.
        low: the least number that an integer stands for.
        high: the greatest.
        fixed: whether the range follows from the operation, as that of a softmax.
        seen_low: the least value that the data have there.
        seen_high: the greatest.
        usual_low: the value that one in a thousand lies below.
        usual_high: the value that one in a thousand lies above.
        clipped: share of the values that lie beyond the range by more than half a step.
        used: share of the range that the values take.
    """

    name: str
    bits: int
    low: float
    high: float
    fixed: bool
    seen_low: float
    seen_high: float
    usual_low: float
    usual_high: float
    clipped: float
    used: float


def activation_ranges(model: keras.Model, data: Any, batch_size: int = 32) -> tuple[ActivationRange, ...]:
    """The ranges of a quantized model, and what data have there where nothing is rounded.

    Args:
        model: a quantized model. It is not changed.
        data: some hundred typical inputs in any of the forms that `Calibration` takes.
        batch_size: how many samples of arrays are run at a time.

    Returns:
        A tuple of `ActivationRange`, in the order in which the model computes. Without those that have no range yet.

    Raises:
        TypeError: if `model` is no Keras model, or `data` no data.
        ValueError: if the model is not quantized, or the data do not fit it or hold NaN or infinite values.

    Example:

    ```python
    for row in keras_mot.analysis.activation_ranges(quantized, x_train[:256]):
        print(row.name, row.clipped, row.used)
    ```
    """
    if not isinstance(model, keras.Model):
        raise TypeError(f"`activation_ranges` expects a Keras model; received {describe(model)}.")
    if not is_quantized(model):
        raise ValueError(f"'{model.name}' is not quantized: it has no ranges of activations.")
    seen = {id(quantizer): (quantizer, _Seen()) for quantizer in activation_quantizers(model) if quantizer.has_range}
    order = {}

    def watch(quantizer, inputs, averages):
        if id(quantizer) in seen:
            order.setdefault(id(quantizer), len(order))
            low, high = quantizer.parameters().range
            values = np.asarray(ops.convert_to_numpy(ops.cast(inputs, "float32"))).reshape(-1)
            if not np.isfinite(values).all():
                raise ValueError(f"What '{quantizer.name}' rounds is NaN or infinite for these data.")
            seen[id(quantizer)][1].add(values, low, high, quantizer.parameters().scale)
        return inputs

    with intercepted(watch), without_rounding(transformed_weights(model)), no_gradients():
        for inputs in Samples(model, data, batch_size):
            model(inputs, training=False)
    return tuple(_row(*seen[key]) for key in sorted(order, key=order.get))


class _Seen:
    """What is kept of the values of an activation."""

    def __init__(self):
        self.low, self.high, self.count, self.clipped = np.inf, -np.inf, 0, 0
        self.values, self._generator = np.zeros(0, "float32"), np.random.default_rng(0)

    def add(self, values, low, high, step):
        if not values.size:
            return
        self.low, self.high = min(self.low, float(values.min())), max(self.high, float(values.max()))
        self.count += values.size
        self.clipped += int(((values < low - step / 2) | (values > high + step / 2)).sum())
        chosen = values if values.size <= _KEPT // 8 else self._generator.choice(values, _KEPT // 8)
        self.values = np.concatenate([self.values, chosen])
        if self.values.size > _KEPT:
            self.values = self._generator.choice(self.values, _KEPT // 2)


def _row(quantizer, seen):
    parameters = quantizer.parameters()
    low, high = parameters.range
    usual = np.percentile(seen.values, _USUAL)
    used = (min(seen.high, high) - max(seen.low, low)) / (high - low)
    return ActivationRange(
        quantizer.name,
        parameters.bits,
        float(low),
        float(high),
        quantizer.fixed is not None,
        seen.low,
        seen.high,
        float(usual[0]),
        float(usual[1]),
        seen.clipped / max(seen.count, 1),
        float(np.clip(used, 0.0, 1.0)),
    )
