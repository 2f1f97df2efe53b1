"""The quantizing functions with TFMOT's arguments."""

from typing import Any

import keras

from keras_mot import quantization
from keras_mot._arrays import numpy_value
from keras_mot._keras import producer_of
from keras_mot._messages import describe
from keras_mot._warnings import warn
from keras_mot.layers.activation_quantizer import ActivationQuantizer, is_quantized
from keras_mot.layers.copying import copy_model
from keras_mot.layers.transformed import transformed_weights
from keras_mot.quantization import INT8, QuantizationScheme
from keras_mot.quantization.simulation.sources import hand_on
from keras_mot.transforms import FakeQuantize, PaletteTransform

_PREFIX = "quant_"


def quantize_model(
    to_quantize: keras.Model,
    scheme: QuantizationScheme | str = INT8,
    *,
    quantized_layer_name_prefix: str = _PREFIX,
    **settings: Any,
) -> keras.Model:
    """`keras_mot.quantization.quantize_model`, which see.

    Args:
        to_quantize: a built model.
        scheme: a `QuantizationScheme`; a text is taken for TFMOT's second argument, the prefix.
        quantized_layer_name_prefix: has no effect: layers keep their names.
        **settings: the other arguments.
    """
    if isinstance(scheme, str):
        scheme, quantized_layer_name_prefix = INT8, scheme
    _warn_of_prefix(quantized_layer_name_prefix)
    return quantization.quantize_model(to_quantize, scheme, **settings)


def quantize_apply(
    model: keras.Model,
    scheme: QuantizationScheme = INT8,
    quantized_layer_name_prefix: str = _PREFIX,
    **settings: Any,
) -> keras.Model:
    """`keras_mot.quantization.quantize_apply`, which see.

    Args:
        model: a built model with marked layers.
        scheme: a `QuantizationScheme`.
        quantized_layer_name_prefix: has no effect: layers keep their names.
        **settings: the other arguments.
    """
    _warn_of_prefix(quantized_layer_name_prefix)
    return quantization.quantize_apply(model, scheme, **settings)


def _warn_of_prefix(prefix):
    if prefix != _PREFIX:
        warn(f"`quantized_layer_name_prefix={prefix!r}` has no effect: layers keep the names that they have.")


def fix_input_output_range(
    model: keras.Model,
    num_bits: int = 8,
    input_min: float = 0.0,
    input_max: float = 1.0,
    output_min: float = 0.0,
    output_max: float = 1.0,
    narrow_range: bool = False,
) -> keras.Model:
    """A quantized model whose inputs and outputs have given ranges, which training leaves as they are.

    Args:
        model: a quantized model. It is not changed.
        num_bits: the bits that it has.
        input_min: the least number of each input.
        input_max: the greatest.
        output_min: the least number of each output.
        output_max: the greatest.
        narrow_range: only `False`.

    Returns:
        A copy, not compiled, with the same weights.

    Raises:
        TypeError: if `model` is no quantized model.
        ValueError: if it has other bits, or its inputs or outputs are not rounded.
    """
    if not isinstance(model, keras.Model) or not is_quantized(model):
        raise TypeError(f"`fix_input_output_range` expects a quantized model; received {describe(model)}.")
    copy = copy_model(model)
    inputs = [id(tensor) for tensor in copy.inputs]
    behind = [layer for layer in copy.layers if isinstance(layer, ActivationQuantizer) and id(layer.input) in inputs]
    at_end = [producer_of(tensor) for tensor in copy.outputs]
    if not behind or not all(isinstance(layer, ActivationQuantizer) for layer in at_end):
        raise ValueError(
            f"'{model.name}' does not round its inputs, or not its outputs: these are computed in floats, and have no "
            "range to be fixed."
        )
    bits = {layer.bits for layer in [*behind, *at_end]}
    if bits != {num_bits} or narrow_range:
        raise ValueError(
            f"'{model.name}' has integers of {sorted(bits)} bits and wide range; received `num_bits={num_bits}`, "
            f"`narrow_range={narrow_range}`."
        )
    for layer in behind:
        layer.fix(input_min, input_max)
    for layer in at_end:
        layer.fix(output_min, output_max)
    hand_on(model, copy)
    return copy


def strip_clustering_cqat(to_strip: keras.Model) -> keras.Model:
    """A quantized model that stores the shared values of its weights, as it computes with them.

    Masks and codebooks stay: they cost nothing in a file, and training may go on. What shows is that `get_weights()`
    of layers has few different values, and the zeros.

    Args:
        to_strip: a quantized model with codebooks. It is not changed.

    Returns:
        A copy, not compiled.

    Raises:
        ValueError: if nothing in it is clustered.
    """
    copy = copy_model(to_strip)
    found = [weight for weight in transformed_weights(copy) if weight.transform_of(PaletteTransform)]
    if not found:
        raise ValueError(
            f"'{to_strip.name}' has no shared values: quantize a clustered model, with "
            "`Default8BitClusterPreserveQuantizeScheme()` if it was stripped."
        )
    for weight in found:
        weight.variable.assign(numpy_value(weight.value_before(weight.transform_of(FakeQuantize))))
    hand_on(to_strip, copy)
    return copy
