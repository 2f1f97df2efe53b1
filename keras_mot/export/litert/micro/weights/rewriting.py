"""Puts encoded weights into a file, each with the DECODE operator that makes the kernel of them in the arena."""

import copy
import dataclasses

import numpy as np

from keras_mot.export.dependencies import require
from keras_mot.export.litert.litert_file import dense_values, enum_name, operator_codes, pack_model, parse_model
from keras_mot.export.litert.micro.weights.encodings import Encoded, encodings, padded
from keras_mot.export.litert.micro.weights.reading import DECODE, KERNELS, channels_of, name_of

_BYTES_OF_AN_OPERATOR = 120
"""About what the operator takes in a file, with the description of its tensors."""
_WORTHWHILE_SAVING = 0.05
"""Weights are decoded whenever the file runs: that should save at least this share of them."""
_UNREAD_SCALES = ("CONV_2D", "DEPTHWISE_CONV_2D", "TRANSPOSE_CONV")
"""Operators whose kernels compute the scale of a bias, and read none."""


@dataclasses.dataclass(frozen=True)
class Candidate:
    """A constant that takes less in a file once it is encoded.

    Attributes:
        index: of its tensor in the first graph.
        name: of the tensor.
        dense_bytes: of its values, which it takes in the arena when it is decoded.
        encoded: its smallest encoding.
        first: the place of the first operator that reads it.
        last: that of the last one.
    """

    index: int
    name: str
    dense_bytes: int
    encoded: Encoded
    first: int
    last: int

    @property
    def saved_bytes(self) -> int:
        """About how many bytes it saves."""
        return padded(self.dense_bytes) - self.encoded.bytes - _BYTES_OF_AN_OPERATOR


def candidates(content: bytes) -> list[Candidate]:
    """The kernels of a file that pay, in the order of the operators that read them."""
    schema = require("ai_edge_litert.schema_py_generated")
    model = parse_model(content)
    graph = model.subgraphs[0]
    found = []
    for index, (first, last) in _kernels(schema, model).items():
        tensor = graph.tensors[index]
        values = dense_values(model, tensor)
        channels = channels_of(tensor)
        encoded = min(encodings(values, channels), key=lambda each: each.bytes)
        candidate = Candidate(index, name_of(tensor), values.nbytes, encoded, first, last)
        if candidate.saved_bytes >= _WORTHWHILE_SAVING * values.nbytes and candidate.saved_bytes > 0:
            found.append(candidate)
    return found


def kernel_names(content: bytes) -> list[str]:
    """The names of the kernels of a file that could be encoded, whether it pays or not, in order."""
    schema, model = require("ai_edge_litert.schema_py_generated"), parse_model(content)
    return [name_of(model.subgraphs[0].tensors[index]) for index in _kernels(schema, model)]


def _kernels(schema, model):
    """Dictionary from tensors to the places of the first and the last operator that reads them.

    They are the constants of int8 that are read by weighted operators alone: others may want theirs before anything
    is decoded. What several tensors share is such a constant if all of them are.
    """
    graph = model.subgraphs[0]
    codes = [enum_name(schema.BuiltinOperator, code) for code in operator_codes(model)]
    read, others = {}, {int(index) for index in graph.outputs}
    for place, operator in enumerate(graph.operators):
        at = KERNELS.get(codes[operator.opcodeIndex])
        for position, index in enumerate(map(int, _inputs(operator))):
            if position != at:
                others.add(index)
            else:
                read[index] = (read.get(index, (place,))[0], place)
    found = {index: places for index, places in read.items() if index not in others and _is_dense(schema, model, index)}
    kept = {id(graph.tensors[index]) for index in found}
    shared = {tensor.buffer for part in model.subgraphs for tensor in part.tensors if id(tensor) not in kept}
    return {index: places for index, places in found.items() if graph.tensors[index].buffer not in shared}


def _is_dense(schema, model, index):
    tensor = model.subgraphs[0].tensors[index]
    data, grid = model.buffers[tensor.buffer].data, tensor.quantization
    has_values = data is not None and len(data) > 0 and tensor.sparsity is None
    has_scale = grid is not None and grid.scale is not None and len(grid.scale) > 0
    return tensor.type == schema.TensorType.INT8 and has_values and has_scale


def with_encoded(content: bytes, chosen: list[Candidate]) -> bytes:
    """The file with some of its candidates encoded, without what TFLM does not read; as it is if there are none."""
    if not chosen:
        return content
    schema = require("ai_edge_litert.schema_py_generated")
    model = parse_model(content)
    graph = model.subgraphs[0]
    code = schema.OperatorCodeT()
    code.builtinCode, code.deprecatedBuiltinCode = schema.BuiltinOperator.CUSTOM, schema.BuiltinOperator.CUSTOM
    code.customCode, code.version = DECODE, 1
    model.operatorCodes.append(code)
    _drop_what_is_not_read(schema, model)
    stored = {}
    for candidate in sorted(chosen, key=lambda each: each.first, reverse=True):
        tensor = graph.tensors[candidate.index]
        operator = schema.OperatorT()
        operator.opcodeIndex = len(model.operatorCodes) - 1
        operator.inputs = np.array([_stored(schema, model, part, stored) for part in _parts(candidate)], "int32")
        operator.outputs = np.array([candidate.index], "int32")
        graph.operators.insert(candidate.first, operator)
        tensor.buffer = 0
        if len(tensor.quantization.scale) == 1:  # the decoders take a scale of its own for one of an axis
            tensor.quantization.quantizedDimension = 0
    _drop_buffers(schema, model)
    return pack_model(model)


def _parts(candidate):
    return candidate.encoded.data, candidate.encoded.beside


def _stored(schema, model, content, stored):
    """The index of a new constant of bytes, or of an equal one in `stored`, which remembers them."""
    if content in stored:
        return stored[content]
    buffer, tensor = schema.BufferT(), schema.TensorT()
    buffer.data = np.frombuffer(content, "uint8")
    model.buffers.append(buffer)
    tensor.shape, tensor.type = np.array([len(content)], "int32"), schema.TensorType.UINT8
    tensor.buffer = len(model.buffers) - 1
    model.subgraphs[0].tensors.append(tensor)
    stored[content] = len(model.subgraphs[0].tensors) - 1
    return stored[content]


def _drop_what_is_not_read(schema, model):
    """Scales of biases that kernels compute, and all zero points of a tensor but one where they are equal."""
    graph = model.subgraphs[0]
    codes = [enum_name(schema.BuiltinOperator, each) for each in operator_codes(model)]
    read = [(codes[each.opcodeIndex], int(index)) for each in graph.operators for index in _inputs(each)]
    readers = {}
    for name, index in read:
        readers.setdefault(index, set()).add(name)
    for index, tensor in enumerate(graph.tensors):
        grid = tensor.quantization
        if grid is None or grid.scale is None or len(grid.scale) < 2:
            continue
        if tensor.type == schema.TensorType.INT32 and readers.get(index, {""}) <= set(_UNREAD_SCALES):
            tensor.quantization = None
        elif grid.zeroPoint is not None and len(set(grid.zeroPoint)) == 1:
            tensor.quantization = copy.copy(grid)
            tensor.quantization.zeroPoint = grid.zeroPoint[:1]


def _inputs(operator):
    return () if operator.inputs is None else operator.inputs


def _drop_buffers(schema, model):
    """Leaves out contents that nothing refers to any more; the first is the empty one."""
    used = {tensor.buffer for graph in model.subgraphs for tensor in graph.tensors}
    used |= {0, *(entry.buffer for entry in model.metadata or ())}
    places = {old: new for new, old in enumerate(sorted(used))}
    for entry in (*(tensor for graph in model.subgraphs for tensor in graph.tensors), *(model.metadata or ())):
        entry.buffer = places[entry.buffer]
    model.buffers = [model.buffers[old] for old in sorted(used)]
