"""Quantization schemes: which integers stand for weights and activations."""

import dataclasses

import keras

from keras_mot._config import Config
from keras_mot._messages import describe
from keras_mot.transforms.rounding import Rounding


@keras.saving.register_keras_serializable("keras_mot")
@dataclasses.dataclass(frozen=True)
class QuantizationScheme(Config):
    """How many bits weights and activations have.

    Args:
        weight_bits: bits of a weight, 2 to 8. Files store 4 bits or 8.
        activation_bits: 8 (asymmetric) or 16 (symmetric).
        per_channel: whether each output channel of a weight has a scale of its own.
        learned_scales: whether training adapts the scales of weights and the ranges of activations by their gradients
            (Esser et al., 2020, "Learned Step Size Quantization", arXiv:1902.08153); for activations of 8 bits.
        preserve_sparsity: whether the zeros of a model without masks, pruned and stripped, stay zeros in training. A
            model with masks keeps them in any case.
        preserve_clusters: whether weights of a model without codebooks that have few values, clustered and stripped,
            keep as few. A model with codebooks keeps them in any case.
        rounding: the `Rounding` that chooses the integers of weights: `Nearest()`, `GPTQ()`, `AdaRound()`, or your own.
            By default, `GPTQ()` for weights of less than 8 bits that are quantized after training with calibration
            data, and `Nearest()` otherwise. For weights whose values are shared, one that is chosen by data picks the
            integers of these values; with others they are rounded to the nearest.
    """

    weight_bits: int = 8
    activation_bits: int = 8
    per_channel: bool = True
    learned_scales: bool = False
    preserve_sparsity: bool = False
    preserve_clusters: bool = False
    rounding: Rounding | None = None

    def __post_init__(self):
        if isinstance(self.weight_bits, bool) or not isinstance(self.weight_bits, int):
            raise TypeError(f"`weight_bits` should be an integer; received {describe(self.weight_bits)}.")
        if not 2 <= self.weight_bits <= 8:
            raise ValueError(f"`weight_bits` should be from 2 to 8; received {describe(self.weight_bits)}.")
        if self.activation_bits not in (8, 16):
            raise ValueError(f"`activation_bits` should be 8 or 16; received {describe(self.activation_bits)}.")
        for name in ("per_channel", "learned_scales", "preserve_sparsity", "preserve_clusters"):
            if not isinstance(getattr(self, name), bool):
                raise TypeError(f"`{name}` should be True or False; received {describe(getattr(self, name))}.")
        check_rounding(self.rounding)
        if self.learned_scales and self.activation_bits != 8:
            raise ValueError(
                "`learned_scales` are for activations of 8 bits: with 16, ranges that follow the batches do."
            )


def check_rounding(rounding):
    """Raises an error if this is neither a `Rounding` nor `None`."""
    if rounding is not None and not isinstance(rounding, Rounding):
        raise TypeError(f"`rounding` should be a `Rounding`, such as `Nearest()`; received {describe(rounding)}.")


@keras.saving.register_keras_serializable("keras_mot")
@dataclasses.dataclass(frozen=True)
class WeightsScheme(Config):
    """How weights alone are stored, which takes neither calibration data nor a quantized model.

    Pass it to the export: `keras_mot.export.export_litert(model, path, weights=FLOAT16)`.

    Args:
        weights: "float16", or "int8" for large weights of 8 bits (dynamic range).
    """

    weights: str

    def __post_init__(self):
        if self.weights not in ("float16", "int8"):
            raise ValueError(f"`weights` should be 'float16' or 'int8'; received {describe(self.weights)}.")


FLOAT16 = WeightsScheme("float16")
"""Weights of 16 bits, computed with as floats of 32: half the size."""

DYNAMIC_RANGE = WeightsScheme("int8")
"""Large weights of 8 bits; activations are floats, which the runtime rounds as it goes."""

INT8 = QuantizationScheme()
"""Weights and activations of 8 bits: the default, which every integer runtime has."""

INT16X8 = QuantizationScheme(activation_bits=16)
"""Weights of 8 bits, activations of 16: nearly as accurate as floats, for a quarter of the size."""

INT4_WEIGHTS = QuantizationScheme(weight_bits=4)
"""Weights of 4 bits, activations of 8."""
