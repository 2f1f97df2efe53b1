"""Limits of the types, the scales and the constancy of tensors."""

import numpy as np

from keras_mot.analysis._limits import limit, listed
from keras_mot.export.litert.operator_view import WEIGHTED


@limit
def input_types(operator, index, *types):
    tensor = operator.input(index)
    if tensor is None or tensor.type in types:
        return None
    return f"its input is {tensor.type}; expected {listed(types)}"


@limit
def activation_types(operator, *types):
    kind = operator.activation.type
    return None if kind in types else f"it computes with {kind}; expected {listed(types)}"


@limit
def output_types(operator, index, *types):
    tensor = operator.outputs[index]
    return None if tensor.type in types else f"its result is {tensor.type}; expected {listed(types)}"


@limit
def weight_types(operator, *types):
    weight = operator.weight
    return None if weight.type in types else f"its weights are {weight.type}; expected {listed(types)}"


@limit
def bias_types(operator, *types):
    bias = operator.bias
    return None if bias is None or bias.type in types else f"its bias is {bias.type}; expected {listed(types)}"


@limit
def version(operator, most):
    return None if operator.version <= most else f"version {operator.version} of the operator; at most {most} is known"


@limit
def constant(operator, index):
    tensor = operator.input(index)
    return None if tensor is None or tensor.constant else f"its input {index + 1} is computed; a constant is expected"


@limit
def constant_weights(operator):
    if operator.name not in WEIGHTED or operator.weight.constant:
        return None
    return "its weights are computed; constants are expected"


@limit
def constant_bias(operator):
    return None if operator.bias is None or operator.bias.constant else "its bias is computed; a constant is expected"


@limit
def has_bias(operator, index):
    return None if operator.input(index) is not None else "it has no bias, which is demanded"


@limit
def one_scale(operator, index):
    tensor = operator.input(index)
    if tensor is None or len(tensor.scales) <= 1:
        return None
    return (
        f"its weights have {len(tensor.scales)} scales, one for each channel; one for all is demanded: quantize with "
        "`QuantizationScheme(per_channel=False)` (`keras-mot quantize --per-tensor`)"
    )


@limit
def one_scale_of_activations(operator):
    weight = operator.weight
    tensors = [tensor for tensor in (*operator.inputs, *operator.outputs) if tensor is not None]
    if any(len(each.scales) > 1 for each in tensors if each is not weight and each is not operator.bias):
        return "a tensor has several scales; one is demanded of all but weights and biases"
    return None


@limit
def quantized(operator):
    tensors = [tensor for tensor in (*operator.inputs, *operator.outputs) if tensor is not None and tensor.integer]
    return None if all(tensor.scales for tensor in tensors) else "a tensor of integers has no scale"


@limit
def same_quantization(operator):
    source, result = operator.activation, operator.outputs[0]
    if not source.integer or (source.scales, source.zero_points) == (result.scales, result.zero_points):
        return None
    return "its result has another scale or zero point than its input; the same is demanded"


@limit
def quantized_like_result(operator):
    result = operator.outputs[0]
    for tensor in operator.inputs:
        if tensor.integer and (tensor.scales, tensor.zero_points) != (result.scales, result.zero_points):
            return "its inputs and its result have different scales or zero points; the same are demanded"
    return None


@limit
def weights_like_input(operator):
    floats = ("FLOAT32", "FLOAT16")
    if operator.activation.type in floats and operator.weight.type not in floats:
        return f"its weights are {operator.weight.type} beside activations of floats"
    return None


@limit
def rescaled_below_one(operator):
    source, weight, result = operator.activation, operator.weight, operator.outputs[0]
    if source.type != "UINT8" or not (source.scales and weight.scales and result.scales):
        return None
    if source.scales[0] * max(weight.scales) < result.scales[0]:
        return None
    return "the scale of its input times that of its weights should be less than that of its result"


@limit
def from_float_or_byte(operator):
    kind = operator.inputs[0].type
    return None if kind in ("FLOAT32", "INT8", "UINT8") else f"its input is {kind}; expected FLOAT32, INT8 or UINT8"


@limit
def constants_are_zero(operator):
    constants = [tensor for tensor in operator.inputs if tensor.constant]
    if not constants:
        return None
    points = [(tensor.zero_points or (0,))[0] for tensor in constants]
    zero = all(np.all(each.values() == point) for each, point in zip(constants, points, strict=True))
    if zero and len(operator.inputs) == 2:
        return None
    return "it joins a constant that is not zero, or one with more than one other tensor"
