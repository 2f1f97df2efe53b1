"""TFMOT's `QuantizeConfig` and quantizers: what the weights and the activations of one layer become."""

import dataclasses
from typing import ClassVar

import keras

from keras_mot._config import Config
from keras_mot._messages import describe
from keras_mot._numbers import is_whole

_TFMOT_METHODS = (
    "get_weights_and_quantizers",
    "get_activations_and_quantizers",
    "set_quantize_weights",
    "set_quantize_activations",
    "get_output_quantizers",
)


class Quantizer(Config):
    """Base of the quantizers that a `QuantizeConfig` is made of."""

    def __post_init__(self):
        if not is_whole(self.num_bits) or self.num_bits < 2:
            raise ValueError(f"`num_bits` should be an integer of at least 2; received {describe(self.num_bits)}.")


@keras.saving.register_keras_serializable("keras_mot")
@dataclasses.dataclass(frozen=True)
class LastValueQuantizer(Quantizer):
    """The range follows the present values: for weights, the largest magnitude; for activations, the last batch.

    Args:
        num_bits: bits of an integer: 2 to 8 for weights.
        per_axis: for weights, whether each output channel has a scale of its own.
        symmetric: for weights, only `True`; for activations, only `False`.
        narrow_range: for weights, only `True`: the integers -127 to 127.
    """

    num_bits: int = 8
    per_axis: bool = False
    symmetric: bool = True
    narrow_range: bool = True


@keras.saving.register_keras_serializable("keras_mot")
@dataclasses.dataclass(frozen=True)
class MovingAverageQuantizer(Quantizer):
    """The range of an activation follows a moving average of the batches', as without any `QuantizeConfig`.

    Args:
        num_bits: bits of an integer, as the scheme has them.
        per_axis: only `False`: runtimes have one scale for an activation.
        symmetric: only `False`; activations of 16 bits are symmetric by themselves.
        narrow_range: only `False`.
    """

    num_bits: int = 8
    per_axis: bool = False
    symmetric: bool = False
    narrow_range: bool = False


@keras.saving.register_keras_serializable("keras_mot")
@dataclasses.dataclass(frozen=True)
class AllValuesQuantizer(MovingAverageQuantizer):
    """The range of an activation takes in all values of all batches of training. Arguments as of its base class."""


@keras.saving.register_keras_serializable("keras_mot")
@dataclasses.dataclass(frozen=True)
class FixedQuantizer(Quantizer):
    """The range of an activation is given, and stays.

    Args:
        num_bits: bits of an integer, as the scheme has them.
        init_min: the least number.
        init_max: the greatest number. 0 should lie between them, and is in the range in any case.
        narrow_range: only `False`.
    """

    num_bits: int = 8
    init_min: float = -6.0
    init_max: float = 6.0
    narrow_range: bool = False

    def __post_init__(self):
        super().__post_init__()
        if not self.init_min < self.init_max:
            raise ValueError(
                f"`init_min` should be below `init_max`; received {describe(self.init_min)}, {describe(self.init_max)}."
            )


@keras.saving.register_keras_serializable("keras_mot")
@dataclasses.dataclass(frozen=True)
class QuantizeConfig(Config):
    """How one layer is quantized, for `quantize_annotate_layer`, or for the `overrides` of the quantizing functions.

    TFMOT's class of this name has five methods that a subclass implements; here there are two choices instead. That one
    is `keras_mot.quantization.keras.QuantizeConfig`.

    Args:
        weights: a `LastValueQuantizer`, or `None` for what the scheme says.
        activations: for what the layer returns: a `MovingAverageQuantizer`, `AllValuesQuantizer`,
            `LastValueQuantizer(symmetric=False, narrow_range=False)` or `FixedQuantizer`; or `None` for what the scheme
            says. Where a runtime demands a range, as of a softmax, it has that.

    Raises:
        TypeError: if a quantizer is of another type, or a subclass implements TFMOT's methods.
        ValueError: if no integer kernel computes with such a quantizer.

    Example:

    ```python
    config = QuantizeConfig(weights=LastValueQuantizer(num_bits=4, per_axis=True))
    annotated = quantize_annotate_layer(keras.layers.Dense(10), quantize_config=config)
    ```
    """

    weights: LastValueQuantizer | None = None
    activations: Quantizer | None = None

    asks_methods: ClassVar[bool] = False
    """Whether subclasses say by methods, for each layer, what the arguments say here."""

    def __init_subclass__(cls, **kwargs):
        super().__init_subclass__(**kwargs)
        found = [name for name in _TFMOT_METHODS if name in vars(cls)]
        if found and not cls.asks_methods:
            raise TypeError(
                f"`{cls.__name__}` implements {found}, which nothing would call: inherit from "
                "`keras_mot.quantization.keras.QuantizeConfig`, or give the quantizers as arguments, "
                "`QuantizeConfig(weights=..., activations=...)`."
            )

    def __post_init__(self):
        weights, activations = self.weights, self.activations
        if weights is not None and not isinstance(weights, LastValueQuantizer):
            raise TypeError(f"`weights` should be a `LastValueQuantizer` or `None`; received {describe(weights)}.")
        if activations is not None and not isinstance(activations, Quantizer):
            raise TypeError(f"`activations` should be a quantizer or `None`; received {describe(activations)}.")
        if weights is not None and not (weights.symmetric and weights.narrow_range and weights.num_bits <= 8):
            raise ValueError(
                "Integer kernels take weights of at most 8 bits that are symmetric and of narrow range; received "
                f"{describe(weights)}."
            )
        refused = [name for name in ("per_axis", "symmetric", "narrow_range") if getattr(activations, name, False)]
        if refused:
            raise ValueError(
                f"Integer kernels take no activations with {', '.join(refused)}; received {describe(activations)}."
            )

    def for_layer(self, layer):
        """The config of one layer, itself unless a subclass decides by the layer; `None` leaves it in floats."""
        return self

    def transforms_of(self, key):
        """New weight transforms that come before the rounding of the layer's weight `key`, such as `"kernel"`."""
        return []

    def scheme(self, scheme):
        """The `QuantizationScheme` of the layer, in a model that is quantized with `scheme`."""
        changes = {}
        if self.weights is not None:
            changes |= {"weight_bits": self.weights.num_bits, "per_channel": self.weights.per_axis}
        if self.activations is not None:
            changes["activation_bits"] = self.activations.num_bits
        return dataclasses.replace(scheme, **changes)

    def activation_settings(self):
        """The arguments of the `ActivationQuantizer` behind the layer, and its class as `make`, if it is another."""
        if isinstance(self.activations, FixedQuantizer):
            return {"fixed": (self.activations.init_min, self.activations.init_max)}
        if isinstance(self.activations, AllValuesQuantizer):
            return {"widening": True, "learned": False}
        if isinstance(self.activations, LastValueQuantizer):
            return {"decay": 0.0, "learned": False}
        return {"learned": False} if isinstance(self.activations, MovingAverageQuantizer) else {}
