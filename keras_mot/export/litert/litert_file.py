"""Reads `.tflite` files: checks that they are whole, and returns their constant tensors as arrays.

The layout is the FlatBuffers schema of LiteRT (`schema.fbs`), through the classes that `ai-edge-litert`
generates from it.
"""

import dataclasses
import math

import numpy as np

from keras_mot._messages import describe, shortened
from keras_mot.export.dependencies import require
from keras_mot.export.litert.file_checks import check_model
from keras_mot.export.litert.flatbuffer import verify
from keras_mot.export.running import content_of

_IDENTIFIER = b"TFL3"
_ZIP = b"PK\x03\x04"
# Tensors of these types are parameters whatever else is said about them; an int32 tensor is a parameter (a
# bias) only if it has a quantization scale, otherwise it is a shape, an axis or a padding.
_PARAMETER_TYPES = ("FLOAT32", "FLOAT16", "BFLOAT16", "FLOAT64", "INT8", "UINT8", "INT4", "INT2", "UINT4")
_NUMPY_TYPES = {
    "FLOAT32": "<f4",
    "FLOAT16": "<f2",
    "FLOAT64": "<f8",
    "INT8": "i1",
    "UINT8": "u1",
    "INT16": "<i2",
    "UINT16": "<u2",
    "INT32": "<i4",
    "UINT32": "<u4",
    "INT64": "<i8",
    "UINT64": "<u8",
    "BOOL": "?",
}
_BY_ELEMENTS = ("ADD", "SUB", "MUL", "DIV", "MAXIMUM", "MINIMUM", "POW", "SQUARED_DIFFERENCE", "PRELU")
_PACKED_BITS = {"INT4": 4, "UINT4": 4, "INT2": 2}


@dataclasses.dataclass(frozen=True)
class ConstantTensor:
    """A constant of the file: `values` is dense, whatever the storage; integers are not dequantized.

    `zero_point` is the value that stands for zero. `encoding` says how it is compressed, and `stored_bytes` what that
    takes, where the file has it so. Of quantized ones, `scales` is the distance of two neighbouring numbers: a float32
    array of as many axes, of length 1 along those that share it. `of_channels` says that it is a number for each
    channel that values are multiplied by, added to, and the like, and no kernel, whatever the number of its axes.
    """

    name: str
    dtype: str
    values: np.ndarray
    sparse_encoding: bool
    zero_point: int
    scales: np.ndarray | None = None
    encoding: str = ""
    stored_bytes: int | None = None
    of_channels: bool = False

    @property
    def floats(self) -> np.ndarray:
        """The numbers that the values stand for, as float32."""
        if self.scales is None:
            return np.asarray(self.values, "float32")
        return (self.values.astype("float32") - np.float32(self.zero_point)) * self.scales


def is_litert(content: bytes) -> bool:
    """Whether the content, or its first eight bytes, begins as a `.tflite` file does.

    A `.tflite` file with metadata is a zip archive too, appended to the model: ask this first.
    """
    return content[4:8] == _IDENTIFIER


def read_content(path_or_content):
    """Returns the bytes of a `.tflite` file and what to call it in messages, after a check of its header."""
    content, label = content_of(path_or_content, ".tflite")
    if content[:4] == _ZIP and b"config.json" in content:
        raise ValueError(
            f"Not a `.tflite` file: {label} is a saved Keras model. Export it first: `export_litert(model, path)`, or "
            "`keras-mot export` and `keras-mot quantize` on the command line."
        )
    if len(content) < 32 or not is_litert(content):
        raise ValueError(
            f"Not a `.tflite` file: {label} ({len(content)} bytes). Expected the identifier 'TFL3' at byte "
            f"4. Received: {describe(content[4:8])}. Export the model again."
        )
    return content, label


def parse_model(path_or_content):
    """Parses a whole file into the schema's object tree (`ModelT`); raises ValueError if it is damaged."""
    return parse_content(*read_content(path_or_content))


def parse_content(content, label):
    """The same of the content of a file that is called `label` in messages."""
    schema = require("ai_edge_litert.schema_py_generated")
    try:
        verify(content)
        model = schema.ModelT.InitFromPackedBuf(content, 0)
        check_model(model, len(content), {number: name for name, number in _public(schema.TensorType)})
    except Exception as error:  # generated classes raise anything
        kind = "" if type(error) is ValueError else f"{type(error).__name__}: "
        raise ValueError(
            f"The `.tflite` file is damaged or truncated: {label} ({len(content):,} bytes): "
            f"{shortened(f'{kind}{error}')}. Export or copy the file again."
        ) from error
    return model


def pack_model(model):
    """The bytes of a file from the schema's object tree.

    Equal vectors of scales, zero points and shapes are stored once: of the 24 bytes that a channel of a kernel and its
    bias would take, 16 are zero points, all of them 0. Contents of tensors start at multiples of 16 bytes, as the
    schema demands.
    """
    flatbuffers = require("flatbuffers")

    class Builder(flatbuffers.Builder):
        """Remembers vectors of numbers, and aligns contents."""

        def __init__(self):
            super().__init__(2**20)
            self._known = {}

        def CreateNumpyVector(self, x):
            if x.dtype == np.uint8:
                self.StartVector(1, x.size, 16)
                self.head = self.head - x.size
                self.Bytes[self.head : self.head + x.size] = x.tobytes()
                self.vectorNumElems = x.size
                return self.EndVector()
            if x.dtype not in (np.int32, np.int64, np.float32):
                return super().CreateNumpyVector(x)
            key = x.dtype.str, x.tobytes()
            if key not in self._known:
                self._known[key] = super().CreateNumpyVector(x)
            return self._known[key]

    builder = Builder()
    builder.Finish(model.Pack(builder), _IDENTIFIER)
    return bytes(builder.Output())


def operator_codes(model):
    """The builtin operator behind each entry of the file's operator table.

    Old files keep small codes in a deprecated 8-bit field, new ones in both; the larger one holds.
    """
    return [max(code.builtinCode, code.deprecatedBuiltinCode) for code in model.operatorCodes]


def reads(operator, kind, model):
    """Whether a parsed file has operators of this name that read tensors of this type first, such as "SUM", "INT8"."""
    schema, codes = require("ai_edge_litert.schema_py_generated"), operator_codes(model)
    code, number = getattr(schema.BuiltinOperator, operator), getattr(schema.TensorType, kind)
    return any(
        codes[each.opcodeIndex] == code and graph.tensors[each.inputs[0]].type == number
        for graph in model.subgraphs
        for each in graph.operators or ()
    )


def enum_name(enum, value):
    """The name of `value` in one of the schema's enumerations."""
    return next((name for name, number in _public(enum) if number == value), str(value))


def _public(enum):
    return [(name, number) for name, number in vars(enum).items() if not name.startswith("_")]


def parameters(model, encodings=None):
    """The constant tensors of a parsed file that are parameters, each stored buffer once.

    `encodings` is what `with_decoded_weights` says of them.
    """
    schema = require("ai_edge_litert.schema_py_generated")
    seen = set()
    for graph in model.subgraphs:
        by_elements = _read_by_elements(model, graph, schema)
        scales = {blocks_of(tensor).scales for tensor in graph.tensors if blocks_of(tensor) is not None}
        for index, tensor in enumerate(graph.tensors):
            if index in scales:  # as of channels, they are no parameters
                continue
            data = model.buffers[tensor.buffer].data
            if data is None or len(data) == 0 or tensor.buffer in seen:
                continue
            kind = enum_name(schema.TensorType, tensor.type)
            if not _is_parameter(tensor, kind):
                continue
            seen.add(tensor.buffer)
            name = tensor.name.decode() if isinstance(tensor.name, bytes) else str(tensor.name)
            values, sparse = dense_values(model, tensor), tensor.sparsity is not None
            encoded = (encodings or {}).get(tensor.buffer, ("", None))
            steps = _scales(tensor, values.shape)
            of_channels = index in by_elements and is_of_channels(values)
            yield ConstantTensor(name, kind.lower(), values, sparse, _zero_point(tensor), steps, *encoded, of_channels)


def is_of_channels(values: np.ndarray) -> bool:
    """Whether all axes of an array but one, at most, have length 1."""
    return max(values.shape, default=1) == values.size


def _read_by_elements(model, graph, schema):
    """The indices of the tensors of a graph that operators on single elements read."""
    read = set()
    codes = operator_codes(model)
    for operator in graph.operators or ():
        if enum_name(schema.BuiltinOperator, codes[operator.opcodeIndex]) in _BY_ELEMENTS:
            read.update(operator.inputs)
    return read


def blocks_of(tensor):
    """What a tensor says of blocks that have a scale each (`BlockwiseQuantizationT`); `None` for others."""
    details = None if tensor.quantization is None else tensor.quantization.details
    return details if hasattr(details, "blockSize") else None


def has_blocks(model):
    """Whether a parsed file has weights in blocks that have a scale each."""
    return any(blocks_of(tensor) is not None for graph in model.subgraphs for tensor in graph.tensors)


def _zero_point(tensor):
    """The zero point of a tensor; where it has one for each channel, the specification demands 0."""
    quantization = tensor.quantization
    points = None if quantization is None else quantization.zeroPoint
    return int(points[0]) if points is not None and len(points) == 1 else 0


def _scales(tensor, shape):
    """The scales of a tensor, as an array of as many axes; `None` if it has none."""
    quantization = tensor.quantization
    scales = None if quantization is None else quantization.scale
    if scales is None or not len(scales):
        return None
    return along(scales, quantization.quantizedDimension, shape)


def along(scales: np.ndarray, axis: int, shape: tuple[int, ...]) -> np.ndarray | None:
    """Scales of a tensor, as an array of as many axes; `None` if they are neither one nor one for each slice of `axis`.

    Args:
        scales: array of one axis or none.
        axis: along which there are several.
        shape: of the tensor.
    """
    scales, form = np.asarray(scales, "float32"), [1] * len(shape)
    if scales.size != 1:
        if scales.ndim != 1 or not -len(shape) <= axis < len(shape) or shape[axis] != scales.size:
            return None  # in blocks, or in a file that contradicts itself
        form[axis] = scales.size
    return scales.reshape(form)


def operators(model):
    """Dictionary from (operator, type of what it computes) to how often the main graph of a parsed file has it."""
    schema = require("ai_edge_litert.schema_py_generated")
    codes, graph, counts = operator_codes(model), model.subgraphs[0], {}
    for each in graph.operators or ():
        custom = model.operatorCodes[each.opcodeIndex].customCode
        if custom is None:
            name = enum_name(schema.BuiltinOperator, codes[each.opcodeIndex])
        else:
            name = custom.decode(errors="replace") if isinstance(custom, bytes) else str(custom)
        outputs = () if each.outputs is None else each.outputs
        kinds = [enum_name(schema.TensorType, graph.tensors[index].type).lower() for index in outputs[:1]]
        key = name, *(kinds or [""])
        counts[key] = counts.get(key, 0) + 1
    return counts


def _is_parameter(tensor, kind):
    if kind in _PARAMETER_TYPES:
        return True
    quantization = tensor.quantization
    scale = None if quantization is None else quantization.scale
    return kind.startswith("INT") and scale is not None and len(scale) > 0


def dense_values(model, tensor):
    """The values of a constant tensor as a dense array, in the stored (not dequantized) type."""
    schema = require("ai_edge_litert.schema_py_generated")
    kind = enum_name(schema.TensorType, tensor.type)
    raw = np.asarray(model.buffers[tensor.buffer].data, dtype=np.uint8)
    shape = [] if tensor.shape is None else [int(size) for size in tensor.shape]
    if kind in _NUMPY_TYPES:
        raw = raw[: len(raw) - len(raw) % np.dtype(_NUMPY_TYPES[kind]).itemsize]  # a buffer may be padded
    stored = _unpack(raw, kind)
    if tensor.sparsity is not None:
        return _decode_sparse(stored, tensor.sparsity, shape)
    return stored[: math.prod(shape)].reshape(shape)


def numpy_type(kind: str) -> np.dtype | None:
    """The NumPy type of one of the schema's types by its name, or `None` where NumPy has none."""
    return np.dtype(_NUMPY_TYPES[kind]) if kind in _NUMPY_TYPES else None


def _unpack(raw, kind):
    if kind in _NUMPY_TYPES:
        return raw.view(np.dtype(_NUMPY_TYPES[kind]))
    if kind == "BFLOAT16":  # the upper half of a float32
        return (raw.view("<u2").astype("<u4") << 16).view("<f4")
    if kind in _PACKED_BITS:
        bits = _PACKED_BITS[kind]
        shifts = np.arange(0, 8, bits, dtype=np.uint8)
        values = ((raw[:, None] >> shifts) & (2**bits - 1)).reshape(-1).astype(np.int8)
        if kind.startswith("U"):
            return values.view(np.uint8)
        return np.where(values >= 2 ** (bits - 1), values - 2**bits, values).astype(np.int8)
    raise ValueError(f"A parameter of type {kind} cannot be read.")


def _decode_sparse(stored, sparsity, shape):
    """Decodes the sparse format of the schema (`SparsityParameters`, after TACO's level formats).

    The dimensions of the tensor, followed by the dimensions inside a block, are stored in `traversalOrder`,
    each level dense or compressed (segments and indices as in CSR). Walking the levels gives the coordinates
    of every stored value.
    """
    order = [int(dimension) for dimension in sparsity.traversalOrder]
    block_map = [] if sparsity.blockMap is None else [int(dimension) for dimension in sparsity.blockMap]
    coordinates = []
    positions = np.zeros(1, np.int64)
    for level in sparsity.dimMetadata:
        if level.format == 0:  # dense: every parent has all the children
            size = int(level.denseSize)
            counts = np.full(len(positions), size, np.int64)
            children = np.tile(np.arange(size), len(positions))
            positions = np.repeat(positions, size) * size + children
        else:
            segments = np.asarray(level.arraySegments.values, np.int64)
            indices = np.asarray(level.arrayIndices.values, np.int64)
            counts = segments[positions + 1] - segments[positions]
            starts = np.repeat(segments[positions], counts)
            within = np.arange(len(starts)) - np.repeat(np.cumsum(counts) - counts, counts)
            positions = starts + within
            children = indices[positions]
        coordinates = [np.repeat(coordinate, counts) for coordinate in coordinates] + [children]
    by_dimension = dict(zip(order, coordinates, strict=True))
    block_sizes = {
        len(shape) + position: int(sparsity.dimMetadata[order.index(len(shape) + position)].denseSize)
        for position in range(len(block_map))
    }
    index = [by_dimension[dimension] for dimension in range(len(shape))]
    for position, dimension in enumerate(block_map):
        inner = len(shape) + position
        index[dimension] = index[dimension] * block_sizes[inner] + by_dimension[inner]
    dense = np.zeros(shape, stored.dtype)
    dense[tuple(index)] = stored[positions]
    return dense
