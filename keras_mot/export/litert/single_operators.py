"""Files of one operator, cut out of another file: what it takes to time an operator by itself."""

import copy
from typing import Any

from keras_mot.export.dependencies import require
from keras_mot.export.litert.litert_file import operator_codes, pack_model

_OPEN = "its sizes are open"
_SUBGRAPHS = "it runs other parts of the file"


def why_not_alone(graph: Any, operator: Any) -> str:
    """Why an operator cannot run by itself, in words; empty if it can."""
    if any("subgraph" in name.lower() for name in vars(operator.builtinOptions or object)):
        return _SUBGRAPHS
    signatures = [graph.tensors[index].shapeSignature for index in (*_indices(operator.inputs), *operator.outputs)]
    # An open batch is of one sample; what else is open, the file does not say.
    return _OPEN if any(each is not None and -1 in list(each)[1:] for each in signatures) else ""


def kind_of(file: Any, graph: Any, operator: Any) -> str:
    """A text that is equal for operators that compute the same with other values, and differs for others."""
    tensors = [graph.tensors[index] for index in (*_indices(operator.inputs), *operator.outputs)]
    told = [
        (
            each.type,
            None if each.shape is None else list(each.shape),
            _values(file, each) is not None,
            each.sparsity is not None,
            # Integers are scaled: by how much takes no time, but whether each channel has its own scale may.
            None if each.quantization is None or each.quantization.scale is None else len(each.quantization.scale),
        )
        for each in tensors
    ]
    options = None if operator.builtinOptions is None else sorted(map(str, vars(operator.builtinOptions).items()))
    return str((operator.opcodeIndex, options, told))


def constant_bytes(file: Any, graph: Any, operator: Any) -> int:
    """Bytes of the constants that an operator reads."""
    found = [_values(file, graph.tensors[index]) for index in _indices(operator.inputs)]
    return sum(len(each) for each in found if each is not None)


def repeated(file: Any, graph: Any, operator: Any, copies: int) -> bytes:
    """A file that computes what an operator of a parsed file does, several times, of the same inputs.

    Args:
        file: the parsed file.
        graph: the one of its graphs that has the operator.
        operator: of which `why_not_alone` says nothing.
        copies: how often.

    Returns:
        The content of a `.tflite` file. Its inputs are the tensors that the operator reads and that are no constants.
    """
    schema = require("ai_edge_litert.schema_py_generated")
    small, only = schema.ModelT(), schema.SubGraphT()
    small.version, small.subgraphs, small.buffers = 3, [only], [schema.BufferT()]
    small.operatorCodes = [file.operatorCodes[operator.opcodeIndex]]
    only.tensors, only.inputs, only.outputs, only.operators = [], [], [], []

    def added(index):
        tensor, values = copy.copy(graph.tensors[index]), _values(file, graph.tensors[index])
        tensor.shape, tensor.buffer, tensor.shapeSignature = _sizes(tensor), 0, None
        tensor.name = f"tensor_{len(only.tensors)}".encode()
        if values is not None:
            tensor.buffer = len(small.buffers)
            small.buffers.append(file.buffers[graph.tensors[index].buffer])
        only.tensors.append(tensor)
        return len(only.tensors) - 1

    template, read = copy.copy(operator), () if operator.inputs is None else operator.inputs
    template.opcodeIndex = 0
    if operator_codes(file)[operator.opcodeIndex] == schema.BuiltinOperator.RESHAPE:  # to sizes that may be computed
        read, template.builtinOptions = read[:1], schema.ReshapeOptionsT()
        template.builtinOptionsType = schema.BuiltinOptions.ReshapeOptions
        template.builtinOptions.newShape = _sizes(graph.tensors[operator.outputs[0]])
    places = {index: added(index) for index in dict.fromkeys(_indices(read))}
    template.inputs = [places.get(int(index), -1) for index in read]
    only.inputs = [
        place for place in places.values() if not (only.tensors[place].buffer or only.tensors[place].isVariable)
    ]
    for _ in range(copies):
        one = copy.copy(template)
        one.outputs = [added(index) for index in operator.outputs]
        if operator.intermediates is not None:
            one.intermediates = [added(index) for index in operator.intermediates]
        only.outputs += one.outputs
        only.operators.append(one)
    return pack_model(small)


def _sizes(tensor):
    """The shape for one sample, which files have where the batch is open; some have 0 for 1."""
    return None if tensor.shape is None else [max(1, int(size)) for size in tensor.shape]


def _indices(indices):
    return [int(index) for index in (() if indices is None else indices) if index >= 0]


def _values(file, tensor):
    data = file.buffers[tensor.buffer].data
    return data if data is not None and len(data) else None
