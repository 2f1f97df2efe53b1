"""Files with encoded weights, and what these are when they are decoded."""

import copy
import math
from typing import Any

import numpy as np

from keras_mot.export.dependencies import require
from keras_mot.export.litert.litert_file import enum_name, numpy_type, operator_codes
from keras_mot.export.litert.micro.weights.encodings import Channels, decoded, method_of

DECODE = b"TFLM_DECODE"
"""What files call the operator."""
KERNELS = {"CONV_2D": 1, "DEPTHWISE_CONV_2D": 1, "FULLY_CONNECTED": 1, "TRANSPOSE_CONV": 1, "BATCH_MATMUL": 1}
"""Which input of operators is a kernel."""
_BIASES = {"CONV_2D": 2, "DEPTHWISE_CONV_2D": 2, "TRANSPOSE_CONV": 3}
_MOST_VALUES = 2**28
"""What a constant from elsewhere may grow to; no microcontroller has as much."""


def has_encoded_weights(model: Any) -> bool:
    """Whether a parsed file holds weights that only TFLM decodes."""
    return any(code.customCode == DECODE for code in model.operatorCodes or ())


def name_of(tensor: Any) -> str:
    """The name of a parsed tensor, which may have none."""
    return (tensor.name or b"").decode() if not isinstance(tensor.name, str) else tensor.name


def channels_of(tensor: Any) -> Channels:
    """The scales of a parsed tensor."""
    grid = tensor.quantization
    if grid is None or grid.scale is None or not len(grid.scale):
        return Channels()
    points = {0} if grid.zeroPoint is None else {int(point) for point in grid.zeroPoint}
    return Channels(len(grid.scale), int(grid.quantizedDimension), points.pop() if len(points) == 1 else None)


def with_decoded_weights(model: Any) -> tuple[Any, dict[int, tuple[str, int]]]:
    """A parsed file as it was before its weights were encoded.

    Args:
        model: a parsed file, which is left as it is.

    Returns:
        The parsed file with constants in place of what is decoded, biases with their scales; and by the buffers of
        these constants, how they are encoded, in words, and in how many bytes.

    Raises:
        ValueError: what is to be decoded is damaged, or encoded in a way that is not known here.
    """
    if not has_encoded_weights(model):
        return model, {}
    schema = require("ai_edge_litert.schema_py_generated")
    found, model = {}, copy.copy(model)
    model.subgraphs, model.buffers = list(map(copy.copy, model.subgraphs)), list(model.buffers)
    for graph in model.subgraphs:
        graph.tensors, kept = list(map(copy.copy, graph.tensors)), []
        for operator in graph.operators or ():
            if model.operatorCodes[operator.opcodeIndex].customCode != DECODE:
                kept.append(operator)
                continue
            inputs, outputs = ([] if each is None else list(each) for each in (operator.inputs, operator.outputs))
            if len(inputs) != 2 * len(outputs) or min([*inputs, *outputs], default=0) < 0:
                raise ValueError("An operator that decodes weights should read two tensors for each that it makes.")
            for place, index in enumerate(outputs):
                parts = [graph.tensors[int(each)] for each in inputs[2 * place : 2 * place + 2]]
                data, beside = (_content(model, part) for part in parts)
                tensor = graph.tensors[int(index)]
                buffer = schema.BufferT()
                buffer.data = np.frombuffer(_decoded(schema, tensor, data, beside).tobytes(), "uint8")
                model.buffers.append(buffer)
                tensor.buffer = len(model.buffers) - 1
                found[tensor.buffer] = (method_of(beside), len(data) + len(beside))
                for part in parts:
                    part.buffer = 0
        graph.operators = kept
        _restore_scales(schema, model, graph)
    return model, found


def _content(model, tensor):
    data = model.buffers[tensor.buffer].data
    return b"" if data is None else np.asarray(data, "uint8").tobytes()


def _decoded(schema, tensor, data, beside):
    shape = () if tensor.shape is None else tuple(int(size) for size in tensor.shape)
    kind = enum_name(schema.TensorType, tensor.type)
    dtype = numpy_type(kind)
    if dtype is None or math.prod(shape) > _MOST_VALUES:
        raise ValueError(f"The tensor '{name_of(tensor)}' of {kind}, of shape {shape}, cannot be decoded.")
    try:
        return decoded(data, beside, shape, dtype, channels_of(tensor))
    except ValueError as error:
        raise ValueError(f"The tensor '{name_of(tensor)}' cannot be decoded: {error}.") from error


def _restore_scales(schema, model, graph):
    """Gives biases without scales those that their operators compute: of the input, times those of the kernel."""
    codes = [enum_name(schema.BuiltinOperator, code) for code in operator_codes(model)]
    for operator in graph.operators:
        name = codes[operator.opcodeIndex]
        at = _BIASES.get(name)
        if at is None or operator.inputs is None or len(operator.inputs) <= at or min(operator.inputs) < 0:
            continue
        bias = graph.tensors[int(operator.inputs[at])]
        source = operator.inputs[2 if name == "TRANSPOSE_CONV" else 0]
        grids = [graph.tensors[int(index)].quantization for index in (source, operator.inputs[KERNELS[name]])]
        if bias.quantization is None and all(grid is not None and grid.scale is not None for grid in grids):
            grid = copy.copy(grids[1])
            grid.scale = np.float32(grids[0].scale[0]) * np.asarray(grids[1].scale, "float32")
            grid.zeroPoint, grid.quantizedDimension = np.zeros(1, "int64"), 0
            bias.quantization = grid
