"""A LiteRT file becomes an ONNX graph, operator by operator: with the same scales, zero points and integers.

The conventions of ONNX (https://onnx.ai/onnx/operators): images have their channels first, and each tensor of integers
is a tensor of floats between QuantizeLinear and DequantizeLinear, which runtimes fuse into kernels of integers.
"""

import numpy as np

from keras_mot.export.dependencies import require
from keras_mot.export.litert.litert_file import dense_values, enum_name, operator_codes

FIRST, AS_IS = "channels first", "as is"
"""How the values of an image lie: with channels first, or as the file has them."""

_TYPES = {
    "FLOAT32": "FLOAT",
    "FLOAT16": "FLOAT16",
    "INT32": "INT32",
    "INT64": "INT64",
    "BOOL": "BOOL",
    "INT8": "INT8",
    "UINT8": "UINT8",
    "INT16": "INT16",
}
_ON_GRIDS = ("INT8", "UINT8", "INT16")
"""Types of activations that QuantizeLinear makes."""
_TO_FIRST, _TO_LAST = (0, 3, 1, 2), (0, 2, 3, 1)


class Translation:
    """What is known of the ONNX graph while it is made.

    Activations of 8 bits become unsigned, by 128 more, which are the integers that the kernels of x86 take.

    Args:
        file: a parsed LiteRT file.
    """

    def __init__(self, file):
        self._file, self.graph = file, file.subgraphs[0]
        self._schema = require("ai_edge_litert.schema_py_generated")
        self.onnx = require("onnx")
        kinds = [self.type_of(index) for index in range(len(self.graph.tensors))]
        wide = any(kind == "INT16" and self.grid(index) is not None for index, kind in enumerate(kinds))
        self.opset = 21 if wide else 17
        self.nodes, self.initializers = [], {}
        self._values, self._layouts, self._integers = {}, {}, {}
        self._names = {}

    # The file.

    def operators(self):
        """(kind, operator) of each operator, in order."""
        codes = operator_codes(self._file)
        for operator in self.graph.operators:
            yield enum_name(self._schema.BuiltinOperator, codes[operator.opcodeIndex]), operator

    def label(self, index):
        """The name of a tensor in the file."""
        return self.graph.tensors[index].name.decode()

    def type_of(self, index):
        """The type of a tensor, as the schema calls it."""
        return enum_name(self._schema.TensorType, self.graph.tensors[index].type)

    def shape(self, index):
        """The sizes of a tensor, `None` where the file leaves them open."""
        tensor = self.graph.tensors[index]
        sizes = tensor.shape if tensor.shapeSignature is None else tensor.shapeSignature
        return [None if size < 0 else int(size) for size in (() if sizes is None else sizes)]

    def constant(self, index):
        """The values of a constant as the file stores them, or `None`."""
        tensor = self.graph.tensors[index]
        data = self._file.buffers[tensor.buffer].data
        if data is None or len(data) == 0:
            return None
        return dense_values(self._file, tensor)

    def numbers(self, index, what):
        """The values of a constant that an operator is told its work by; raises a ValueError for others."""
        values = self.constant(index)
        if values is None:
            raise ValueError(f"its {what} is not constant")
        return values

    def scales(self, index):
        """(scales, zero points) of a tensor, arrays of one or one for each channel; `None` for floats."""
        quantization = self.graph.tensors[index].quantization
        if quantization is None or quantization.scale is None or len(quantization.scale) == 0:
            return None
        scales = np.asarray(quantization.scale, "float32")
        points = quantization.zeroPoint
        return scales, np.zeros(len(scales), "int64") if points is None else np.asarray(points, "int64")

    def grid(self, index):
        """(scale, zero point) of a tensor of integers, or `None`."""
        found = self.scales(index)
        return None if found is None or len(found[0]) > 1 else (found[0][0], int(found[1][0]))

    # The ONNX graph.

    def add(self, kind, inputs, count=None, **attributes):
        """Adds a node; returns the name of its result, or a list of `count` names."""
        names = [self._unique(kind) for _ in range(1 if count is None else count)]
        self.nodes.append(self.onnx.helper.make_node(kind, list(inputs), names, name=names[0], **attributes))
        return names[0] if count is None else names

    def array(self, values, label="constant"):
        """The name of a constant of these values."""
        name = self._unique(label)
        self.initializers[name] = self.onnx.numpy_helper.from_array(np.array(values, order="C"), name)
        return name

    def integers64(self, values):
        """The name of a constant of int64, as shapes and axes are."""
        return self.array(np.asarray(values, "int64"), "sizes")

    def cast(self, name, kind):
        """A value in a type that the schema calls `kind`."""
        return self.add("Cast", [name], to=getattr(self.onnx.TensorProto, _TYPES[kind]))

    def element_type(self, index):
        """ONNX's number for the type of a tensor, as its readers outside see it: integers of a grid are floats."""
        return getattr(self.onnx.TensorProto, "FLOAT" if self.scales(index) else _TYPES[self.type_of(index)])

    def layout(self, index):
        """How the values of a tensor lie."""
        return self._layouts.get(index, AS_IS)

    def read(self, index, layout=AS_IS):
        """The name of a tensor's values, those of integers as floats, laid out as asked if it is an image."""
        if index not in self._values:
            self._values[index] = self._of_constant(index)
        have = self.layout(index)
        if have == layout or len(self.shape(index)) != 4:
            return self._values[index]
        return self.add("Transpose", [self._values[index]], perm=_TO_FIRST if layout == FIRST else _TO_LAST)

    def raw(self, index):
        """The name of the integers of a tensor as the file has them, in int32 and in the tensor's `layout`."""
        integers = self._integers.get(index)
        if integers is None:  # rounding them again changes nothing
            scale_and_point = self._of_grid(index, self.grid(index))
            integers = self.add("QuantizeLinear", [self.read(index, self.layout(index)), *scale_and_point])
        shift = 128 if self.type_of(index) == "INT8" else 0
        return self.add("Sub", [self.cast(integers, "INT32"), self.array(np.int32(shift))])

    def write(self, index, name, layout=AS_IS):
        """Makes a value that of a tensor; rounds it to the tensor's integers, if it has such."""
        grid = self.grid(index)
        if grid is not None:
            scale, point = self._of_grid(index, grid)
            self._integers[index] = self.add("QuantizeLinear", [name, scale, point])
            name = self.add("DequantizeLinear", [self._integers[index], scale, point])
        self._values[index] = name
        self._layouts[index] = layout

    def replace(self, index, name):
        """Makes a value that of a tensor, with nothing rounded any more: one of another shape, say."""
        self._values[index] = name
        self._layouts.pop(index, None)
        self._integers.pop(index, None)

    def reserve(self, name):
        """Keeps a name for an input or output of the graph; returns it."""
        self._names[name] = 1
        return name

    def is_single(self, index):
        """Whether a tensor is a constant of one number."""
        values = self.constant(index)
        return values is not None and values.size == 1

    def weight(self, index, order, axis):
        """A constant of integers, or floats, with its axes in another order; scales of channels go along `axis`."""
        values, found = self.numbers(index, "weight").transpose(order), self.scales(index)
        if found is None:
            return self.array(values.astype("float32"), self.label(index))
        scales, points = found
        if points.any():
            raise ValueError("its weights have a zero point")
        if values.dtype == np.int64:  # biases beside activations of 16 bits
            return self.array((values * scales.astype("float64")).astype("float32"), self.label(index))
        integers = self.array(values, self.label(index))
        many = len(scales) > 1
        inputs = [integers, self.array(scales if many else scales[0], "scale")]
        if values.dtype == np.int8:  # ONNX Runtime fuses no dense layer without
            inputs.append(self.array(np.zeros(len(scales) if many else (), "int8"), "zero_point"))
        return self.add("DequantizeLinear", inputs, **({"axis": axis} if many else {}))

    def _of_constant(self, index):
        values = self.constant(index)
        if values is None:
            raise ValueError(f"'{self.label(index)}' is read before it is computed")
        found, grid = self.scales(index), self.grid(index)
        if found is None:
            return self.array(values, self.label(index))
        if grid is None or self.type_of(index) not in _ON_GRIDS:
            along = [1] * values.ndim
            along[self.graph.tensors[index].quantization.quantizedDimension if len(found[0]) > 1 else 0] = -1
            scales, points = (each.astype("float64").reshape(along if values.ndim else ()) for each in found)
            return self.array(((values - points) * scales).astype("float32"), self.label(index))
        # Small, as a rule: a term of a sum, or a table of an embedding, which is one of the integers itself.
        shifted = (values.astype("int64") + 128).astype("uint8") if values.dtype == np.int8 else values
        return self.add("DequantizeLinear", [self.array(shifted, self.label(index)), *self._of_grid(index, grid)])

    def _of_grid(self, index, grid):
        kind = self.type_of(index)
        if kind not in _ON_GRIDS:
            raise ValueError(f"ONNX has no quantized activations of type {kind}")
        point = grid[1] + 128 if kind == "INT8" else grid[1]
        point = np.int16(point) if kind == "INT16" else np.uint8(point)
        return self.array(np.float32(grid[0]), "scale"), self.array(point, "zero_point")

    def _unique(self, name):
        count = self._names[name] = self._names.get(name, -1) + 1
        return self._unique(f"{name}_{count}") if count else name
