"""In a file of float16 weights, keeps in float32 what angles are computed from.

Sine and cosine take angles of many periods, as in embeddings of times and positions: of 600 radians, the 11 bits of a
half leave steps of half a radian, and what was exact to a thousandth becomes another number altogether.
"""

import numpy as np

from keras_mot.export.dependencies import require
from keras_mot.export.litert.litert_file import dense_values, enum_name, operator_codes, pack_model, parse_model

_PERIODIC = "SIN", "COS"
# What angles are computed by from their constants.
_THROUGH = {"ADD", "SUB", "MUL", "DIV", "NEG", "SUM", "FULLY_CONNECTED", "BATCH_MATMUL", "CONV_2D"}
_THROUGH |= {"RESHAPE", "CONCATENATION", "PACK", "TRANSPOSE", "EXPAND_DIMS", "SQUEEZE", "TILE", "BROADCAST_TO"}
_THROUGH |= {"SLICE", "STRIDED_SLICE", "GATHER", "UNPACK", "SPLIT"}
_LARGEST = 4096  # numbers; larger constants are the weights of layers, which were asked to be halves


def has_rounded_angles(content: bytes) -> bool:
    """Whether a file computes angles from halves."""
    model = parse_model(content)
    return any(_angles(model, graph) for graph in model.subgraphs)


def with_exact_angles(content: bytes, floats: bytes) -> bytes:
    """A file in which the constants of angles are in float32.

    Args:
        content: the file, converted with weights of float16.
        floats: the same model, converted with weights of float32.

    Returns:
        The new file; `content` itself if the operators of the two are not the same.
    """
    model, exact = parse_model(content), parse_model(floats)
    if len(model.subgraphs) != len(exact.subgraphs):
        return content
    for graph, other in zip(model.subgraphs, exact.subgraphs, strict=True):
        values = _values(model, graph, exact, other, _angles(model, graph))
        if values is None:
            return content
        _keep(model, graph, values)
    return pack_model(model)


def _angles(model, graph):
    """Dictionary from the tensors that angles read in place of halves to these constants."""
    names = _names(model)
    halves = _dequantized(model, graph)
    makers = {int(index): operator for operator in graph.operators or [] for index in operator.outputs}
    waiting = [
        i for operator in graph.operators or [] if names[operator.opcodeIndex] in _PERIODIC for i in operator.inputs
    ]
    seen = set()
    while waiting:
        index = int(waiting.pop())
        if index in seen:
            continue
        seen.add(index)
        maker = makers.get(index)
        if maker is not None and names[maker.opcodeIndex] in _THROUGH:
            waiting.extend(maker.inputs)
    tensors = graph.tensors
    small = [index for index in seen & halves.keys() if np.prod(tensors[halves[index]].shape) <= _LARGEST]
    return {index: halves[index] for index in small}


def _names(model):
    schema = require("ai_edge_litert.schema_py_generated")
    return [enum_name(schema.BuiltinOperator, code) for code in operator_codes(model)]


def _dequantized(model, graph):
    """Dictionary from what DEQUANTIZE makes of constants to these."""
    names = _names(model)
    pairs = [(o.outputs[0], o.inputs[0]) for o in graph.operators or [] if names[o.opcodeIndex] == "DEQUANTIZE"]
    return {int(result): int(source) for result, source in pairs if _is_constant(model, graph, int(source))}


def _is_constant(model, graph, index):
    data = model.buffers[graph.tensors[index].buffer].data
    return data is not None and len(data) > 0


def _values(model, graph, exact, other, angles):
    """Dictionary from halves to what they are in the other file; `None` if its operators are others."""
    halves, names, exact_names = _dequantized(model, graph), _names(model), _names(exact)
    operators = [each for each in graph.operators or [] if int(each.outputs[0]) not in halves]
    others = other.operators or []
    if [names[each.opcodeIndex] for each in operators] != [exact_names[each.opcodeIndex] for each in others]:
        return None
    values = {}
    for operator, twin in zip(operators, others, strict=True):
        if operator.inputs is None:
            continue
        for index, there in zip(map(int, operator.inputs), map(int, twin.inputs), strict=True):
            if index not in angles or not _is_constant(exact, other, there):
                continue
            found = dense_values(exact, other.tensors[there])
            if found.dtype == np.float32 and found.shape == tuple(graph.tensors[index].shape):
                values[angles[index]] = found
    return values


def _keep(model, graph, values):
    """Writes constants in float32 and lets what read them behind a DEQUANTIZE read them directly."""
    schema = require("ai_edge_litert.schema_py_generated")
    halves = {result: source for result, source in _dequantized(model, graph).items() if source in values}
    graph.operators = [each for each in graph.operators or [] if int(each.outputs[0]) not in halves]
    for operator in graph.operators:
        if operator.inputs is not None:
            operator.inputs = [halves.get(int(index), int(index)) for index in operator.inputs]
    for index, exact in values.items():
        tensor = graph.tensors[index]
        users = [each for part in model.subgraphs for each in part.tensors if each.buffer == tensor.buffer]
        if len(users) > 1:
            model.buffers.append(schema.BufferT())
            tensor.buffer = len(model.buffers) - 1
        model.buffers[tensor.buffer].data = np.frombuffer(np.ascontiguousarray(exact).tobytes(), "uint8")
        tensor.type, tensor.quantization = schema.TensorType.FLOAT32, None
