"""Checks what a parsed `.tflite` file says, its indices, shapes, scales and sparsity tables, before it is used.

The runtime follows most of these without asking, and ends the process where they are wrong.
"""

import math

import numpy as np

# Texts, resources and variants have no size of their own.
_BITS = {
    **dict.fromkeys(("INT2", "UINT2"), 2),
    **dict.fromkeys(("INT4", "UINT4"), 4),
    **dict.fromkeys(("INT8", "UINT8", "BOOL", "FLOAT8_E4M3FN", "FLOAT8_E5M2"), 8),
    **dict.fromkeys(("FLOAT16", "BFLOAT16", "INT16", "UINT16"), 16),
    **dict.fromkeys(("FLOAT32", "INT32", "UINT32"), 32),
    **dict.fromkeys(("FLOAT64", "INT64", "UINT64", "COMPLEX64"), 64),
    "COMPLEX128": 128,
}
# What a single tensor may take when it is computed, or decoded from a sparse one: this many bytes, or this many times
# the file. No device that such files are for has as much.
_ALWAYS_ALLOWED, _LARGEST_EXPANSION = 2**31, 1000


def check_model(model, length, type_names):
    """Raises a ValueError that says what is wrong with a parsed file.

    Args:
        model: The schema's object tree (`ModelT`).
        length: Length of the file in bytes.
        type_names: Names of the schema's tensor types by their numbers.
    """
    if not model.subgraphs or not model.buffers or model.version != 3:
        raise ValueError("it has no graph, no buffers, or an unknown version")
    for number, buffer in enumerate(model.buffers):
        if buffer.offset + buffer.size > length:
            raise ValueError(f"buffer {number} ends after the end of the file")
    for entry in _list(model.metadata):
        _check_index("the buffer of metadata", entry.buffer, model.buffers)
    for signature in _list(model.signatureDefs):
        _check_index("the graph of a signature", signature.subgraphIndex, model.subgraphs)
        tensors = _list(model.subgraphs[signature.subgraphIndex].tensors)
        for entry in (*_list(signature.inputs), *_list(signature.outputs)):
            _check_index("a tensor of a signature", entry.tensorIndex, tensors)
    for graph in model.subgraphs:
        for number, tensor in enumerate(_list(graph.tensors)):
            try:
                _check_tensor(tensor, model, length, type_names)
                _check_blocks(tensor, graph.tensors)
            except ValueError as error:
                name = (tensor.name or b"").decode(errors="replace")
                raise ValueError(f"tensor {number}, '{name[:200]}': {error}") from error
        _check_operators(graph, model)


def _check_operators(graph, model):
    tensors = _list(graph.tensors)
    for index in (*_list(graph.inputs), *_list(graph.outputs)):
        _check_index("an input or output of the graph", index, tensors)
    for operator in _list(graph.operators):
        _check_index("the code of an operator", operator.opcodeIndex, _list(model.operatorCodes))
        for index in (*_list(operator.inputs), *_list(operator.outputs), *_list(operator.intermediates)):
            if index != -1:  # which stands for an optional one
                _check_index("a tensor of an operator", index, tensors)
        for option, value in vars(operator.builtinOptions).items() if operator.builtinOptions is not None else ():
            if option.endswith(("subgraphIndex", "SubgraphIndex")):
                _check_index("the graph that an operator calls", value, model.subgraphs)


def _check_tensor(tensor, model, length, type_names):
    _check_index("its buffer", tensor.buffer, model.buffers)
    kind = type_names.get(tensor.type)
    if kind is None:
        raise ValueError(f"there is no type {tensor.type}")
    shape = [int(size) for size in _list(tensor.shape)]
    if any(size < 0 for size in shape):
        raise ValueError(f"its shape {shape} has negative sizes")
    signature = _open_shape(tensor, shape)
    _check_quantization(tensor.quantization)
    if kind not in _BITS:
        return
    for sizes in (signature, shape):
        needed = _bytes(math.prod(sizes), kind)
        if needed > max(_ALWAYS_ALLOWED, _LARGEST_EXPANSION * length):
            raise ValueError(f"its shape {sizes} would take {needed:,} bytes, the file having {length:,}")
    stored = len(_list(model.buffers[tensor.buffer].data))
    if tensor.sparsity is not None:
        values = _check_sparsity(tensor.sparsity, shape)
        needed = _bytes(values, kind)
    if stored and stored < needed:
        raise ValueError(f"its values, of shape {shape} and type {kind}, take {needed:,} bytes; {stored:,} are there")


def _bytes(count, kind):
    return -(-count * _BITS[kind] // 8)


def _open_shape(tensor, shape):
    """The shape that the file gives where sizes may be open, with 1 for those; else the shape itself."""
    sizes = _integers(tensor.shapeSignature) or shape
    if len(sizes) != len(shape) or any(size < -1 for size in sizes):
        raise ValueError(f"its shape {shape} does not fit to its open shape {sizes}")
    return [abs(size) for size in sizes]


def _check_quantization(quantization):
    scales = [] if quantization is None else _list(quantization.scale)
    if len(scales) and not (np.isfinite(scales).all() and np.min(scales) >= 0):
        raise ValueError("it has a scale that is negative or not finite")


def _check_blocks(tensor, tensors):
    """Checks what a tensor says of blocks that have a scale each, and of those."""
    details = None if tensor.quantization is None else tensor.quantization.details
    if not hasattr(details, "blockSize"):
        return
    _check_index("the tensor of its scales", details.scales, tensors)
    if details.zeroPoints != -1:
        _check_index("the tensor of its zero points", details.zeroPoints, tensors)
    sizes, scales = (math.prod(int(size) for size in _list(each.shape)) for each in (tensor, tensors[details.scales]))
    if details.blockSize < 1 or scales * details.blockSize != sizes:
        raise ValueError(f"it has {scales} scales for {sizes} values in blocks of {details.blockSize}")


def _check_sparsity(sparsity, shape):
    """Checks the tables of a sparse tensor as `_decode_sparse` reads them; returns the number of stored values."""
    order, blocked = _integers(sparsity.traversalOrder), _integers(sparsity.blockMap)
    levels = _list(sparsity.dimMetadata)
    rank = len(shape)
    if sorted(order) != list(range(rank + len(blocked))) or len(levels) != len(order):
        raise ValueError(
            f"its sparsity goes through the dimensions {order} in {len(levels)} levels, its shape being {shape} with "
            f"{len(blocked)} blocks"
        )
    if len(set(blocked)) != len(blocked) or not all(0 <= dimension < rank for dimension in blocked):
        raise ValueError(f"its sparsity has blocks along the dimensions {blocked}, its shape being {shape}")
    sizes = list(shape)
    for position, dimension in enumerate(blocked):
        level = levels[order.index(rank + position)]
        size = int(level.denseSize)
        if level.format != 0 or size < 1 or shape[dimension] % size:
            raise ValueError(f"its sparsity has blocks of {size} along a dimension of {shape[dimension]}")
        sizes[dimension] //= size
        sizes.append(size)
    count = 1
    for dimension, level in zip(order, levels, strict=True):
        count = _check_level(level, sizes[dimension], count)
    return count


def _check_level(level, size, parents):
    """Checks one level of a sparse tensor below `parents` entries; returns the number of its entries."""
    if level.format == 0:
        if level.denseSize != size:
            raise ValueError(f"its sparsity has a level of {level.denseSize} where its shape has {size}")
        return parents * size
    segments, indices = (
        np.asarray([] if part is None or part.values is None else part.values, np.int64)
        for part in (level.arraySegments, level.arrayIndices)
    )
    if level.format != 1 or len(segments) != parents + 1:
        raise ValueError(f"its sparsity has {len(segments)} segments for {parents} rows")
    if segments[0] != 0 or segments[-1] != len(indices) or (np.diff(segments) < 0).any():
        raise ValueError("its sparsity has segments that do not follow each other")
    if len(indices) and not (indices.min() >= 0 and indices.max() < size):
        raise ValueError(f"its sparsity has indices outside of a dimension of {size}")
    return len(indices)


def _check_index(what, index, items):
    if not 0 <= index < len(items):
        raise ValueError(f"{what} is number {index} of {len(items)}")


def _list(values):
    return () if values is None else values


def _integers(values):
    return [int(value) for value in _list(values)]
