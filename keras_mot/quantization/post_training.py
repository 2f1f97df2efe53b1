"""Post-training quantization: integers without training, from a few batches of data."""

from collections.abc import Callable, Mapping
from typing import Any

import keras

from keras_mot.quantization.estimators.fitting import Fitting
from keras_mot.quantization.estimators.ranges import RangeEstimator
from keras_mot.quantization.quantize_config import QuantizeConfig
from keras_mot.quantization.schemes import INT8, QuantizationScheme
from keras_mot.quantization.simulation.simulation import quantize
from keras_mot.targets import LITERT, Target


def quantize_post_training(
    model: keras.Model,
    scheme: QuantizationScheme = INT8,
    calibration_data: Any = None,
    *,
    estimator: RangeEstimator | None = None,
    batch_size: int = 32,
    selected: Callable | None = None,
    progress: bool | None = None,
    equalize: bool | None = None,
    correct_biases: bool | None = None,
    overrides: Mapping[Any, QuantizationScheme | QuantizeConfig | None] | None = None,
    loss: str | Callable | None = None,
    target: Target | str = LITERT,
) -> keras.Model:
    """Makes a trained model compute as it will in integers, without training.

    Weights are rounded to multiples of a scale for each output channel, activations to the numbers that integers
    stand for in the ranges that they take on the calibration data (Jacob et al., 2018, arXiv:1712.05877;
    Krishnamoorthi, 2018, "Quantizing deep convolutional networks for efficient inference: A whitepaper",
    arXiv:1806.08342). Batch normalization is folded into the layer before it; masks and
    codebooks of a pruned or clustered model are kept. Evaluate the result like any Keras
    model; write it to a file that computes in integers with `keras_mot.export.export_litert`, which needs no data
    any more.

    Args:
        model: a built model, with models nested in it or not. It is not changed. Of subclassed ones the `call` is read
            by `keras_mot.graph.trace`.
        scheme: how many bits weights and activations have: `INT8`, `INT16X8`, `INT4_WEIGHTS`, or your own.
        calibration_data: some hundred typical inputs, of all classes: an array, tensor, or structure of arrays as the
            model takes; a tuple of such inputs and their labels; or an iterable of batches (of inputs, or of pairs of
            inputs and labels), such as a list, a `tf.data.Dataset`, a PyTorch `DataLoader` or a generator.
        estimator: how ranges follow from the values seen: `MinMax()`, `MeanMinMax()`, `MovingAverage()`,
            `Percentile()`, `LeastSquares()`, `Entropy()`, or your own `RangeEstimator`. By default, from the least to
            the greatest value; of the model's inputs, and of terms that a recurrent gate saturates, only as far as
            cutting off does not bring the outputs nearer to the float model's.
        batch_size: how many samples of arrays are run at a time.
        selected: function from a layer or operation to whether it shall compute in integers; by default all do
            that can.
        progress: whether to show a progress bar; by default, if the output is a terminal.
        equalize: whether the channels between layers are rescaled so that kernels use their integers evenly (Nagel et
            al., 2019, arXiv:1906.04721); by default, if channels share scales, and it halves the squared error of the
            outputs on 256 of the calibration samples, against the float model.
        correct_biases: whether biases take back what rounding shifts the mean of a channel by (same paper); by
            default, if that halves the error.
        overrides: dictionary from a selector to a `QuantizationScheme` or `QuantizeConfig` for some layers, or to
            `None` to leave them in floats. A selector is a layer of the given model, a layer class, a predicate, or a
            regular expression on the layer's path; the first that matches applies. Activations have as many bits as
            in `scheme`.
        loss: a Keras loss, its name, or a function of labels and outputs to a number. The calibration data needs
            labels then: batches of (inputs, labels), or a tuple of arrays. Of the default, `MeanMinMax`, `Percentile`,
            `LeastSquares` and `Entropy`, the one with the least mean loss in integers is chosen, on the first 2048
            samples (ranges by the loss: Nahshan et al., 2021, "Loss Aware Post-training Quantization",
            arXiv:1911.07190). Data that the model was not trained on tells more.
        target: the runtime that the model is made for, a `keras_mot.targets.Target` or the name of a registered one.

    Returns:
        A functional model that shares no variables with `model`: its layers, with `ActivationQuantizer` layers
        between them, and `FakeQuantize` transforms on their weights. It is not compiled. Training it further is
        quantization-aware training.

    Raises:
        TypeError: if an argument is of the wrong type.
        ValueError: if the model cannot be read (not built, or a `call` that cannot be traced), has nothing to quantize,
            is quantized already, has NaN or infinite weights, or if the calibration data is missing, empty, of other
            shapes, without labels that `loss` needs, or makes an activation or the loss NaN or infinite.

    Example:

    ```python
    quantized = quantize_post_training(model, INT8, x_train[:500])
    keras_mot.export.export_litert(quantized, "model.tflite")
    ```
    """
    if calibration_data is None and isinstance(scheme, QuantizationScheme):
        raise ValueError(
            "`quantize_post_training` needs `calibration_data`: some hundred typical inputs, from which the ranges of "
            "activations follow."
        )
    fitting = Fitting(calibration_data, estimator, batch_size, progress, equalize, correct_biases, loss)
    return quantize(model, scheme, fitting, selected, overrides, "quantize_post_training", target=target)
