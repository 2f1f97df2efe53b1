"""TFMOT's schemes and configs of default, by their names: each gives a scheme, or a config, of ours."""

import dataclasses
from typing import Any

import keras

from keras_mot._messages import describe
from keras_mot.quantization import INT8, QuantizationScheme
from keras_mot.tfmot.quantize_config import QuantizeConfig
from keras_mot.tfmot.quantizers import LastValueQuantizer, MovingAverageQuantizer


def Default8BitQuantizeScheme(disable_per_axis: bool = False) -> QuantizationScheme:
    """`INT8`.

    Args:
        disable_per_axis: whether a weight has one scale, and not one for each channel.
    """
    return dataclasses.replace(INT8, per_channel=not disable_per_axis)


def DefaultNBitQuantizeScheme(
    disable_per_axis: bool = False, num_bits_weight: int = 8, num_bits_activation: int = 8
) -> QuantizationScheme:
    """A scheme with other bits.

    Args:
        disable_per_axis: whether a weight has one scale, and not one for each channel.
        num_bits_weight: bits of a weight, 2 to 8.
        num_bits_activation: bits of an activation: 8 or 16, for which there are kernels.

    Raises:
        ValueError: if no kernel computes with such bits.
    """
    if num_bits_activation not in (8, 16):
        raise ValueError(
            f"No integer kernel has activations of {describe(num_bits_activation)} bits: `num_bits_activation` should "
            "be 8 or 16. To train with others all the same, give layers a `QuantizeConfig` whose "
            "`get_output_quantizers` returns `MovingAverageQuantizer(num_bits=...)`; the file has 8 bits."
        )
    return QuantizationScheme(num_bits_weight, num_bits_activation, per_channel=not disable_per_axis)


@keras.saving.register_keras_serializable("keras_mot.tfmot")
class Default8BitQuantizeConfig(QuantizeConfig):
    """Quantizes the weights that are attributes of a layer, and its activation or its output, to 8 bits.

    Args:
        weight_attrs: names of attributes that are weights.
        activation_attrs: names of attributes that are activation functions.
        quantize_output: whether what the layer returns is quantized.
    """

    def __init__(self, weight_attrs: list[str], activation_attrs: list[str], quantize_output: bool):
        super().__init__()
        self.weight_attrs, self.activation_attrs = list(weight_attrs), list(activation_attrs)
        self.quantize_output = quantize_output

    def weight_quantizer(self):
        """The quantizer of each weight."""
        return LastValueQuantizer(num_bits=8, per_axis=False, symmetric=True, narrow_range=True)

    def get_weights_and_quantizers(self, layer: keras.layers.Layer) -> list[tuple[keras.Variable, Any]]:
        """Pairs of each weight and `weight_quantizer()`."""
        return [(getattr(layer, name), self.weight_quantizer()) for name in self.weight_attrs]

    def get_activations_and_quantizers(self, layer: keras.layers.Layer) -> list[tuple[Any, Any]]:
        """Pairs of each activation function and a `MovingAverageQuantizer`."""
        return [(getattr(layer, name), MovingAverageQuantizer(num_bits=8)) for name in self.activation_attrs]

    def get_output_quantizers(self, layer: keras.layers.Layer) -> list[Any]:
        """A `MovingAverageQuantizer`, if outputs are quantized."""
        return [MovingAverageQuantizer(num_bits=8)] if self.quantize_output else []

    def get_config(self):
        """The constructor's arguments."""
        return {name: getattr(self, name) for name in ("weight_attrs", "activation_attrs", "quantize_output")}

    @classmethod
    def from_config(cls, config):
        """The config that `get_config` described."""
        return cls(**config)


@keras.saving.register_keras_serializable("keras_mot.tfmot")
class Default8BitConvQuantizeConfig(Default8BitQuantizeConfig):
    """The same with a scale for each output channel."""

    def weight_quantizer(self):
        """The quantizer of each weight."""
        return LastValueQuantizer(num_bits=8, per_axis=True, symmetric=True, narrow_range=True)


@keras.saving.register_keras_serializable("keras_mot.tfmot")
class Default8BitOutputQuantizeConfig(QuantizeConfig):
    """Quantizes what a layer returns to 8 bits, and nothing else."""

    def get_output_quantizers(self, layer: keras.layers.Layer) -> list[Any]:
        """A `MovingAverageQuantizer`."""
        return [MovingAverageQuantizer(num_bits=8)]

    def get_config(self):
        """Nothing: it has no settings."""
        return {}


@keras.saving.register_keras_serializable("keras_mot.tfmot")
class NoOpQuantizeConfig(QuantizeConfig):
    """Asks for nothing: a layer with weights stays in floats, others are computed as the scheme says."""

    def get_config(self):
        """Nothing: it has no settings."""
        return {}
