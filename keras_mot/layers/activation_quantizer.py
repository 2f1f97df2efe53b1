"""Fake quantization of activations: a layer between others."""

import contextlib
import contextvars
import dataclasses
import math
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_mot import _tensorflow, _torch
from keras_mot._keras import flatten_layers, producer_of, train_only_while
from keras_mot.transforms.fake_quantize import with_gradient_times

# A range below is empty: what it holds is zero, and any scale will do. A tiny one, runtimes refuse.
_LEAST = 1e-30
_MODE = contextvars.ContextVar("activation_quantizer_mode", default=None)


@dataclasses.dataclass(frozen=True)
class QuantizationParameters:
    """How integers stand for real numbers: real = scale * (integer - zero_point).

    Args:
        scale: the distance of two neighbouring numbers.
        zero_point: the integer that stands for 0.
        bits: bits of a signed integer.
    """

    scale: float
    zero_point: int
    bits: int

    @property
    def range(self):
        """The least and the greatest number."""
        low, high = (-(2 ** (self.bits - 1)), 2 ** (self.bits - 1) - 1)
        return tuple(self.scale * (integer - self.zero_point) for integer in (low, high))


@keras.saving.register_keras_serializable("keras_mot")
class ActivationQuantizer(keras.layers.Layer):
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
        target: name of the `keras_mot.targets.Target` that the model was quantized for.
        output_name: what a functional model calls an output that comes from here; `None`: after the layer, as always.
        **kwargs: arguments of `keras.layers.Layer`.
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
        target: str = "litert",
        output_name: str | None = None,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.bits, self.decay, self.in_training, self.calls = bits, decay, in_training, calls
        self.fixed = None if fixed is None else tuple(float(value) for value in fixed)
        self.learned = learned and fixed is None
        self.widening = widening
        self.target = target
        self.output_name = output_name
        self.supports_masking = True
        self.limits = None if limits is None else tuple(float(value) for value in limits)
        low, high = self.fixed or (0.0, 0.0)
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
        tensors = [tensor for node in self._inbound_nodes for tensor in node.arguments.keras_tensors]
        sources = [producer_of(tensor) for tensor in tensors]
        return not sources or any(getattr(source, "trainable", True) for source in sources)

    def _variable(self, name, value, trainable=False):
        """A number in float32, whatever the policy: the export reads the same one."""
        start = keras.initializers.Constant(value)
        return self.add_weight(
            name=name, shape=(), initializer=start, trainable=trainable, dtype="float32", autocast=False
        )

    @property
    def _follows(self):
        """Whether the range follows the batches in training."""
        return self.fixed is None and self.decay is not None and not self.learned

    def build(self, input_shape):
        """Nothing: the range is one for the whole tensor."""

    def call(self, inputs, training=None, averages=False):
        """The rounded inputs; same shape and dtype.

        Args:
            inputs: float tensor.
            training: whether the range follows the inputs.
            averages: whether the inputs are means of numbers that are rounded already. The range does not follow them,
                and what lies half between two integers is rounded away from the integer 0, as runtimes do.
        """
        mode = _MODE.get()
        if mode is not None:
            return mode(self, inputs, averages)
        if training and self._follows and not averages:
            self._follow(inputs)
        if training and not self.in_training:
            return inputs
        return self.rounded(inputs, averages)

    def rounded(self, inputs, averages=False):
        """The inputs rounded to the range that is known, or unchanged; same shape and dtype."""
        eager = _on_torch_cpu(inputs) and not self.learned
        if eager and not self.has_range:
            return inputs
        if eager and not np.isfinite(self._ends()).all():
            return inputs * float("nan")  # training has diverged: what it reports shall say so
        low, high = (None, None) if eager else self._nudged()
        if averages:
            least, _, scale = self._known_grid() if eager else self._grid(low, high)
            # The number that integer 0 of the file stands for.
            middle = least + 2 ** (self.bits - 1) * scale if self.bits < 16 else 0.0
            # A thousandth of a step decides ties, and nothing else: means of few integers are not nearer to one.
            nudge = ops.where(inputs < ops.cast(middle, inputs.dtype), -1e-3 * scale, 1e-3 * scale)
            inputs = inputs + ops.cast(nudge, inputs.dtype)
        if self.learned:
            return ops.cast(self._rounded_to_learned(ops.cast(inputs, "float32")), inputs.dtype)
        if eager:
            floats = ops.cast(inputs, "float32")
            return ops.cast(_torch.rounded_activations(floats, *self._known_grid()), inputs.dtype)
        if keras.backend.backend() == "tensorflow":
            known = ops.convert_to_tensor(self._batches.value) > 0
            floats = ops.cast(inputs, "float32")
            rounded = _tensorflow.rounded_activations(floats, low, high, self.bits, self.bits == 16, known)
            return ops.cast(rounded, inputs.dtype)
        rounded = keras.quantizers.fake_quant_with_min_max_vars(
            ops.cast(inputs, "float32"), low, high, num_bits=self.bits, narrow_range=self.bits == 16
        )
        seen = ops.convert_to_tensor(self._batches.value) > 0
        return ops.cast(ops.where(seen, ops.cast(rounded, inputs.dtype), inputs), inputs.dtype)

    def _grid(self, low, high):
        """The least and the greatest number, and the scale, of a range."""
        steps = 2**self.bits - (2 if self.bits == 16 else 1)
        scale = (high - low) / steps
        zero = ops.clip(ops.floor(-low / scale + 0.5), 0, steps)
        return -zero * scale, (steps - zero) * scale, scale

    def _known_grid(self):
        """The same as Python numbers, without tensor operations: a dozen of them cost as much as the rounding."""
        parameters = self.parameters()
        low, high = parameters.range
        return (-high if self.bits == 16 else low), high, parameters.scale

    def _rounded_to_learned(self, inputs):
        steps = 2**self.bits - 1
        features = math.prod(length or 1 for length in inputs.shape[1:])
        low, high = (
            with_gradient_times(ops.convert_to_tensor(end.value), steps**1.5 / math.sqrt(features))
            for end in (self._low, self._high)
        )
        low, high = ops.where(low < 0, low, 0.0), ops.where(high > 0, high, 0.0)
        if self.limits is not None:
            low, high = ops.maximum(low, self.limits[0]), ops.minimum(high, self.limits[1])
        scale = ops.where(high - low > _LEAST, high - low, 1.0) / steps
        ratio = inputs / scale
        integers = ops.stop_gradient(ops.round(ratio))
        zero = ops.stop_gradient(ops.clip(ops.floor(-low / scale + 0.5), 0, steps))
        inside = (ratio + ops.stop_gradient(integers - ratio)) * scale
        below = low + ops.stop_gradient(-zero * scale - low)
        above = high + ops.stop_gradient((steps - zero) * scale - high)
        return ops.where(integers < -zero, below, ops.where(integers > steps - zero, above, inside))

    def _follow(self, inputs):
        values = ops.stop_gradient(ops.cast(inputs, "float32"))
        if _on_torch_cpu(values):
            return self._follow_extremes(*_torch.extremes(values))
        batches = ops.convert_to_tensor(self._batches.value)
        if self.widening:
            outwards, inwards = 1.0, 0.0
        else:
            outwards = ops.maximum(1.0 / (ops.floor(batches / self.calls) + 1.0), 1.0 - self.decay)
            inwards = ops.where(batches > 0, outwards / self.calls, 1.0)
        for variable, value, sign in ((self._low, ops.min(values), -1.0), (self._high, ops.max(values), 1.0)):
            change = value - variable
            variable.assign(variable + ops.where(sign * change > 0, outwards, inwards) * change)
        self._batches.assign(batches + 1.0)

    def _follow_extremes(self, low, high):
        """The same in Python numbers; `low` and `high` are the extremes of a batch."""
        batches = float(ops.convert_to_numpy(self._batches))
        outwards = 1.0 if self.widening else max(1.0 / (batches // self.calls + 1.0), 1.0 - self.decay)
        inwards = 0.0 if self.widening else outwards / self.calls if batches > 0 else 1.0
        for variable, value, sign in ((self._low, low, -1.0), (self._high, high, 1.0)):
            now = float(ops.convert_to_numpy(variable))
            change = value - now
            variable.assign(now + (outwards if sign * change > 0 else inwards) * change)
        self._batches.assign(batches + 1.0)

    def _nudged(self):
        """The range, with 0 in it, and not empty."""
        low = ops.minimum(ops.convert_to_tensor(self._low.value), 0.0)
        high = ops.maximum(ops.convert_to_tensor(self._high.value), 0.0)
        if self.limits is not None:
            low, high = ops.maximum(low, self.limits[0]), ops.minimum(high, self.limits[1])
        if self.bits == 16:
            high = ops.maximum(-low, high)
            high = ops.where(high > _LEAST, high, 1.0)
            return -high, high
        return low, ops.where(high - low > _LEAST, high, low + 1.0)

    @property
    def has_range(self) -> bool:
        """Whether the range is known."""
        return float(ops.convert_to_numpy(self._batches)) > 0

    def set_range(self, low: float, high: float) -> None:
        """Sets the range of the numbers to round to; 0 is always in it."""
        self._low.assign(float(low))
        self._high.assign(float(high))
        # As settled as an average over many batches: a first batch of training moves it no more than later ones.
        self._batches.assign(1.0 if self.decay is None else self.calls / (1.0 - self.decay))

    @property
    def is_settled(self) -> bool:
        """Whether there is a range, of finite numbers."""
        return self.has_range and bool(np.isfinite(self._ends()).all())

    def _ends(self):
        return tuple(float(ops.convert_to_numpy(value)) for value in (self._low, self._high))

    def parameters(self) -> QuantizationParameters:
        """The scale and the zero point that the range comes to."""
        low, high = self._ends()
        least, greatest = self.limits or (-np.inf, np.inf)
        low, high = np.float32(max(min(low, 0.0), least)), np.float32(min(max(high, 0.0), greatest))
        if self.bits == 16:
            reach = max(-low, high)
            return QuantizationParameters(float(np.float32((reach if reach > _LEAST else 1.0) / 32767)), 0, 16)
        high = high if high - low > _LEAST else low + np.float32(1.0)
        steps = 2**self.bits - 1
        scale = (high - low) / np.float32(steps)
        least = -(2 ** (self.bits - 1))
        zero_point = least + int(np.clip(np.floor(-low / scale + np.float32(0.5)), 0, steps))
        return QuantizationParameters(float(scale), zero_point, self.bits)

    def compute_output_spec(self, inputs, training=None, averages=False):
        """The inputs' own."""
        return keras.KerasTensor(inputs.shape, inputs.dtype)

    def compute_output_shape(self, input_shape):
        """The inputs' own."""
        return input_shape

    def get_config(self):
        """The constructor's arguments."""
        return {
            **super().get_config(),
            "bits": self.bits,
            "decay": self.decay,
            "fixed": self.fixed,
            "in_training": self.in_training,
            "calls": self.calls,
            "limits": self.limits,
            "learned": self.learned,
            "widening": self.widening,
            "target": self.target,
            "output_name": self.output_name,
        }


def _on_torch_cpu(tensor):
    return keras.backend.backend() == "torch" and tensor.device.type == "cpu"


@contextlib.contextmanager
def intercepted(function):
    """While open, `function(quantizer, inputs, averages)` takes the place of every quantizer's call."""
    token = _MODE.set(function)
    try:
        yield
    finally:
        _MODE.reset(token)


def activation_quantizers(model: keras.Model) -> list[ActivationQuantizer]:
    """The activation quantizers of a model, in its own order."""
    return [layer for layer in flatten_layers(model) if isinstance(layer, ActivationQuantizer)]


def is_quantized(model: keras.Model) -> bool:
    """Whether a model has activation quantizers."""
    return bool(activation_quantizers(model))


def in_input_ranges(model: keras.Model, arrays: list) -> list:
    """Standard normal numbers, moved into the ranges of the quantizers right behind the inputs of a model."""
    result = list(arrays)
    for layer in activation_quantizers(model):
        source = layer._inbound_nodes[0].arguments.keras_tensors[0] if layer._inbound_nodes else None
        for position, tensor in enumerate(model.inputs):
            if tensor is source and np.issubdtype(result[position].dtype, np.floating):
                low, high = layer.parameters().range
                share = np.clip(arrays[position] / 6 + 0.5, 0.0, 1.0)
                result[position] = (low + (high - low) * share).astype(arrays[position].dtype)
    return result
