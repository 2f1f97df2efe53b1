"""What can be quantized: models and arguments are refused here, before any work."""

import keras
import numpy as np

from keras_mot._arrays import numpy_value
from keras_mot._keras import flatten_layers
from keras_mot._messages import describe
from keras_mot.graph.functional import as_functional
from keras_mot.layers.activation_quantizer import is_quantized
from keras_mot.layers.own_weights import MERGE_LORA
from keras_mot.layers.transformed import plain_class, transformed_weights
from keras_mot.quantization.schemes import QuantizationScheme, WeightsScheme
from keras_mot.quantization.simulation.faster_in_floats import is_fast
from keras_mot.transforms import Mask, PaletteTransform


def check(model, scheme, selected, function):
    """Refuses what cannot be quantized, before any work; arguments as of `quantize`.

    Raises:
        TypeError: if an argument is of the wrong type.
        ValueError: if the model is not built, is quantized already, or has weights that cannot be quantized.
    """
    check_built(model, function)
    if isinstance(scheme, WeightsScheme):
        raise TypeError(
            f"`{function}` makes models of integers; {scheme!r} is about the weights of a file. Pass the float model "
            f"to `export_litert(model, path, weights={scheme.weights!r})`."
        )
    if not isinstance(scheme, QuantizationScheme):
        raise TypeError(
            f"`scheme` should be a `QuantizationScheme`, such as `INT8`; received {describe(scheme)}. Data are "
            "passed as `calibration_data=...`."
        )
    if selected is not None and (not callable(selected) or isinstance(selected, keras.layers.Layer | type)):
        raise TypeError(
            f"`selected` should be a function from a layer to True or False; received {describe(selected)}."
        )
    if is_quantized(model):
        raise ValueError(f"'{model.name}' is quantized already. To train it as it is, compile it and call `fit`.")
    for weight in transformed_weights(model):
        for transform in weight.transforms:
            if not isinstance(transform, Mask | PaletteTransform):
                raise ValueError(f"'{weight.path}' carries {transform.name}: strip the model first.")
    for layer in flatten_layers(model):
        _check_layer(layer)
    for weight in model.weights:
        if weight.dtype.startswith(("float", "bfloat")) and not np.isfinite(numpy_value(weight)).all():
            raise ValueError(
                f"Weight '{weight.path}' contains NaN or infinite values: such a model cannot be quantized."
            )


def check_placement(placement, target, scheme, calibration):
    """Whether what is faster in floats is left in floats; refuses settings that dynamic ranges have no use for.

    Args:
        placement: "fast", "integer" or `None`.
        target: a `Target`.
        scheme: a `QuantizationScheme`.
        calibration: a `Calibration`.

    Raises:
        ValueError: if `placement` is none of these, or a setting is about ranges, and these are dynamic.
    """
    if not scheme.is_dynamic:
        return is_fast(placement, target, scheme.activation_bits)
    if placement is not None:
        raise ValueError(
            f"`placement={placement!r}` chooses between integers and floats; with dynamic ranges, dense layers and "
            "embeddings alone have integers. Leave it out, and leave layers in floats by `overrides={layer: None}`."
        )
    for name in ("estimator", "loss"):
        if getattr(calibration, name) is not None:
            raise ValueError(
                f"`{name}` chooses ranges of activations; dynamic ones are found as the model runs: leave it out."
            )
    if calibration.equalize:
        raise ValueError("`equalize=True` is for activations in integers: leave it out with dynamic ranges.")
    return True


def _check_layer(layer):
    label = f"Layer '{layer.path or layer.name}'"
    if getattr(layer, "quantization_mode", None) is not None:
        raise ValueError(f"{label} is quantized by Keras ({layer.quantization_mode}) already: pass the float model.")
    if getattr(layer, "lora_enabled", False):
        raise ValueError(f"{label}: {MERGE_LORA}.")
    if isinstance(layer, keras.layers.RNN) and layer.stateful:
        raise ValueError(f"{label} is stateful: LiteRT files keep no state. Build it with `stateful=False`.")
    if layer.dtype_policy.variable_dtype != "float32":
        raise ValueError(
            f"{label} has variables of type {layer.dtype_policy.variable_dtype}, which runtimes do not compute with: "
            "build the model with the policy 'float32' or a mixed one, and copy the weights with `set_weights`."
        )


def check_model(model, function):
    """Raises a `TypeError` or `ValueError` naming the public `function` if `model` is no built model with a graph."""
    check_built(model, function)
    if as_functional(model) is None:
        raise ValueError(
            f"`{function}` reads the graph of sequential and functional models; '{model.name}' is a "
            f"{type(model).__name__}. Make it functional by `keras_mot.graph.trace(model)`."
        )


def check_built(model, function):
    """Raises a `TypeError` or `ValueError` naming the public `function` if `model` is no built model."""
    if not isinstance(model, keras.Model):
        raise TypeError(
            f"`{function}` expects a Keras 3 model (`keras.Model`); received {describe(model)} of type "
            f"{type(model).__module__}.{type(model).__name__}."
        )
    if not model.built:
        raise ValueError(_not_built(model, function))


def _not_built(model, function):
    """What to do with a model without weights: those of Keras's own examples that only train have no `call`."""
    if plain_class(model).call is not keras.Model.call:
        return (
            f"`{function}` needs a built model, whose weights exist; '{model.name}' ({type(model).__name__}) is not "
            "built. Call the model once on data, or `model.build(input_shape)`."
        )
    attributes = {**vars(model), **vars(model).get("_modules", {})}  # PyTorch keeps models apart
    networks = [name for name, value in attributes.items() if isinstance(value, keras.Model)]
    held = f" Of those that it holds, these are: {', '.join(networks)}." if networks else ""
    first = networks[0] if networks else "network"
    return (
        f"'{model.name}' is a {type(model).__name__} without a `call`: it trains other networks, and computes nothing "
        f"by itself. Pass the network that is to compute in integers, and give the result to the model that trains it, "
        f"`{first} = {function}(model.{first}, ...)`, `{type(model).__name__}({first}, ...)`.{held}"
    )
