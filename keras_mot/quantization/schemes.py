"""Quantization schemes: which integers stand for weights and activations."""

import dataclasses

import keras

from keras_mot._config import Config


@keras.saving.register_keras_serializable("keras_mot")
@dataclasses.dataclass(frozen=True)
class QuantizationScheme(Config):
    """How many bits weights and activations have.

    Args:
        weight_bits: bits of a weight, 2 to 8. Files store 4 bits or 8.
        activation_bits: 8 (asymmetric) or 16 (symmetric).
        per_channel: whether each output channel of a weight has a scale of its own.
    """

    weight_bits: int = 8
    activation_bits: int = 8
    per_channel: bool = True

    def __post_init__(self):
        if isinstance(self.weight_bits, bool) or not isinstance(self.weight_bits, int):
            raise TypeError(f"`weight_bits` should be an integer; received {self.weight_bits!r}.")
        if not 2 <= self.weight_bits <= 8:
            raise ValueError(f"`weight_bits` should be from 2 to 8; received {self.weight_bits!r}.")
        if self.activation_bits not in (8, 16):
            raise ValueError(f"`activation_bits` should be 8 or 16; received {self.activation_bits!r}.")
        if not isinstance(self.per_channel, bool):
            raise TypeError(f"`per_channel` should be True or False; received {self.per_channel!r}.")


INT8 = QuantizationScheme()
"""Weights and activations of 8 bits: the default, which every integer runtime has."""

INT16X8 = QuantizationScheme(activation_bits=16)
"""Weights of 8 bits, activations of 16: nearly as accurate as floats, for a quarter of the size."""

INT4_WEIGHTS = QuantizationScheme(weight_bits=4)
"""Weights of 4 bits, activations of 8."""
