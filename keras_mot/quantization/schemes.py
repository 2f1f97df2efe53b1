"""Quantization schemes: which integers stand for weights and activations."""

import dataclasses

import keras

from keras_mot._config import Config
from keras_mot._messages import describe
from keras_mot._numbers import is_whole
from keras_mot.transforms.rounding import Rounding, check_rounding

DYNAMIC = "dynamic"
"""The `activation_bits` of schemes with dynamic ranges."""


@keras.saving.register_keras_serializable("keras_mot")
@dataclasses.dataclass(frozen=True)
class QuantizationScheme(Config):
    """How many bits weights and activations have.

    Args:
        weight_bits: bits of a weight, 2 to 8. Files store 4 bits or 8.
        activation_bits: 8 (asymmetric) or 16 (symmetric); or "dynamic", for models in floats whose dense layers and
            embeddings have integers for weights: kernels of dense layers round each row of their inputs to 8 bits, in a
            range that they find as they run, so that no data are needed.
        per_channel: whether each output channel of a weight has a scale of its own.
        learned_scales: whether training adapts the scales of weights and the ranges of activations by their gradients
            (Esser et al., 2020, "Learned Step Size Quantization", arXiv:1902.08153); for activations of 8 bits.
        preserve_sparsity: whether the zeros of a model without masks, pruned and stripped, stay zeros in training. A
            model with masks keeps them in any case.
        preserve_clusters: whether weights of a model without codebooks that have few values, clustered and stripped,
            keep as few. A model with codebooks keeps them in any case.
        rounding: the `Rounding` that chooses the integers of weights: `Nearest()`, `GPTQ()`, `AdaRound()`, or your own.
            By default, `GPTQ()` for weights of less than 8 bits where there are calibration data, and `Nearest()`
            otherwise; those that go by data are refused without. Training starts from these integers. For weights whose
            values are shared, one that is chosen by data picks the integers of these values; with others, and in
            training, they are rounded to the nearest.
        block_size: with dynamic ranges and weights of at most 4 bits, how many inputs of a channel share a scale: 32,
            64, 128 or 256. `None`: all of them.
    """

    weight_bits: int = 8
    activation_bits: int | str = 8
    per_channel: bool = True
    learned_scales: bool = False
    preserve_sparsity: bool = False
    preserve_clusters: bool = False
    rounding: Rounding | None = None
    block_size: int | None = None

    def __post_init__(self):
        if not is_whole(self.weight_bits):
            raise TypeError(f"`weight_bits` should be an integer; received {describe(self.weight_bits)}.")
        if not 2 <= self.weight_bits <= 8:
            raise ValueError(f"`weight_bits` should be from 2 to 8; received {describe(self.weight_bits)}.")
        if self.activation_bits not in (8, 16, DYNAMIC):
            raise ValueError(
                f"`activation_bits` should be 8, 16 or '{DYNAMIC}'; received {describe(self.activation_bits)}."
            )
        for name in ("per_channel", "learned_scales", "preserve_sparsity", "preserve_clusters"):
            if not isinstance(getattr(self, name), bool):
                raise TypeError(f"`{name}` should be True or False; received {describe(getattr(self, name))}.")
        check_rounding(self.rounding)
        self._check_blocks()
        if self.learned_scales and self.activation_bits != 8:
            raise ValueError(
                "`learned_scales` are for activations of 8 bits: with 16, ranges that follow the batches do, and "
                "dynamic ranges are found as the model runs."
            )

    @property
    def is_dynamic(self) -> bool:
        """Whether ranges of activations are found as the model runs."""
        return self.activation_bits == DYNAMIC

    def _check_blocks(self):
        if self.block_size is None:
            return
        if not is_whole(self.block_size):
            raise TypeError(f"`block_size` should be an integer, or None; received {describe(self.block_size)}.")
        if self.block_size < 1:
            raise ValueError(f"`block_size` should be at least 1; received {describe(self.block_size)}.")
        if not self.per_channel:
            raise ValueError("`block_size` is for blocks of each channel: it goes with `per_channel=True`.")
        if not self.is_dynamic:
            raise ValueError(
                "`block_size` is for kernels with dynamic ranges, `activation_bits='dynamic'`: those for activations "
                "in integers have one scale for a channel."
            )


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
"""Large weights of 8 bits, rounded by the converter; activations are floats, which the runtime rounds as it goes."""

INT8 = QuantizationScheme()
"""Weights and activations of 8 bits: the default, which every integer runtime has."""

INT16X8 = QuantizationScheme(activation_bits=16)
"""Weights of 8 bits, activations of 16: nearly as accurate as floats, for a quarter of the size."""

INT4_WEIGHTS = QuantizationScheme(weight_bits=4)
"""Weights of 4 bits, activations of 8."""

DYNAMIC_INT8 = QuantizationScheme(activation_bits=DYNAMIC)
"""Dense layers and embeddings with weights of 8 bits in a model of floats; needs no data."""

DYNAMIC_INT4 = QuantizationScheme(weight_bits=4, activation_bits=DYNAMIC)
"""The same with weights of 4 bits: the fastest where weights come from memory, for one row at a time."""
