"""TFMOT's `Quantizer`s: objects that build their variables on a layer, and round tensors in training.

Those of one class each that an integer kernel exists for become settings of ours (`quantize_config.py`). All others
are called, as they are here: see `calling.py`.
"""

import abc
import dataclasses
from typing import Any

import keras
from keras import ops

from keras_mot import quantization


class Quantizer(abc.ABC):
    """Base class of quantizers of your own: what is called on a weight, or on what a layer returns, in training.

    What it computes is followed by a rounding of ours, which is what a file has; its gradient is its own.

    Example:

    ```python
    class Clip(keras_mot.quantization.keras.quantizers.Quantizer):
        def build(self, tensor_shape, name, layer):
            return {}

        def __call__(self, inputs, training, weights, **kwargs):
            return keras.ops.clip(inputs, -1.0, 1.0)

        def get_config(self):
            return {}
    ```
    """

    @abc.abstractmethod
    def build(self, tensor_shape: tuple[int | None, ...], name: str, layer: Any) -> dict[str, Any]:
        """Creates variables by `layer.add_weight`, and returns a dictionary of them."""

    @abc.abstractmethod
    def __call__(self, inputs: Any, training: bool, weights: dict[str, Any], **kwargs: Any) -> Any:
        """The quantized inputs; `weights` is what `build` returned."""

    @abc.abstractmethod
    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""

    @classmethod
    def from_config(cls, config):
        """The quantizer that `get_config` described."""
        return cls(**config)


class RangeQuantizer(Quantizer):
    """A quantizer that rounds to equal steps in a range from `min_var` to `max_var`, two variables.

    As long as no training step has set them, the range is that of the inputs themselves.
    """

    def build(self, tensor_shape, name, layer):
        """Creates the ends of the range: numbers, or with `per_axis` one for each place on the last axis."""
        shape = (tensor_shape[-1],) if getattr(self, "per_axis", False) else ()
        return {
            f"{end}_var": layer.add_weight(name=f"{name}_{end}", shape=shape, initializer="zeros", trainable=False)
            for end in ("min", "max")
        }

    def __call__(self, inputs, training, weights, **kwargs):
        """The inputs, rounded; in training the range follows them."""
        low, high = (ops.convert_to_tensor(weights[f"{end}_var"]) for end in ("min", "max"))
        known = ops.any(high > low)
        extremes = self._extremes(inputs)
        following = self.follow((low, high), extremes)
        low, high = (
            ops.where(known, follow if training else end, extreme)
            for end, follow, extreme in zip((low, high), following, extremes, strict=True)
        )
        if training:
            weights["min_var"].assign(low)
            weights["max_var"].assign(high)
        if getattr(self, "symmetric", False):
            # Without the lowest integer both ends are equally far; with it, that one lies a step further.
            reach = ops.maximum(-low, high)
            steps = 2 ** (self.num_bits - 1)
            low, high = -reach if self.narrow_range else -reach * steps / (steps - 1), reach
        return ops.cast(
            keras.quantizers.fake_quant_with_min_max_vars(
                ops.cast(inputs, "float32"),
                low,
                high,
                num_bits=self.num_bits,
                narrow_range=self.narrow_range,
                axis=-1 if len(low.shape) else None,
            ),
            inputs.dtype,
        )

    def _extremes(self, inputs):
        values = ops.stop_gradient(ops.cast(inputs, "float32"))
        axes = tuple(range(len(values.shape) - 1)) if getattr(self, "per_axis", False) else None
        return ops.minimum(ops.min(values, axis=axes), 0.0), ops.maximum(ops.max(values, axis=axes), 0.0)

    def follow(self, known, seen):
        """The range after a step; `known` so far and `seen` of the inputs are pairs of (least, greatest)."""
        raise NotImplementedError


@keras.saving.register_keras_serializable("keras_mot.tfmot")
@dataclasses.dataclass(frozen=True)
class LastValueQuantizer(quantization.LastValueQuantizer, RangeQuantizer):
    """The range follows the present values; arguments as of `keras_mot.quantization.LastValueQuantizer`."""

    def follow(self, known, seen):
        """That of the inputs."""
        return seen


@keras.saving.register_keras_serializable("keras_mot.tfmot")
@dataclasses.dataclass(frozen=True)
class MovingAverageQuantizer(quantization.MovingAverageQuantizer, RangeQuantizer):
    """The range follows an average; arguments as of `keras_mot.quantization.MovingAverageQuantizer`."""

    def follow(self, known, seen):
        """99 parts of the range so far, and one of that of the inputs."""
        return tuple(0.99 * before + 0.01 * now for before, now in zip(known, seen, strict=True))


@keras.saving.register_keras_serializable("keras_mot.tfmot")
@dataclasses.dataclass(frozen=True)
class AllValuesQuantizer(quantization.AllValuesQuantizer, RangeQuantizer):
    """The range takes in all values; arguments as of `keras_mot.quantization.AllValuesQuantizer`."""

    def follow(self, known, seen):
        """The range that contains both."""
        return ops.minimum(known[0], seen[0]), ops.maximum(known[1], seen[1])


@keras.saving.register_keras_serializable("keras_mot.tfmot")
@dataclasses.dataclass(frozen=True)
class FixedQuantizer(quantization.FixedQuantizer, RangeQuantizer):
    """The range is given, and stays; arguments as of `keras_mot.quantization.FixedQuantizer`."""

    def build(self, tensor_shape, name, layer):
        """Nothing: the range is a constant."""
        return {}

    def __call__(self, inputs, training, weights, **kwargs):
        """The inputs, rounded within the range."""
        return ops.cast(
            keras.quantizers.fake_quant_with_min_max_vars(
                ops.cast(inputs, "float32"),
                min(self.init_min, 0.0),
                max(self.init_max, 0.0),
                num_bits=self.num_bits,
                narrow_range=self.narrow_range,
            ),
            inputs.dtype,
        )
