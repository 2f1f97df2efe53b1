"""Quantization-aware training: a model is trained while it computes as it will in integers."""

import contextlib
import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import keras

from keras_mot._messages import describe
from keras_mot._numbers import is_whole
from keras_mot.graph.origins import copy_with_origins
from keras_mot.graph.output_names import given_names, rename_outputs
from keras_mot.graph.rewrite import operations_of, rewrite
from keras_mot.layers import strip
from keras_mot.layers.activation_quantizer import ActivationQuantizer, is_quantized
from keras_mot.layers.copying import copy_model
from keras_mot.layers.dynamic_quantizer import DynamicQuantizer, DynamicResult
from keras_mot.layers.float_boundary import FloatBoundary
from keras_mot.layers.in_training import ActivityPenalty, InTraining
from keras_mot.layers.named_output import NamedOutput
from keras_mot.quantization.calibration import calibration_of
from keras_mot.quantization.estimators.fitting import Fitting
from keras_mot.quantization.quantize_config import QuantizeConfig
from keras_mot.quantization.schemes import INT8, QuantizationScheme
from keras_mot.quantization.simulation.checks import check_model
from keras_mot.quantization.simulation.simulation import quantize
from keras_mot.quantization.simulation.trained_batch_norm import fold_trained_batch_norm
from keras_mot.targets import LITERT, Target

_MARK = "_keras_mot_quantize"
_ADDED = ActivationQuantizer | DynamicQuantizer | DynamicResult | FloatBoundary | NamedOutput | ActivityPenalty


def quantize_model(
    to_quantize: keras.Model,
    scheme: QuantizationScheme = INT8,
    *,
    calibration_data: Any = None,
    selected: Callable | None = None,
    overrides: Mapping[Any, QuantizationScheme | QuantizeConfig | None] | None = None,
    batch_norm_steps: int | None = None,
    target: Target | str = LITERT,
    placement: str | None = None,
    **settings: Any,
) -> keras.Model:
    """Prepares a trained model for quantization-aware training.

    The result computes with rounded weights and activations; gradients pass through the rounding (Jacob et al., 2018,
    arXiv:1712.05877). It computes what the result of `quantize_post_training` does, with the same integers. Compile
    it, train it for an epoch or so at a low learning rate (1e-4 or less, for Adam), and export it with
    `keras_mot.export.export_litert`.

    By default batch normalization goes on as in the float model: it stays behind the rounded kernel as a
    `TrainedBatchNorm`, follows the statistics of the batches, and is folded by the export, or by `freeze_batch_norm`; a
    scale for each channel makes that exact. Frozen from the start, networks learn their training data by heart: the
    mean and the spread of each channel become something to fit, and what is lost is lost on new data. With
    `batch_norm_steps=0` it is folded into the layer before it, with its trained statistics, before training starts.
    Its factors become a part of the scales, so that kernels keep their size, and learning rates that suit the float
    model go on to do so (with `per_channel=False` they do not: folded kernels can be small, and want a lower rate, or
    an optimizer such as Lamb).

    Masks and codebooks of a pruned or clustered model are kept: what is zero stays zero, what is shared stays shared.

    Args:
        to_quantize: a built model, as in `quantize_post_training`. It is not changed.
        scheme: how many bits weights and activations have.
        calibration_data: as in `quantize_post_training`. Without it, ranges start from the first batch of training, and
            the model computes with unrounded activations until then. An estimator says how ranges follow from it; in
            training they follow a moving average.
        selected: as in `quantize_post_training`.
        overrides: as in `quantize_post_training`: other settings for some layers.
        batch_norm_steps: for how many training steps batch normalization goes on with the statistics of each batch.
            Then they are frozen, and gamma and beta trained on. `None`: it goes on as long as training does. 0: it is
            folded before training, as with `per_channel=False` and with `equalize=True`, which other numbers do not go
            with. What is not trained in the float model, stands behind dense layers on sequences or layers left in
            floats, or uses `renorm`, is folded before training all the same.
        target: as in `quantize_post_training`.
        placement: as in `quantize_post_training`.
        **settings: as in `quantize_post_training`.

    Returns:
        A functional model that shares no variables with `to_quantize`. It is not compiled.

    Raises:
        TypeError: if an argument is of the wrong type.
        ValueError: as in `quantize_post_training`.

    Example:

    ```python
    quantized = quantize_model(model, calibration_data=x_train[:500])
    quantized.compile(keras.optimizers.Adam(1e-4), "sparse_categorical_crossentropy", metrics=["accuracy"])
    quantized.fit(x_train, y_train)
    keras_mot.export.export_litert(quantized, "model.tflite")
    ```
    """
    calibration = calibration_of(calibration_data, settings, "quantize_model")
    calibration, steps = _beside_batch_norm(calibration, batch_norm_steps, scheme)
    fitting = Fitting(calibration, trained=True)
    return quantize(to_quantize, scheme, fitting, selected, overrides, "quantize_model", steps, target, placement)


def _beside_batch_norm(calibration, steps, scheme):
    """A calibration that goes with batch normalization in training, and its steps; refuses what does not."""
    if steps is not None and not is_whole(steps):
        raise TypeError(
            f"`batch_norm_steps` should be a number of training steps, or `None`; received {describe(steps)}."
        )
    if steps is not None and steps < 0:
        raise ValueError(f"`batch_norm_steps` should be at least 0; received {steps}.")
    shares_scales = isinstance(scheme, QuantizationScheme) and not scheme.per_channel
    dynamic = isinstance(scheme, QuantizationScheme) and scheme.is_dynamic
    if steps is None and (shares_scales or dynamic or calibration.equalize):
        steps = 0
    if steps == 0:
        return calibration, 0
    if dynamic:
        raise ValueError("With dynamic ranges batch normalization is folded before training: `batch_norm_steps=0`.")
    if shares_scales:
        raise ValueError(
            "`batch_norm_steps` needs a scale for each channel: with `per_channel=False` batch normalization is folded "
            "before training, `batch_norm_steps=0`."
        )
    if calibration.equalize:
        raise ValueError("`equalize=True` rescales folded kernels: it goes with `batch_norm_steps=0` only.")
    return dataclasses.replace(calibration, equalize=False), steps


def quantize_annotate_layer(
    to_annotate: keras.layers.Layer, quantize_config: QuantizeConfig | None = None
) -> keras.layers.Layer:
    """Marks a layer to be quantized by `quantize_apply`; the other layers of its model stay in floats.

    Args:
        to_annotate: a layer. It is not changed.
        quantize_config: a `QuantizeConfig`, if the scheme is not to decide.

    Returns:
        A marked copy, with the same weights if the layer has any, to build a model with. The mark is not saved.

    Raises:
        TypeError: if `to_annotate` is no layer, or is a model, or `quantize_config` is no `QuantizeConfig`.

    Example:

    ```python
    def annotate(layer):
        return quantize_annotate_layer(layer) if isinstance(layer, keras.layers.Dense) else layer

    annotated = keras.models.clone_model(model, clone_function=annotate)
    quantized = quantize_apply(annotated)
    ```
    """
    if not isinstance(to_annotate, keras.layers.Layer) or isinstance(to_annotate, keras.Model):
        raise TypeError(f"`quantize_annotate_layer` expects a layer; received {describe(to_annotate)}.")
    if quantize_config is not None and not isinstance(quantize_config, QuantizeConfig):
        raise TypeError(f"`quantize_config` should be a `QuantizeConfig`; received {describe(quantize_config)}.")
    layer = copy_model(to_annotate)
    setattr(layer, _MARK, True if quantize_config is None else quantize_config)
    return layer


def quantize_annotate_model(to_annotate: keras.Model) -> keras.Model:
    """Marks all layers of a model to be quantized by `quantize_apply`.

    Args:
        to_annotate: a built sequential or functional model. It is not changed.

    Returns:
        A marked copy.

    Raises:
        TypeError: if `to_annotate` is no model.
        ValueError: if it is not built, or neither sequential nor functional.
    """
    check_model(to_annotate, "quantize_annotate_model")
    model, origins = copy_with_origins(to_annotate)
    for operation in operations_of(model):
        setattr(operation, _MARK, getattr(origins.of(operation), _MARK, True))
    return model


def quantize_apply(
    model: keras.Model,
    scheme: QuantizationScheme = INT8,
    *,
    calibration_data: Any = None,
    batch_norm_steps: int | None = None,
    target: Target | str = LITERT,
    placement: str | None = None,
    **settings: Any,
) -> keras.Model:
    """Quantizes the layers that `quantize_annotate_layer` or `quantize_annotate_model` has marked.

    Args:
        model: a built model with marked layers. It is not changed.
        scheme: see `quantize_model`.
        calibration_data: see `quantize_model`.
        batch_norm_steps: see `quantize_model`.
        target: see `quantize_model`.
        placement: see `quantize_model`.
        **settings: see `quantize_model`.

    Returns:
        As `quantize_model`.

    Raises:
        TypeError: if an argument is of the wrong type.
        ValueError: if no layer is marked, or as in `quantize_model`.
    """
    check_model(model, "quantize_apply")
    if not any(hasattr(operation, _MARK) for operation in operations_of(model)):
        raise ValueError(
            f"No layer of '{model.name}' is marked: mark some with `quantize_annotate_layer`, or all with "
            "`quantize_annotate_model`, or call `quantize_model`."
        )

    def selected(operation):
        return hasattr(operation, _MARK)

    marks = {operation: getattr(operation, _MARK, None) for operation in operations_of(model)}
    overrides = {operation: mark for operation, mark in marks.items() if isinstance(mark, QuantizeConfig)}
    calibration = calibration_of(calibration_data, settings, "quantize_apply")
    calibration, steps = _beside_batch_norm(calibration, batch_norm_steps, scheme)
    fitting = Fitting(calibration, trained=True)
    return quantize(model, scheme, fitting, selected, overrides, "quantize_apply", steps, target, placement)


def strip_quantization(model: keras.Model) -> keras.Model:
    """A plain Keras model with the rounded weights of a quantized one, whose activations are not rounded.

    Args:
        model: a quantized model. It is not changed.

    Returns:
        A functional model, not compiled, that loads without keras-mot. Its outputs have the names that they have in
        `model`.

    Raises:
        TypeError: if `model` is no model.
        ValueError: if it is not quantized.
    """
    check_model(model, "strip_quantization")
    if not is_quantized(model):
        raise ValueError(f"'{model.name}' is not quantized: pass the result of `quantize_model`.")

    def call(operation, *args, **kwargs):
        if isinstance(operation, InTraining):
            return operation.layer(*args)
        added = isinstance(operation, _ADDED)
        return args[0] if added else operation(*args, **kwargs)

    folded = fold_trained_batch_norm(model)
    return copy_model(rename_outputs(rewrite(strip(copy_model(folded)), call), given_names(model)))


@contextlib.contextmanager
def quantize_scope(*custom_objects: dict):
    """Context for loading quantized models, as in TFMOT; keras-mot's own classes need none.

    Args:
        *custom_objects: dictionaries from names to the user's own classes and functions.
    """
    merged = {name: item for objects in custom_objects for name, item in objects.items()}
    with keras.saving.custom_object_scope(merged):
        yield
