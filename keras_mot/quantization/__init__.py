"""Quantization: weights and activations as integers."""

from keras_mot.layers.activation_quantizer import ActivationQuantizer
from keras_mot.layers.dynamic_quantizer import DynamicQuantizer
from keras_mot.quantization.algorithms.adaround import AdaRound
from keras_mot.quantization.algorithms.batch_norm import freeze_batch_norm
from keras_mot.quantization.algorithms.collaborative import (
    Default8BitClusterPreserveQuantizeScheme,
    Default8BitPrunePreserveQuantizeScheme,
)
from keras_mot.quantization.algorithms.gptq import GPTQ
from keras_mot.quantization.algorithms.second_order_rounding import SecondOrderRounding
from keras_mot.quantization.aware_training import (
    quantize_annotate_layer,
    quantize_annotate_model,
    quantize_apply,
    quantize_model,
    quantize_scope,
    strip_quantization,
)
from keras_mot.quantization.calibration import Calibration
from keras_mot.quantization.callbacks import QuantizationSummaries
from keras_mot.quantization.estimators.by_place import MeanOfSamples, MostSamples
from keras_mot.quantization.estimators.layer_io import LayerIO, layer_io
from keras_mot.quantization.estimators.ranges import (
    Entropy,
    LeastSquares,
    MeanMinMax,
    MinMax,
    MovingAverage,
    Percentile,
    RangeEstimator,
    SeenValues,
)
from keras_mot.quantization.post_training import quantize_post_training
from keras_mot.quantization.quantize_config import (
    AllValuesQuantizer,
    FixedQuantizer,
    LastValueQuantizer,
    MovingAverageQuantizer,
    QuantizeConfig,
)
from keras_mot.quantization.schemes import (
    DYNAMIC_INT4,
    DYNAMIC_INT8,
    DYNAMIC_RANGE,
    FLOAT16,
    INT4_WEIGHTS,
    INT8,
    INT16X8,
    QuantizationScheme,
    WeightsScheme,
)
from keras_mot.quantization.simulation.reference_kernels import reference_rounding
from keras_mot.transforms.grid import QuantizationParameters
from keras_mot.transforms.rounding import Nearest, Rounding

__all__ = [
    "DYNAMIC_INT4",
    "DYNAMIC_INT8",
    "DYNAMIC_RANGE",
    "FLOAT16",
    "GPTQ",
    "INT4_WEIGHTS",
    "INT8",
    "INT16X8",
    "ActivationQuantizer",
    "AdaRound",
    "AllValuesQuantizer",
    "Calibration",
    "Default8BitClusterPreserveQuantizeScheme",
    "Default8BitPrunePreserveQuantizeScheme",
    "Entropy",
    "FixedQuantizer",
    "LastValueQuantizer",
    "LeastSquares",
    "MeanMinMax",
    "MeanOfSamples",
    "MinMax",
    "MostSamples",
    "MovingAverage",
    "MovingAverageQuantizer",
    "Nearest",
    "Percentile",
    "QuantizationParameters",
    "QuantizationScheme",
    "QuantizationSummaries",
    "QuantizeConfig",
    "RangeEstimator",
    "Rounding",
    "SecondOrderRounding",
    "SeenValues",
    "WeightsScheme",
    "freeze_batch_norm",
    "layer_io",
    "quantize_annotate_layer",
    "quantize_annotate_model",
    "quantize_apply",
    "quantize_model",
    "quantize_post_training",
    "quantize_scope",
    "reference_rounding",
    "strip_quantization",
]
