"""Gives marked weights of a float file the integers that the model has, and operators the kernels for these."""

import copy

import numpy as np

from keras_mot.export.litert.integers.constants import Constants
from keras_mot.export.litert.integers.file_graph import FileGraph
from keras_mot.export.litert.integers.marks import Marks
from keras_mot.export.litert.litert_file import enum_name
from keras_mot.export.litert.marking import weights_of_file

_DENSE, _LOOK_UP = 12, 4  # versions of operators with these kernels


class DynamicRewriter:
    """Rewrites the first graph of a parsed file.

    Args:
        model: the parsed file.
        weights: the `QuantizedWeight` objects by the numbers of their marks.
        target: the `Target`.

    Attributes:
        graph: the `FileGraph`.
        found: numbers of the weights that are integers now.
    """

    def __init__(self, model, weights, target):
        self.graph = FileGraph(model)
        self._weights, self._target = weights, target
        self._numbers = weights_of_file(model) if weights else {}
        self._constants = Constants(self.graph, weights, target)
        self._marks = Marks(self.graph, {})
        self._behind = {}  # index of the result of a mark -> that of what it marks
        self._tables = {}  # (number of a weight, operator) -> index of the constant in integers
        self.found = set()

    def run(self):
        """Rewrites all operators."""
        graph = self.graph
        for operator in list(graph.graph.operators):
            if id(operator) in self._marks.second:
                continue
            if id(operator) in self._marks.on:
                source, results, _ = self._marks.on[id(operator)]
                self._behind.update(dict.fromkeys(results, source))
                continue
            name = graph.name(operator)
            inputs = [] if operator.inputs is None else [self._before_mark(int(index)) for index in operator.inputs]
            operator.inputs = inputs
            if name == "FULLY_CONNECTED" and inputs[1] in self._numbers:
                self._dense(operator, inputs)
            elif name == "GATHER" and inputs[0] in self._numbers and not _batch_dimensions(operator):
                self._look_up(operator, inputs)
            else:
                operator.inputs = [self._constants.in_floats(index, name) for index in inputs]
                graph.operators.append(operator)
        graph.graph.operators = graph.operators
        outputs = [int(index) for index in graph.graph.outputs]
        graph.graph.outputs = [self._before_mark(index) for index in outputs]
        renamed = dict(zip(outputs, graph.graph.outputs, strict=True))
        for signature in graph.model.signatureDefs or []:
            for item in signature.outputs:
                item.tensorIndex = renamed.get(item.tensorIndex, item.tensorIndex)

    def _before_mark(self, index):
        while index in self._behind:
            index = self._behind[index]
        return index

    def _dense(self, operator, inputs):
        """Makes FULLY_CONNECTED compute with integers, and round each row of its inputs, asymmetrically."""
        operator.inputs = [inputs[0], self._integers(inputs[1], "FULLY_CONNECTED"), *inputs[2:]]
        operator.opcodeIndex = self.graph.code("FULLY_CONNECTED", _DENSE)
        operator.builtinOptions.asymmetricQuantizeInputs = True
        self.graph.operators.append(operator)
        if self._weights[self._numbers[inputs[1]]].block_size is not None:
            self._part_activation(operator)

    def _part_activation(self, operator):
        """Writes a fused activation behind a dense layer with blocks: LiteRT's own kernel for these leaves it out.

        XNNPACK, which computes them by default, fuses it again.
        """
        graph, options = self.graph, operator.builtinOptions
        kind = enum_name(graph.schema.ActivationFunctionType, options.fusedActivationFunction)
        if kind == "NONE":
            return
        result = int(operator.outputs[0])
        before = graph.add_tensor(result, f"{graph.label(result)}_before_{kind.lower()}")
        options.fusedActivationFunction, operator.outputs = 0, [before]
        graph.add_operator(kind, [before], [result], 8, version=1)

    def _look_up(self, operator, inputs):
        """Writes GATHER as EMBEDDING_LOOKUP, which takes one axis of numbers and returns floats."""
        graph, result = self.graph, int(operator.outputs[0])
        label, numbers = graph.label(result), inputs[1]
        table = self._integers(inputs[0], "GATHER")
        if graph.graph.tensors[numbers].type == graph.schema.TensorType.INT64:
            numbers = self._new(inputs[1], f"{label}_numbers", "INT32")
            kinds = {"inDataType": graph.schema.TensorType.INT64, "outDataType": graph.schema.TensorType.INT32}
            graph.add_operator("CAST", [inputs[1]], [numbers], 8, version=1, **kinds)
        sizes, width = self._open_shape(numbers), graph.shape(table)[1]
        if len(sizes) == 1:
            graph.add_operator("EMBEDDING_LOOKUP", [numbers, table], [result], 8, version=_LOOK_UP)
            return
        count = -1 if -1 in sizes else int(np.prod(sizes))
        flat = self._new(numbers, f"{label}_flat", "INT32", (count,))
        graph.add_operator("RESHAPE", [numbers, self._shape((-1,), f"{label}_row")], [flat], 8)
        rows = self._new(result, f"{label}_rows", "FLOAT32", (count, width))
        graph.add_operator("EMBEDDING_LOOKUP", [flat, table], [rows], 8, version=_LOOK_UP)
        graph.add_operator("RESHAPE", [rows, self._shape_of_result(numbers, sizes, width, label)], [result], 8)

    def _shape_of_result(self, numbers, sizes, width, label):
        """The index of the shape of what is looked up: a constant, if one size at most is open."""
        if sizes.count(-1) <= 1:
            return self._shape((*sizes, width), f"{label}_shape")
        graph = self.graph
        own = self._new(numbers, f"{label}_sizes", "INT32", (len(sizes),))
        graph.add_operator("SHAPE", [numbers], [own], 8, version=1, outType=graph.schema.TensorType.INT32)
        joined = self._new(numbers, f"{label}_shape", "INT32", (len(sizes) + 1,))
        last = self._shape((width,), f"{label}_width")
        graph.add_operator("CONCATENATION", [own, last], [joined], 8, version=1, axis=0, fusedActivationFunction=0)
        return joined

    def _shape(self, sizes, name):
        return self.graph.add_constants("INT32", np.array(sizes, "int32"), name)

    def _open_shape(self, index):
        """The shape of a tensor, -1 for sizes that are open."""
        tensor = self.graph.graph.tensors[index]
        sizes = tensor.shape if tensor.shapeSignature is None else tensor.shapeSignature
        return tuple(int(size) for size in (() if sizes is None else sizes))

    def _new(self, like, name, kind, sizes=None):
        """The index of a new tensor of a type, of the shape of another or of the given sizes, -1 for open ones."""
        tensor = copy.copy(self.graph.graph.tensors[like])
        tensor.name, tensor.buffer, tensor.quantization = name, 0, None
        tensor.type = getattr(self.graph.schema.TensorType, kind)
        if sizes is not None:
            tensor.shape = np.array([abs(size) for size in sizes], "int32")
            tensor.shapeSignature = np.array(sizes, "int32") if -1 in sizes else None
        self.graph.graph.tensors.append(tensor)
        return len(self.graph.graph.tensors) - 1

    def _integers(self, index, operator):
        """The index of a weight in integers."""
        number = self._numbers[index]
        if (number, operator) not in self._tables:
            self.found.add(number)
            make = self._per_channel if self._weights[number].block_size is None else self._in_blocks
            self._tables[number, operator] = make(index, operator, self._weights[number])
        return self._tables[number, operator]

    def _per_channel(self, index, operator, weight):
        # Kernels for 4 bits take an even number of inputs alone: two are in one byte.
        return self._constants.kernel(index, operator, 0, self.graph.shape(index)[1] % 2 == 0)

    def _in_blocks(self, index, operator, weight):
        """A weight of 4 bits whose scales are a tensor of their own, of halves."""
        graph, size = self.graph, weight.block_size
        integers, scales = self._constants.of_weight(index, operator)
        scales = scales[:, ::size]
        new = self._constants.packed(index, integers)
        halves = graph.add_constants("FLOAT16", scales.astype("float16"), f"{graph.label(index)}_scales")
        tensor = graph.graph.tensors[new]
        tensor.type, tensor.quantization = graph.schema.TensorType.INT4, graph.schema.QuantizationParametersT()
        details = graph.schema.BlockwiseQuantizationT()
        details.scales, details.zeroPoints, details.blockSize = halves, -1, size
        tensor.quantization.detailsType = graph.schema.QuantizationDetails.BlockwiseQuantization
        tensor.quantization.details = details
        return new


def _batch_dimensions(operator):
    options = operator.builtinOptions
    return options is not None and (options.axis != 0 or options.batchDims != 0)
