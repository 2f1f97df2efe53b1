"""Stores the zeros of a dense `.tflite` file compactly, as TensorFlow's converter does, in a fraction of its memory.

A weight with enough zeros becomes a sparse tensor, whose last dimension is compressed (CSR), and a DENSIFY operator
that expands it when the file is loaded.
"""

import copy

import numpy as np

from keras_mot.export.dependencies import require
from keras_mot.export.litert.litert_file import dense_values, enum_name, operator_codes, pack_model, parse_model

LEAST_SPARSITY = 0.3
"""The share of zeros from which on the converter encodes a weight."""
_BLOCK, _BLOCK_SHARE = 4, 0.9
_WEIGHTED = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED")


def encode(content: bytes) -> bytes | None:
    """The file with its weights in sparse encoding.

    Args:
        content: a file with dense weights.

    Returns:
        The bytes of the new file, which computes the same; `None` if a kernel of a dense layer is zero in blocks of
        1x4, for which runtimes have a smaller encoding that only the converter writes.
    """
    schema = require("ai_edge_litert.schema_py_generated")
    model = parse_model(content)
    codes = [enum_name(schema.BuiltinOperator, code) for code in operator_codes(model)]
    densify = len(codes)
    found = 0
    for graph in model.subgraphs:
        weights = _weights(graph, codes)
        for index, readers in weights.items():
            values = _encodable(schema, model, graph.tensors[index])
            if values is None:
                continue
            if "FULLY_CONNECTED" in readers and _is_in_blocks(values):
                return None
            _encode(schema, model, graph, index, values, densify)
            found += 1
    if not found:
        return content
    code = schema.OperatorCodeT()
    code.builtinCode = code.deprecatedBuiltinCode = schema.BuiltinOperator.DENSIFY
    code.version = 1
    model.operatorCodes.append(code)
    return pack_model(model)


def _weights(graph, codes):
    """Dictionary from the indices of kernels to the names of the weighted operators that read them."""
    sources, weights = {}, {}
    for operator in graph.operators or []:
        if codes[operator.opcodeIndex] == "DEQUANTIZE":
            sources[int(operator.outputs[0])] = int(operator.inputs[0])
    for operator in graph.operators or []:
        name = codes[operator.opcodeIndex]
        if name in _WEIGHTED:
            index = int(operator.inputs[1])
            weights.setdefault(sources.get(index, index), set()).add(name)
    return weights


def _encodable(schema, model, tensor):
    """The values of a float constant with enough zeros, or `None`."""
    data = model.buffers[tensor.buffer].data
    kind = enum_name(schema.TensorType, tensor.type)
    if data is None or not len(data) or kind not in ("FLOAT32", "FLOAT16") or tensor.sparsity is not None:
        return None
    values = dense_values(model, tensor)
    return values if values.size - np.count_nonzero(values) >= LEAST_SPARSITY * values.size else None


def _is_in_blocks(values):
    """Whether the zeros of a matrix lie in blocks of 1x4, nearly all of them."""
    if values.shape[-1] % _BLOCK:
        return False
    zeros = values.size - np.count_nonzero(values)
    blocks = np.count_nonzero(~values.reshape(-1, _BLOCK).any(axis=1))
    return blocks * _BLOCK > _BLOCK_SHARE * zeros


def _encode(schema, model, graph, index, values, densify):
    """Makes the tensor `index` sparse, and puts what expands it before the first operator that reads it."""
    tensor = graph.tensors[index]
    dense = copy.copy(tensor)
    dense.buffer, dense.name = 0, _name(tensor) + "/dense"
    graph.tensors.append(dense)
    kept = values != 0
    users = [each for part in model.subgraphs for each in part.tensors if each.buffer == tensor.buffer]
    if len(users) > 1:
        model.buffers.append(schema.BufferT())
        tensor.buffer = len(model.buffers) - 1
    model.buffers[tensor.buffer].data = np.frombuffer(values[kept].tobytes(), "uint8")
    tensor.sparsity = _sparsity(schema, kept)
    operator = schema.OperatorT()
    operator.opcodeIndex, operator.inputs, operator.outputs = densify, [index], [len(graph.tensors) - 1]
    operator.builtinOptionsType = schema.BuiltinOptions.DensifyOptions
    operator.builtinOptions = schema.DensifyOptionsT()
    first = None
    for place, reader in enumerate(graph.operators):
        if reader.inputs is not None and index in reader.inputs:
            reader.inputs = [len(graph.tensors) - 1 if int(each) == index else int(each) for each in reader.inputs]
            first = place if first is None else first
    graph.operators.insert(first, operator)


def _sparsity(schema, kept):
    """The `SparsityParameters` of a tensor that holds something where `kept` is true."""
    sparsity = schema.SparsityParametersT()
    sparsity.traversalOrder = np.arange(kept.ndim, dtype="int32")
    sparsity.dimMetadata = []
    for size in kept.shape[:-1]:
        level = schema.DimensionMetadataT()
        level.format, level.denseSize = schema.DimensionType.DENSE, size
        sparsity.dimMetadata.append(level)
    rows = kept.reshape(-1, kept.shape[-1])
    level = schema.DimensionMetadataT()
    level.format = schema.DimensionType.SPARSE_CSR
    segments = np.concatenate([[0], np.cumsum(np.count_nonzero(rows, axis=1))])
    level.arraySegmentsType, level.arraySegments = _vector(schema, segments)
    level.arrayIndicesType, level.arrayIndices = _vector(schema, np.nonzero(rows)[1])
    sparsity.dimMetadata.append(level)
    return sparsity


def _vector(schema, numbers):
    """(type, vector) of indices, in as few bytes as they need."""
    kind = next(kind for kind in ("uint8", "uint16", "int32") if numbers.max(initial=0) <= np.iinfo(kind).max)
    vector = getattr(schema, f"{kind.capitalize()}VectorT")()
    vector.values = numbers.astype(kind)
    return getattr(schema.SparseIndexVector, f"{kind.capitalize()}Vector"), vector


def _name(tensor):
    return tensor.name.decode() if isinstance(tensor.name, bytes) else str(tensor.name)
