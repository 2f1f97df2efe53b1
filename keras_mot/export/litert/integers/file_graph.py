"""The first graph of a parsed `.tflite` file, with what changes of it need: new tensors, buffers and operators."""

import copy

import numpy as np

from keras_mot.export.dependencies import require
from keras_mot.export.litert.integers.rules import version_of
from keras_mot.export.litert.litert_file import dense_values, enum_name, operator_codes


class FileGraph:
    """The first graph of a file; the others are bodies of loops.

    Args:
        model: the parsed file.

    Attributes:
        operators: the operators of the new graph, in their order.
        outputs: the indices of the tensors that the file returns.
    """

    def __init__(self, model):
        self.schema = require("ai_edge_litert.schema_py_generated")
        self.model, self.graph = model, model.subgraphs[0]
        self._codes = [enum_name(self.schema.BuiltinOperator, code) for code in operator_codes(model)]
        self._readers = {}
        for operator in self.graph.operators:
            for index in operator.inputs if operator.inputs is not None else ():
                self._readers.setdefault(int(index), []).append(operator)
        self.outputs = {int(index) for index in self.graph.outputs}
        self.operators = []

    def name(self, operator):
        """The name of an operator's kind, such as "CONV_2D"."""
        return self._codes[operator.opcodeIndex]

    def readers(self, index):
        """The operators of the old graph that read a tensor."""
        return self._readers.get(index, [])

    def is_float(self, index):
        """Whether a tensor is of float32."""
        return self.graph.tensors[index].type == self.schema.TensorType.FLOAT32

    def is_constant(self, index):
        """Whether a tensor has its values in the file."""
        data = self.model.buffers[self.graph.tensors[index].buffer].data
        return data is not None and len(data) > 0

    def values(self, index):
        """The values of a constant."""
        return dense_values(self.model, self.graph.tensors[index])

    def shape(self, index):
        """The shape of a tensor."""
        shape = self.graph.tensors[index].shape
        return () if shape is None else tuple(int(length) for length in shape)

    def label(self, index):
        """The name of a tensor."""
        name = self.graph.tensors[index].name
        return name.decode() if isinstance(name, bytes) else str(name)

    def public_label(self, index):
        """The name of a tensor; that of the file's output, if it is one."""
        for signature in self.model.signatureDefs or []:
            for item in signature.outputs:
                if int(item.tensorIndex) == index:
                    return item.name.decode() if isinstance(item.name, bytes) else str(item.name)
        return self.label(index)

    def add_tensor(self, like, name=None):
        """A new tensor in floats of the shape of another; returns its index."""
        tensor = copy.copy(self.graph.tensors[like])
        tensor.buffer = 0
        tensor.type, tensor.quantization = self.schema.TensorType.FLOAT32, None
        tensor.name = name or self.label(like)
        self.graph.tensors.append(tensor)
        return len(self.graph.tensors) - 1

    def add_constant(self, like, buffer):
        """A new constant of the name and shape of another; returns its index."""
        index = self.add_tensor(like)
        self.graph.tensors[index].buffer = buffer
        return index

    def add_constants(self, kind, values, name):
        """A new constant of a type such as "INT32" with the values and the shape of an array; returns its index."""
        tensor = self.schema.TensorT()
        tensor.shape, tensor.name = np.array(np.shape(values), "int32"), name
        tensor.type, tensor.buffer = getattr(self.schema.TensorType, kind), self.add_buffer(values)
        self.graph.tensors.append(tensor)
        return len(self.graph.tensors) - 1

    def add_positions(self, like, name):
        """A new tensor of int32 of the shape of another; returns its index."""
        index = self.add_tensor(like, name)
        self.graph.tensors[index].type = self.schema.TensorType.INT32
        return index

    def add_buffer(self, values):
        """A new buffer with the bytes of an array; returns its number."""
        buffer = self.schema.BufferT()
        buffer.data = np.frombuffer(np.ascontiguousarray(values).tobytes(), "uint8")
        self.model.buffers.append(buffer)
        return len(self.model.buffers) - 1

    def quantize(self, index, bits, scales, zero_points, axis=0):
        """Says of a tensor that it holds integers, and what they stand for."""
        types = self.schema.TensorType
        tensor = self.graph.tensors[index]
        tensor.type = {4: types.INT4, 8: types.INT8, 16: types.INT16, 32: types.INT32, 64: types.INT64}[bits]
        tensor.quantization = quantization = self.schema.QuantizationParametersT()
        quantization.scale = np.asarray(scales, "float32")
        quantization.zeroPoint = np.asarray(zero_points, "int64")
        quantization.quantizedDimension = axis

    def scales(self, index):
        """The scales of a tensor of integers."""
        return self.graph.tensors[index].quantization.scale

    def set_kind(self, operator, name, bits):
        """Makes an operator one of this name, in the version that has the kernel for integers of so many bits."""
        operator.opcodeIndex = self.code(name, version_of(name, bits))

    def add_operator(self, name, inputs, outputs, bits, version=None, **options):
        """A new operator, the last of the new graph.

        Args:
            name: of its kind.
            inputs: indices of tensors.
            outputs: the same.
            bits: of the integers that it has a kernel for.
            version: of its kind, if not that which has the kernel for integers of so many bits.
            **options: the fields of its options; without any, it has no options.
        """
        operator = self.schema.OperatorT()
        operator.opcodeIndex = self.code(name, version_of(name, bits) if version is None else version)
        operator.inputs, operator.outputs = inputs, outputs
        if options:
            kind = f"{name.title().replace('_', '')}Options"
            operator.builtinOptionsType = getattr(self.schema.BuiltinOptions, kind)
            operator.builtinOptions = getattr(self.schema, f"{kind}T")()
            for field, value in options.items():
                setattr(operator.builtinOptions, field, value)
        self.operators.append(operator)

    def code(self, name, version):
        """The index of the code of an operator in a version, which is added where it is missing."""
        number = getattr(self.schema.BuiltinOperator, name)
        for index, code in enumerate(self.model.operatorCodes):
            if self._codes[index] == name and code.version == version:
                return index
        code = self.schema.OperatorCodeT()
        code.builtinCode, code.deprecatedBuiltinCode, code.version = number, min(number, 127), version
        self.model.operatorCodes.append(code)
        self._codes.append(name)
        return len(self._codes) - 1
