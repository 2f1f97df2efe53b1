"""Writes weights into a `.tflite` file where their stand-ins are."""

import dataclasses
import math

import numpy as np

from keras_mot.export.dependencies import require
from keras_mot.export.litert.litert_file import enum_name, pack_model, parse_model

_BLOCK = 2**22  # numbers that are written at a time
_TOLERANCE = 1e-4  # stand-ins are further apart


@dataclasses.dataclass(frozen=True)
class _Place:
    """A constant of the file that is to be filled.

    Attributes:
        tensor: (number of the graph, number of the tensor).
        buffer: number of its buffer.
        kind: name of its type.
        shape: its shape.
        data: (offset, length) of its content in bytes.
        scales: (offset, length) of the vector of scales.
        axis: that the scales belong to.
    """

    tensor: tuple
    buffer: int
    kind: str
    shape: tuple
    data: tuple
    scales: tuple
    axis: int


def fill(content: bytes, stand_ins) -> tuple[bytes, set[int]]:
    """Puts weights in the places of their stand-ins.

    Args:
        content: a file that was converted with stand-ins.
        stand_ins: list of the `StandIn` objects that are to be filled.

    Returns:
        The file; and the ids of the variables that have no place in it where they belong. If there are any, it is of
        no use.
    """
    if not stand_ins:
        return content, set()
    places = _places(content, stand_ins)
    found = {id(stand_in) for stand_in, _ in places}
    lost = {id(stand_in.variable) for stand_in in stand_ins if id(stand_in) not in found}
    if lost:
        return content, lost
    shared = _shared_by_mistake(places)
    if shared:
        content = _with_buffers_of_their_own(content, shared)
        places = _places(content, stand_ins)
    filled = bytearray(content)
    del content
    for stand_in, place in places:
        _write(filled, place, stand_in)
    return bytes(filled), lost


def _places(content, stand_ins):
    """(stand-in, `_Place`) of each constant that is to be filled."""
    least = min(math.prod(stand_in.shape) for stand_in in stand_ins)  # bytes, of the smallest type
    places = []
    for operators, place in _constants(content, least):
        stand_in = _stand_in_of(content, place, stand_ins)
        if stand_in is not None and operators == {stand_in.operator} and place.shape == stand_in.shape:
            places.append((stand_in, place))
    return places


def _shared_by_mistake(places):
    """The places whose buffer a stand-in before them has as well: in 8 bits, those of one size are the same."""
    owners = {}
    return [place for stand_in, place in places if owners.setdefault(place.buffer, stand_in) is not stand_in]


def _with_buffers_of_their_own(content, places):
    schema = require("ai_edge_litert.schema_py_generated")
    model = parse_model(content)
    for place in places:
        graph, number = place.tensor
        tensor, own = model.subgraphs[graph].tensors[number], schema.BufferT()
        own.data = model.buffers[tensor.buffer].data
        tensor.buffer = len(model.buffers)
        model.buffers.append(own)
    return pack_model(model)


def _constants(content, least):
    """(names of the operators that read it, `_Place`) of each large constant of a file."""
    schema = require("ai_edge_litert.schema_py_generated")
    file = schema.Model.GetRootAs(content, 0)
    codes = [file.OperatorCodes(number) for number in range(file.OperatorCodesLength())]
    names = [enum_name(schema.BuiltinOperator, max(code.BuiltinCode(), code.DeprecatedBuiltinCode())) for code in codes]
    for number in range(file.SubgraphsLength()):
        graph = file.Subgraphs(number)
        operators = [graph.Operators(index) for index in range(graph.OperatorsLength())]
        readers = {}
        for operator in operators:
            for index in operator.InputsAsNumpy() if operator.InputsLength() else ():
                readers.setdefault(int(index), []).append(operator)

        def reading(index, readers=readers):
            result = set()
            for operator in readers.get(index, ()):
                name = names[operator.OpcodeIndex()]
                result |= reading(int(operator.Outputs(0)), readers) if name == "DEQUANTIZE" else {name}
            return result

        for index in range(graph.TensorsLength()):
            tensor = graph.Tensors(index)
            buffer = file.Buffers(tensor.Buffer())
            if buffer.DataLength() < max(least, 1) or tensor.Sparsity() is not None:
                continue
            quantization = tensor.Quantization()
            scales, axis = (0, 0), 0
            if quantization is not None and quantization.ScaleLength():
                table = quantization._tab  # 8: the field of scales
                scales = table.Vector(table.Offset(8)), quantization.ScaleLength()
                axis = quantization.QuantizedDimension()
            table = buffer._tab  # 4: the field of data
            data = table.Vector(table.Offset(4)), buffer.DataLength()
            kind = enum_name(schema.TensorType, tensor.Type())
            shape = tuple(int(n) for n in tensor.ShapeAsNumpy())
            yield reading(index), _Place((number, index), tensor.Buffer(), kind, shape, data, scales, axis)


_TYPES = {"FLOAT32": "<f4", "FLOAT16": "<f2", "INT8": "i1"}


def _values(content, place):
    kind = np.dtype(_TYPES[place.kind])
    return np.frombuffer(content, kind, place.data[1] // kind.itemsize, place.data[0])


def _stand_in_of(content, place, stand_ins):
    """The stand-in whose value a constant has throughout, or `None`."""
    if place.kind not in _TYPES:
        return None
    values = _values(content, place)
    value = float(values[0])
    if place.kind == "INT8":
        scales = np.frombuffer(content, "<f4", place.scales[1], place.scales[0])
        if not scales.size or (scales != scales[0]).any():
            return None
        value *= float(scales[0])
    nearest = min(stand_ins, key=lambda stand_in: abs(stand_in.value - value))
    if abs(nearest.value - value) > _TOLERANCE * nearest.value:
        return None
    same = all((values[start : start + _BLOCK] == values[0]).all() for start in range(0, len(values), _BLOCK))
    return nearest if same else None


def _write(content, place, stand_in):
    values = _values(content, place).reshape(place.shape)
    rows = place.shape[0]
    step = max(1, _BLOCK * rows // values.size)
    blocks = [(start, min(start + step, rows)) for start in range(0, rows, step)]
    if place.kind == "INT8":
        scales = np.frombuffer(content, "<f4", place.scales[1], place.scales[0])
        scales[:] = _scales(stand_in, place, blocks)
        shape = [1] * len(place.shape)
        shape[place.axis] = scales.size
    for start, stop in blocks:
        numbers = stand_in.rows(start, stop)
        if place.kind == "FLOAT16":
            limit = np.finfo("float16").max
            numbers = np.clip(numbers, -limit, limit)
        if place.kind == "INT8":
            scale = scales.reshape(shape)
            scale = scale[start:stop] if scale.shape[0] == rows else scale
            numbers = np.clip(np.round(numbers / scale), -127, 127)
        values[start:stop] = numbers


def _scales(stand_in, place, blocks):
    """The scales of a kernel in 8 bits, by the largest magnitude of each channel, as the converter takes them."""
    per_channel = place.scales[1] > 1
    axes = tuple(axis for axis in range(len(place.shape)) if not per_channel or axis != place.axis)
    largest = [np.abs(stand_in.rows(start, stop)).max(axis=axes) for start, stop in blocks]
    largest = np.concatenate(largest) if per_channel and place.axis == 0 else np.max(largest, axis=0)
    return np.where(largest > 0, largest, 1.0).astype("float32") / np.float32(127)
