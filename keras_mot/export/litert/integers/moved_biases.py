"""Biases that the converter adds behind what moves a convolution's result, put back into the convolution.

A dilated convolution becomes SPACE_TO_BATCH_ND, CONV_2D, BATCH_TO_SPACE_ND and, at last, ADD; a one-dimensional
transposed one is reshaped before its bias is added. In integers the sum before the bias would have to be rounded to a
range that nothing is known of. A bias of channels may as well be added before numbers are moved about, as kernels do.
"""

import copy

import numpy as np

from keras_mot.export.dependencies import require
from keras_mot.export.litert.integers.rules import WEIGHTED
from keras_mot.export.litert.litert_file import dense_values, enum_name, operator_codes

_MOVING = ("RESHAPE", "SQUEEZE", "BATCH_TO_SPACE_ND")


def move_biases(model):
    """Moves biases in the first graph of a parsed file; what is left of an addition is its fused activation."""
    schema = require("ai_edge_litert.schema_py_generated")
    graph = model.subgraphs[0]
    names = [enum_name(schema.BuiltinOperator, code) for code in operator_codes(model)]
    outputs, readers = {int(index) for index in graph.outputs}, {}
    for operator in graph.operators:
        for index in operator.inputs if operator.inputs is not None else ():
            readers.setdefault(int(index), []).append(operator)
    for operator in list(graph.operators):
        role = WEIGHTED.get(names[operator.opcodeIndex])
        if role is None or operator.builtinOptions.fusedActivationFunction or not _lacks_bias(model, operator, role[2]):
            continue
        channels = int(graph.tensors[operator.outputs[0]].shape[-1])
        index, addition = _addition_behind(graph, int(operator.outputs[0]), channels, names, readers, outputs)
        constants = [int(each) for each in addition.inputs if int(each) != index] if addition is not None else []
        if len(constants) != 1 or not _is_bias(model, constants[0], channels):
            continue
        later = readers.get(int(addition.outputs[0]), ())
        if _leave_activation(model, schema, addition, index, later, names):
            _give_bias(model, operator, role[2], constants[0], channels)


def _addition_behind(graph, index, channels, names, readers, outputs):
    """The ADD that alone reads a tensor, moved about or not, and which tensor it reads; `None` if there is none."""
    while len(readers.get(index, ())) == 1 and index not in outputs:
        (reader,) = readers[index]
        result, name = int(reader.outputs[0]), names[reader.opcodeIndex]
        if name == "ADD":
            return index, None if result in outputs else reader
        shape = graph.tensors[result].shape
        if name not in _MOVING or not len(shape) or int(shape[-1]) != channels:
            break
        index = result
    return index, None


def _data(model, index):
    data = model.buffers[model.subgraphs[0].tensors[index].buffer].data
    return data if data is not None and len(data) else None


def _lacks_bias(model, operator, place):
    """Whether an operator has no bias, or one of zeros."""
    if len(operator.inputs) <= place or operator.inputs[place] < 0:
        return True
    data = _data(model, int(operator.inputs[place]))
    return data is not None and not np.any(data)


def _is_bias(model, index, channels):
    """Whether a tensor is constant numbers, one for each channel of the last axis."""
    tensor = model.subgraphs[0].tensors[index]
    shape = [int(size) for size in tensor.shape] if tensor.shape is not None else []
    return _data(model, index) is not None and bool(shape) and shape[-1] == channels == int(np.prod(shape))


def _give_bias(model, operator, place, index, channels):
    graph = model.subgraphs[0]
    bias = copy.copy(graph.tensors[index])
    bias.shape, bias.shapeSignature = np.array([channels], "int32"), None
    buffer = type(model.buffers[0])()
    values = dense_values(model, graph.tensors[index]).astype("float32")
    buffer.data = np.frombuffer(np.ascontiguousarray(values).tobytes(), "uint8")
    model.buffers.append(buffer)
    bias.buffer = len(model.buffers) - 1
    graph.tensors.append(bias)
    inputs = [int(each) for each in operator.inputs]
    operator.inputs = [*inputs[:place], *[-1] * (place - len(inputs)), len(graph.tensors) - 1]


def _leave_activation(model, schema, addition, index, readers, names):
    """Makes of an addition what is fused into it, on the tensor `index`; returns whether that can be done."""
    functions = schema.ActivationFunctionType
    fused = addition.builtinOptions.fusedActivationFunction
    if fused == functions.NONE:
        result = int(addition.outputs[0])
        for reader in readers:
            reader.inputs = [index if int(each) == result else int(each) for each in reader.inputs]
        model.subgraphs[0].operators.remove(addition)
        return True
    name = {functions.RELU: "RELU", functions.RELU6: "RELU6"}.get(fused)
    if name is None:
        return False
    code = schema.OperatorCodeT()
    code.builtinCode = code.deprecatedBuiltinCode = getattr(schema.BuiltinOperator, name)
    code.version = 1
    model.operatorCodes.append(code)
    names.append(name)
    addition.opcodeIndex, addition.inputs = len(model.operatorCodes) - 1, [index]
    addition.builtinOptions, addition.builtinOptionsType = None, 0
    return True
