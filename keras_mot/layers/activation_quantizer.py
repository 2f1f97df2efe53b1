"""Fake quantization of activations: a layer between others."""

import contextlib
import contextvars
import dataclasses
import math
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_mot import _torch
from keras_mot._keras import calls_anywhere, flatten_layers, producer_of, train_only_while
from keras_mot.layers.activation_rounding import followed, off_ties, rounded
from keras_mot.layers.clipping_ranges import ClippingRange, moved, range_of, settings_of, typical_extremes
from keras_mot.layers.dynamic_quantizer import is_dynamic
from keras_mot.layers.same_shape import SameShape
from keras_mot.transforms.fake_quantize import with_gradient_times
from keras_mot.transforms.grid import Grid, QuantizationParameters

_MANY = 256  # numbers of a sample; the extremes of fewer are nothing rare
_FAR = float(np.finfo("float32").max)
_MODE = contextvars.ContextVar("activation_quantizer_mode", default=(None, False))


@dataclasses.dataclass(frozen=True)
class RangeState:
    """What setting a range changes of a quantizer: see `ActivationQuantizer.state`."""

    range: ClippingRange
    clipping_range: tuple[float, float]
    batches: float
    limits: tuple[float, float] | None


@keras.saving.register_keras_serializable("keras_mot")
class ActivationQuantizer(SameShape):
    """Rounds activations to the numbers that integers of a few bits stand for, in a range that it learns or is given.

    Up to 8 bits, the integers are asymmetric, and 0 is one of the numbers; with 16 bits they are symmetric, from
    -32767 to 32767, as LiteRT's integer kernels demand. Gradients pass within the range, and are 0 outside.

    In training the range follows the batches' by an exponential moving average that starts with the first
    batch (Jacob et al., 2018, arXiv:1712.05877, section 3.1). What sees no batch before it is used leaves its
    inputs as they are.

    With `learned`, the ends of the range are trained instead (Esser et al., 2020, "Learned Step Size Quantization",
    arXiv:1902.08153, for both ends as in Bhalgat et al., 2020, "LSQ+", arXiv:2004.09576). Their gradients are such that
    with SGD the scale of a range that starts at 0 moves exactly as in the paper, its factor
    1 / sqrt(features * steps) included. An end that is 0 stays 0. The range must be set before training. It is trained
    only while the layer is whose results it rounds.

    Args:
        bits: bits of an integer: 4, 8 or 16.
        decay: of the moving average; `None` for a range that training leaves as it is.
        fixed: (least, greatest) number, or `None` for a range that follows the data.
        in_training: whether activations are rounded in training, too.
        calls: how often a model calls the quantizer in one step. If that is more than once, the range follows the
            extremes of all calls: each call shrinks it by as much less.
        limits: (least, greatest) number that a range that follows the data may have, or `None`.
        learned: whether the range is trained, of at most 8 bits; nothing, if it is fixed.
        widening: whether the range takes in all values of all batches, instead of following an average.
        of_samples: whether a range that follows an average goes by the means of the samples' extremes, where those of
            all are rare, and a sample has at least 256 numbers.
        symmetric: whether the integer 0 stands for 0, and the range reaches equally far on both sides; by default, with
            16 bits.
        narrow: whether the lowest integer is left out; by default, with 16 bits.
        target: name of the `keras_mot.targets.Target` that the model was quantized for.
        output_name: what a functional model calls an output that comes from here; `None`: after the layer, as always.
        **kwargs: arguments of `keras.layers.Layer`.

    Attributes:
        grid: the `Grid` of the integers.
        range: the `ClippingRange`: how the range comes about.
        limits: (least, greatest) number that the range may have, or `None`; see `limit_to`.
    """

    def __init__(
        self,
        bits: int = 8,
        decay: float | None = 0.99,
        fixed: tuple[float, float] | None = None,
        in_training: bool = True,
        calls: int = 1,
        limits: tuple[float, float] | None = None,
        learned: bool = False,
        widening: bool = False,
        of_samples: bool = False,
        symmetric: bool | None = None,
        narrow: bool | None = None,
        target: str = "litert",
        output_name: str | None = None,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.bits, self.in_training, self.calls = bits, in_training, calls
        fixed = None if fixed is None else tuple(float(value) for value in fixed)
        self.grid = Grid(bits, *(bits == 16 if form is None else form for form in (symmetric, narrow)))
        self.range = range_of(decay, fixed, calls, learned, widening, of_samples)
        self.target, self.output_name = target, output_name
        self.limits = None if limits is None else tuple(float(value) for value in limits)
        low, high = fixed or (0.0, 0.0)
        self._low, self._high = (
            self._variable(name, value, trainable=self.learned) for name, value in (("low", low), ("high", high))
        )
        # How many batches the range has seen; 0 as long as there is none.
        self._batches = self._variable("batches", 1.0 if fixed else 0.0)
        for end in (self._low, self._high) if self.learned else ():
            train_only_while(end, lambda: self._follows_trained_layer)
        self.built = True

    @property
    def _follows_trained_layer(self):
        """Whether a layer is trained whose results are rounded here; inputs and plain operations are taken for such."""
        tensors = [tensor for node in calls_anywhere(self) for tensor in node.arguments.keras_tensors]
        sources = [producer_of(tensor) for tensor in tensors]
        return not sources or any(getattr(source, "trainable", True) for source in sources)

    def _variable(self, name, value, trainable=False):
        """A number in float32, whatever the policy: the export reads the same one."""
        return self.add_weight(
            name=name,
            shape=(),
            # Keras's `Constant` takes three operations for each of the dozens of numbers.
            initializer=lambda shape, dtype: ops.convert_to_tensor(np.float32(value)),
            trainable=trainable,
            dtype="float32",
            autocast=False,
        )

    @property
    def fixed(self) -> tuple[float, float] | None:
        """The (least, greatest) number that was given, or `None` for a range that follows the data."""
        return settings_of(self.range)["fixed"]

    @property
    def decay(self) -> float | None:
        """Of the moving average; `None` for a range that training leaves as it is."""
        return settings_of(self.range)["decay"]

    @property
    def learned(self) -> bool:
        """Whether the range is trained."""
        return self.range.trained

    def call(self, inputs, training=None, averages=False):
        """The rounded inputs; same shape and dtype.

        Args:
            inputs: float tensor.
            training: whether the range follows the inputs.
            averages: whether the inputs are means of numbers that are rounded already. The range does not follow them,
                and what lies half between two integers is rounded away from the integer 0, as runtimes do.
        """
        mode, whole = _MODE.get()
        if not whole:
            inputs = self.prepared(inputs, training)
        if mode is not None:
            return mode(self, inputs, averages)
        if training and self.range.follows and not averages:
            self._follow(inputs)
        if training and not self.in_training:
            return inputs
        return self.rounded(inputs, averages)

    def prepared(self, inputs, training=None):
        """What is rounded: the inputs, unless a subclass does more than an integer kernel can."""
        return inputs

    def rounded(self, inputs, averages=False):
        """The inputs rounded to the range that is known, or unchanged; same shape and dtype.

        Args:
            inputs: float tensor.
            averages: as of `call`.
        """
        floats = ops.cast(inputs, "float32")
        if self.learned:
            if averages:
                floats = off_ties(floats, *self.grid.scale_and_zero(*self._nudged(), ops), self.grid)
            return ops.cast(self._rounded_to_learned(floats), inputs.dtype)
        if _on_torch_cpu(inputs):
            return ops.cast(self._rounded_eagerly(floats, averages), inputs.dtype)
        known = (ops.convert_to_tensor(each.value) for each in (self._low, self._high, self._batches))
        return ops.cast(rounded(floats, *known, self._limits(), self.grid, averages), inputs.dtype)

    def _rounded_eagerly(self, floats, averages):
        """The same on PyTorch, in Python numbers: a dozen tensor operations cost as much as the rounding."""
        if not self.has_range:
            return floats
        if not np.isfinite(self.clipping_range).all():
            return floats * float("nan")  # training has diverged: what it reports shall say so
        parameters = self.parameters()
        low, high = parameters.range
        if averages:
            floats = off_ties(floats, parameters.scale, parameters.zero_point - self.grid.lowest, self.grid)
        return _torch.rounded_activations(floats, -high if self.grid.symmetric else low, high, parameters.scale)

    def _limits(self):
        return () if self.limits is None else tuple(np.float32(limit) for limit in self.limits)

    def nudged_range(self) -> tuple[np.float32, np.float32]:
        """The range, with 0 in it, and not empty."""
        low, high = self.clipping_range
        return self.grid.clipping_range(np.float32(low), np.float32(high), self._limits() or None)

    def _rounded_to_learned(self, inputs):
        steps = self.grid.steps
        features = math.prod(length or 1 for length in inputs.shape[1:])
        ends = (
            with_gradient_times(ops.convert_to_tensor(end.value), steps**1.5 / math.sqrt(features))
            for end in (self._low, self._high)
        )
        low, high = self.grid.clipping_range(*ends, self._limits() or None, ops)
        scale, zero = self.grid.scale_and_zero(low, high, ops)
        zero = ops.stop_gradient(zero)
        ratio = inputs / scale
        integers = ops.stop_gradient(ops.round(ratio))
        inside = (ratio + ops.stop_gradient(integers - ratio)) * scale
        below = low + ops.stop_gradient(-zero * scale - low)
        above = high + ops.stop_gradient((steps - zero) * scale - high)
        return ops.where(integers < -zero, below, ops.where(integers > steps - zero, above, inside))

    def _follow(self, inputs):
        values = ops.stop_gradient(ops.cast(inputs, "float32"))
        kind, features = self.range, math.prod(length or 0 for length in values.shape[1:])
        if kind.of_samples and features < _MANY:
            kind = dataclasses.replace(kind, of_samples=False)
        if kind.of_samples:
            values = ops.reshape(values, (-1, features))
        if _on_torch_cpu(values):
            return self._follow_extremes(
                *(typical_extremes(values, ops) if kind.of_samples else _torch.extremes(values))
            )
        ends = (self._low, self._high)
        *known, batches = (ops.convert_to_tensor(each.value) for each in (*ends, self._batches))
        for variable, end in zip(ends, followed(values, *known, batches, kind), strict=True):
            variable.assign(end)
        self._batches.assign(batches + 1.0)

    def _follow_extremes(self, low, high):
        """The same in Python numbers; `low` and `high` are the extremes of a batch."""
        batches = float(ops.convert_to_numpy(self._batches))
        known = self.clipping_range
        found = float(low), float(high)
        extremes = (end if math.isinf(value) else value for value, end in zip(found, known, strict=True))
        ends = moved(self.range, known, tuple(extremes), batches)
        for variable, end in zip((self._low, self._high), ends, strict=True):
            variable.assign(float(end))
        self._batches.assign(batches + 1.0)

    def _nudged(self):
        """What `nudged_range` returns, as tensors."""
        ends = (ops.convert_to_tensor(end.value) for end in (self._low, self._high))
        return self.grid.clipping_range(*ends, self._limits() or None, ops)

    @property
    def has_range(self) -> bool:
        """Whether the range is known."""
        return float(ops.convert_to_numpy(self._batches)) > 0

    @property
    def clipping_range(self) -> tuple[float, float]:
        """The least and the greatest number of the range, as it was set or has followed the data."""
        return tuple(float(ops.convert_to_numpy(value)) for value in (self._low, self._high))

    def set_range(self, low: float, high: float) -> None:
        """Sets the range of the numbers to round to; 0 is always in it. Training goes on from there."""
        self._low.assign(float(low))
        self._high.assign(float(high))
        self._batches.assign(self.range.settled_after)

    def fix(self, low: float, high: float) -> None:
        """Sets the range, and lets no training move it to the extremes of batches; gradients move a learned one."""
        if self.range.follows:
            self.range = ClippingRange()
        self.set_range(low, high)

    def follow_batches(self) -> None:
        """Lets training move a range that follows samples by the extremes of all values instead."""
        if self.range.follows and self.range.of_samples:
            self.range = dataclasses.replace(self.range, of_samples=False)

    def limit_to(self, low: float | None = None, high: float | None = None) -> None:
        """Lets the range reach no further than to `low` and `high`, also in training; `None`: as far as before.

        It must be said before the model is compiled, or it is to be compiled anew.
        """
        least, greatest = self.limits or (-_FAR, _FAR)
        least, greatest = least if low is None else max(low, least), greatest if high is None else min(high, greatest)
        self.limits = float(least), float(greatest)

    def state(self) -> RangeState:
        """What `set_range`, `fix` and `limit_to` change, to be put back by `restore`."""
        return RangeState(self.range, self.clipping_range, float(ops.convert_to_numpy(self._batches)), self.limits)

    def restore(self, state: RangeState) -> None:
        """Puts back what `state` returned."""
        self.range, self.limits = state.range, state.limits
        for variable, value in zip((self._low, self._high), state.clipping_range, strict=True):
            variable.assign(value)
        self._batches.assign(state.batches)

    @property
    def is_settled(self) -> bool:
        """Whether there is a range, of finite numbers."""
        return self.has_range and bool(np.isfinite(self.clipping_range).all())

    def parameters(self) -> QuantizationParameters:
        """The scale and the zero point that the range comes to."""
        return self.grid.parameters(*self.clipping_range, self.limits)

    def compute_output_spec(self, inputs, training=None, averages=False):
        """The inputs' own."""
        return keras.KerasTensor(inputs.shape, inputs.dtype)

    def get_config(self):
        """The constructor's arguments."""
        return {
            **super().get_config(),
            "bits": self.bits,
            "symmetric": self.grid.symmetric,
            "narrow": self.grid.narrow,
            **settings_of(self.range),
            "in_training": self.in_training,
            "calls": self.calls,
            "limits": self.limits,
            "target": self.target,
            "output_name": self.output_name,
        }


def _on_torch_cpu(tensor):
    return keras.backend.backend() == "torch" and tensor.device.type == "cpu"


@contextlib.contextmanager
def intercepted(function, whole=False):
    """While open, `function(quantizer, inputs, averages)` takes the place of every quantizer's rounding.

    Args:
        function: what is called.
        whole: whether it takes the place of what comes before the rounding, too, which no file has: `prepared`.
    """
    token = _MODE.set((function, whole))
    try:
        yield
    finally:
        _MODE.reset(token)


def activation_quantizers(model: keras.Model) -> list[ActivationQuantizer]:
    """The activation quantizers of a model, in its own order."""
    return [layer for layer in flatten_layers(model) if isinstance(layer, ActivationQuantizer)]


def is_quantized(model: keras.Model) -> bool:
    """Whether a model has quantizers of activations, with ranges of their own or dynamic ones."""
    return bool(activation_quantizers(model)) or is_dynamic(model)


def in_input_ranges(model: keras.Model, arrays: list) -> list:
    """Standard normal numbers, moved into the ranges of the quantizers right behind the inputs of a model."""
    result = list(arrays)
    for layer in activation_quantizers(model):
        calls = calls_anywhere(layer)
        source = calls[0].arguments.keras_tensors[0] if calls else None
        for position, tensor in enumerate(model.inputs):
            if tensor is source and np.issubdtype(result[position].dtype, np.floating):
                low, high = layer.parameters().range
                share = np.clip(arrays[position] / 6 + 0.5, 0.0, 1.0)
                result[position] = (low + (high - low) * share).astype(arrays[position].dtype)
    return result
