"""Post-training quantization: integers without training, from a few batches of data."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import keras

from keras_mot.quantization.calibration import calibration_of
from keras_mot.quantization.estimators.fitting import Fitting
from keras_mot.quantization.quantize_config import QuantizeConfig
from keras_mot.quantization.schemes import INT8, QuantizationScheme
from keras_mot.quantization.simulation.simulation import quantize
from keras_mot.targets import LITERT, Target
from keras_mot.transforms.rounding import Rounding, check_rounding


def quantize_post_training(
    model: keras.Model,
    scheme: QuantizationScheme = INT8,
    calibration_data: Any = None,
    *,
    selected: Callable | None = None,
    overrides: Mapping[Any, QuantizationScheme | QuantizeConfig | None] | None = None,
    target: Target | str = LITERT,
    placement: str | None = None,
    rounding: Rounding | None = None,
    **settings: Any,
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
        scheme: how many bits weights and activations have: `INT8`, `INT16X8`, `INT4_WEIGHTS`, or your own. With
            `DYNAMIC_INT8` and `DYNAMIC_INT4` the model computes in floats, and its dense layers and embeddings have
            integers for weights; kernels find the ranges of activations as they run.
        calibration_data: some hundred typical inputs, of all classes, in any of the forms that `Calibration` takes as
            `data`; or a `Calibration`, which also says how ranges are chosen and what else the data decide. With
            dynamic ranges there need be none; weights of less than 8 bits are rounded by them.
        selected: function from a layer or operation to whether it shall compute in integers; by default all do
            that can. `overrides` with `None` says the same.
        overrides: dictionary from a selector to a `QuantizationScheme` or `QuantizeConfig` for some layers, or to
            `None` to leave them in floats. A selector is a layer of the given model, a layer class, a predicate, or a
            regular expression on the layer's path; the first that matches applies. Activations have as many bits as
            in `scheme`.
        target: the runtime that the model is made for, a `keras_mot.targets.Target` or the name of a registered one.
        placement: "fast" leaves in floats what the target computes faster so, such as the products of attention on
            CPUs; "integer" leaves nothing in floats that has a kernel, as NPUs and microcontrollers want it. By
            default, "fast" where the target has `costs` for activations of so many bits.
        rounding: the `Rounding` that chooses the integers of weights, `GPTQ(damping=0.1)` for example, where neither
            `scheme` nor `overrides` say it. By default, `GPTQ()` for weights of less than 8 bits.
        **settings: fields of `Calibration`, where `calibration_data` is the data alone.

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
    calibration = calibration_of(calibration_data, settings, "quantize_post_training")
    if calibration.data is None and isinstance(scheme, QuantizationScheme) and not scheme.is_dynamic:
        raise ValueError(
            "`quantize_post_training` needs `calibration_data`: some hundred typical inputs, from which the ranges of "
            "activations follow."
        )
    check_rounding(rounding)
    if rounding is not None:
        scheme = _rounded_by(rounding, scheme)
        if isinstance(overrides, Mapping):
            overrides = {selector: _rounded_by(rounding, value) for selector, value in overrides.items()}
    fitting = Fitting(calibration)
    return quantize(
        model, scheme, fitting, selected, overrides, "quantize_post_training", target=target, placement=placement
    )


def _rounded_by(rounding, scheme):
    """A scheme with a rounding, if it says none; anything else as it is."""
    if isinstance(scheme, QuantizationScheme) and scheme.rounding is None:
        return dataclasses.replace(scheme, rounding=rounding)
    return scheme
