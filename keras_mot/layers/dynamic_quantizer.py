"""Rounding of activations by the range of each row, which is found as the model runs: dynamic quantization."""

import contextlib
import contextvars
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_mot._keras import flatten_layers
from keras_mot.layers.same_shape import SameShape

_LOWEST, _HIGHEST = np.float32(-128), np.float32(127)
_MODE = contextvars.ContextVar("dynamic_quantizer_mode", default=None)


class _OfTarget(SameShape):
    """A layer that remembers the target that its model is made for."""

    def __init__(self, target: str = "litert", **kwargs: Any):
        super().__init__(**kwargs)
        self.target = target

    def get_config(self):
        """The arguments of the constructor."""
        return {**super().get_config(), "target": self.target}


@keras.saving.register_keras_serializable("keras_mot")
class DynamicQuantizer(_OfTarget):
    """Rounds each row of its inputs to the 256 numbers that integers of 8 bits stand for in the row's own range.

    A row is what lies along the last axis: the inputs of one product of a dense layer. The range takes in 0. So do
    kernels with dynamic ranges: XNNPACK's `qd8`, which LiteRT runs dense layers by whose weights are integers and whose
    activations are floats. Gradients pass through the rounding.

    Args:
        target: name of the `keras_mot.targets.Target` that the model is made for.
        **kwargs: arguments of `keras.layers.Layer`.
    """

    def call(self, inputs):
        """The nearest numbers; same shape and dtype as `inputs`, but floats."""
        mode = _MODE.get()
        if "float" not in keras.backend.standardize_dtype(inputs.dtype):
            inputs = ops.cast(inputs, self.compute_dtype)
        if mode is not None:
            return mode(self, inputs)
        values = ops.stop_gradient(ops.cast(inputs, "float32"))
        return inputs + ops.stop_gradient(ops.cast(rounded_rows(values) - values, inputs.dtype))


@keras.saving.register_keras_serializable("keras_mot")
class DynamicResult(_OfTarget):
    """Returns its inputs: what a kernel with dynamic ranges has computed, so that no exporter changes its weights.

    Converters multiply weights by what stands behind them, which would no longer be the integers of the model.

    Args:
        target: name of the `keras_mot.targets.Target` that the model is made for.
        **kwargs: arguments of `keras.layers.Layer`.
    """

    def call(self, inputs):
        """The inputs."""
        mode = _MODE.get()
        return inputs if mode is None else mode(self, inputs)


def rounded_rows(values: Any, array: Any = ops) -> Any:
    """Each row rounded to the numbers of its range, step by step as XNNPACK does.

    Args:
        values: float32 tensor of `array`; rows lie along the last axis.
        array: `keras.ops` or `numpy`.
    """
    low = array.minimum(array.min(values, axis=-1, keepdims=True), 0.0)
    high = array.maximum(array.max(values, axis=-1, keepdims=True), 0.0)
    width = high - low
    factor = array.where(width == 0.0, 1.0, (_HIGHEST - _LOWEST) / array.where(width == 0.0, 1.0, width))
    least, most = low * factor, high * factor
    # Of the two ends of the range, the one that integers reach less well decides where 0 is.
    zero = array.where(_LOWEST + least + _HIGHEST + most > 0.0, _LOWEST - least, _HIGHEST - most)
    zero = array.round(array.clip(zero, _LOWEST, _HIGHEST))
    integers = array.clip(array.round(values * factor) + zero, _LOWEST, _HIGHEST)
    return (integers - zero) * (1.0 / factor)


@contextlib.contextmanager
def dynamic_quantizers_as(function: Callable[[keras.layers.Layer, Any], Any]):
    """While open, `function(layer, inputs)` takes the place of the call of each quantizer and `DynamicResult`."""
    token = _MODE.set(function)
    try:
        yield
    finally:
        _MODE.reset(token)


def without_dynamic_rounding():
    """Context in which dynamic quantizers return their inputs."""
    return dynamic_quantizers_as(lambda layer, inputs: inputs)


def dynamic_parts(model: keras.Model) -> list[keras.layers.Layer]:
    """What stands around the kernels with dynamic ranges of a model: quantizers and results."""
    return [layer for layer in flatten_layers(model) if isinstance(layer, DynamicQuantizer | DynamicResult)]


def is_dynamic(model: keras.Model) -> bool:
    """Whether a model was quantized with dynamic ranges."""
    return bool(dynamic_parts(model))
