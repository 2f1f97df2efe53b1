"""Turns a float `.tflite` file with marks into one that computes in integers.

A mark is a pair of a QUANTIZE and a DEQUANTIZE operator whose scale is the number of an activation quantizer. All
operators between marked tensors for which the runtime has integer kernels get integers; the others stay as they are,
with conversions at the borders. The weights are on their grids already, so that nothing is decided here.
"""

import copy
import dataclasses
import types
from collections.abc import Mapping

import numpy as np

from keras_mot.export.dependencies import require
from keras_mot.export.litert.integers.grids import on_grid
from keras_mot.export.litert.integers.moved_biases import move_biases
from keras_mot.export.litert.integers.rules import AVERAGING, FUSIBLE, INT4_WEIGHTS, LOOP, rule_for, version_of
from keras_mot.export.litert.litert_file import dense_values, enum_name, operator_codes, pack_model, parse_model
from keras_mot.layers.activation_quantizer import QuantizationParameters


@dataclasses.dataclass(frozen=True)
class IntegerFile:
    """What became of a file.

    Attributes:
        content: the bytes of the new file.
        floats: (operator, name of its result, reason) of each operator that computes in floats.
    """

    content: bytes
    floats: tuple[tuple[str, str, str], ...]


def to_integers(
    content: bytes,
    quantizers: Mapping[int, tuple[str, QuantizationParameters]],
    weight_grids: Mapping[float, set[int]] = types.MappingProxyType({}),
    input_type: str = "float32",
    output_type: str = "float32",
) -> IntegerFile:
    """Makes the operators between marked tensors compute in integers.

    Args:
        content: a `.tflite` file with float weights and marks.
        quantizers: name and parameters by the numbers of the marks; tensors of the file get these names.
        weight_grids: by the largest magnitude in a channel of weights, the integers that it may stand for.
        input_type: "float32", or "int8", "uint8" or "int16" for a file that takes integers.
        output_type: the same for its outputs.

    Returns:
        An `IntegerFile`.
    """
    model = parse_model(content)
    move_biases(model)
    return _Rewriter(model, quantizers, weight_grids).run(input_type, output_type)


class _InFloats(Exception):
    """Why an operator cannot compute in integers."""


class _Rewriter:
    def __init__(self, model, quantizers, weight_grids):
        self.schema = require("ai_edge_litert.schema_py_generated")
        self.model, self.quantizers, self.weight_grids = model, quantizers, weight_grids
        self.weight_limits = tuple(sorted({127}.union(*weight_grids.values())))
        self.graph = model.subgraphs[0]  # the others are bodies of loops, which stay in floats
        self.codes = [enum_name(self.schema.BuiltinOperator, code) for code in operator_codes(model)]
        self.operators, self.floats = [], []
        self.parameters = {}  # index of an integer tensor -> its QuantizationParameters
        self.integers = {}  # index of a float tensor -> that of the same in integers
        self.float_of = {}  # index of an integer tensor -> that of the same in floats
        self.names = {}  # name of an integer tensor -> how many have it
        self.biases = {}  # content -> number of the buffer
        self.made = {}  # (index, in which way) -> index of the constant or conversion that was made of it
        self.readers = {}
        for operator in self.graph.operators:
            for index in operator.inputs if operator.inputs is not None else ():
                self.readers.setdefault(int(index), []).append(operator)
        self.marks = {}  # index of a float tensor that only marks read -> (parameters, [(mark, its results)])
        self._outputs_in_order = [int(index) for index in self.graph.outputs]
        self.outputs = set(self._outputs_in_order)

    def name(self, operator):
        return self.codes[operator.opcodeIndex]

    def run(self, input_type, output_type):
        self._find_marks()
        for operator in list(self.graph.operators):
            if id(operator) in self.skipped:
                continue
            if id(operator) in self.requantized:
                self._requantize(operator)
            else:
                try:
                    self._as_integers(operator)
                except _InFloats as reason:
                    self._as_floats(operator, str(reason))
        self._finish(input_type, output_type)
        return IntegerFile(pack_model(self.model), tuple(self.floats))

    # Marks

    def _find_marks(self):
        self.skipped, self.requantized = set(), {}
        self.labels = {}  # (index of a float tensor, parameters) -> name of the quantizer behind it
        for operator in self.graph.operators:
            if self.name(operator) != "QUANTIZE":
                continue
            readers = self.readers.get(int(operator.outputs[0]), [])
            pairs = [reader for reader in readers if self.name(reader) == "DEQUANTIZE"]
            first, source = int(operator.outputs[0]), int(operator.inputs[0])
            label, parameters = self.quantizers[round(float(self.graph.tensors[first].quantization.scale[0]))]
            self.labels[source, parameters] = label
            results = [int(reader.outputs[0]) for reader in pairs]
            if len(pairs) < len(readers) or first in self.outputs or not pairs:
                # Some readers take the first half's result: for them the converter has dropped the second half.
                results.append(first)
                self.graph.tensors[first].type = self.schema.TensorType.FLOAT32
            self.skipped.update(id(reader) for reader in pairs)
            self.requantized[id(operator)] = (source, results, parameters)
        by_source = {}
        for key, (source, results, parameters) in self.requantized.items():
            by_source.setdefault(source, []).append((key, results, parameters))
        results = {result for _, results, _ in self.requantized.values() for result in results}
        for source, marks in by_source.items():
            # A tensor that only marks read is computed in their numbers at once. There are several marks where the
            # converter has joined equal operations; a mark of other numbers is a conversion from the first's.
            if len(marks) == len(self.readers[source]) and source not in results | self.outputs:
                parameters = marks[0][2]
                equal = [(key, results) for key, results, other in marks if other == parameters]
                self.marks[source] = (parameters, equal)

    def _wanted(self, index):
        """The parameters that the tensor `index` shall be computed in: those of its mark, or of what it becomes.

        That is what it moves into, or what is left of it by an activation that the converter has not fused.
        """
        if index in self.marks:
            return self.marks[index][0]
        readers = self.readers.get(index, [])
        if len(readers) != 1 or index in self.outputs:
            return None
        rule = rule_for(self.name(readers[0]), 8)
        becomes = rule is not None and (rule.kind in ("moving", "unifying") or self.name(readers[0]) in FUSIBLE)
        if not becomes or len(readers[0].outputs) != 1:
            return None
        return self._wanted(int(readers[0].outputs[0]))

    def _requantize(self, operator):
        """A mark on what is there in floats, or in other numbers: a conversion."""
        source, results, parameters = self.requantized[id(operator)]
        self.integers.update(dict.fromkeys(results, self._converted(source, parameters)))

    def _converted(self, source, parameters):
        """The tensor `source` in integers of these parameters."""
        known = self.integers.get(source)
        if known is not None and self.parameters[known] == parameters:
            return known
        key = (source, parameters)
        if key not in self.made:
            origin = known if known is not None else source
            target = self._new_tensor(source, parameters)
            self._add("QUANTIZE", [origin], [target], parameters.bits)
            self.made[key] = target
        return self.made[key]

    # Operators

    def _as_floats(self, operator, reason):
        operator.inputs = [self._in_floats(int(index)) for index in operator.inputs]
        self.operators.append(operator)
        tensors = [self.graph.tensors[index] for index in (*operator.inputs, *operator.outputs) if index >= 0]
        if any(tensor.type == self.schema.TensorType.FLOAT32 for tensor in tensors):
            label = self.graph.tensors[operator.outputs[0]].name
            self.floats.append((self.name(operator), label.decode() if isinstance(label, bytes) else label, reason))

    def _in_floats(self, index):
        integer = self.integers.get(index)
        if index < 0 or integer is None:
            return index
        if integer not in self.float_of:
            target = self._new_tensor(index, None)
            self._add("DEQUANTIZE", [integer], [target], self.parameters[integer].bits)
            self.float_of[integer] = target
        return self.float_of[integer]

    def _as_integers(self, operator):
        """Makes the operator compute in integers; raises `_InFloats`, with nothing changed, if it cannot."""
        name = self.name(operator)
        inputs = [int(index) for index in operator.inputs] if operator.inputs is not None else []
        results = [int(index) for index in operator.outputs]
        if name in ("SHAPE", "RANK"):  # they read no value
            self.operators.append(operator)
            operator.inputs = [self.integers.get(index, index) for index in inputs]
            return
        if name == "WHILE":
            raise _InFloats(LOOP)
        floats = [index for index in inputs if index >= 0 and self._is_float(index)]
        active = [index for index in floats if not self._is_constant(index)]
        parameters = self._wanted(results[0]) if name == "GATHER" and not active and floats == inputs[:1] else None
        if parameters is not None:
            self._emit(operator, [self._table(inputs[0], parameters), *inputs[1:]], results, [parameters])
            return
        if not active or any(index not in self.integers for index in active):
            raise _InFloats("its input is computed in floats")
        bits = self.parameters[self.integers[active[0]]].bits
        rule = rule_for(name, bits)
        if rule is None:
            raise _InFloats(f"{name} has no kernel for integers of {bits} bits")
        wanted = [self._wanted(index) for index in results]
        if rule.kind == "moving":
            inputs, wanted = self._moving_inputs(inputs, active, floats, wanted, name in AVERAGING)
        elif wanted[0] is None:
            raise _InFloats("no range is known for its result")
        elif rule.kind == "weighted":
            inputs = self._weighted_inputs(name, inputs, *rule.roles)
        elif rule.kind == "unifying":
            if len(active) != len(floats):
                raise _InFloats("one of its inputs is constant")
            inputs = [self._converted(index, wanted[0]) if index in active else index for index in inputs]
        else:
            if name == "PRELU" and not self._is_constant(inputs[1]):
                raise _InFloats("its slopes are not constant")
            if name in FUSIBLE and self._is_cut_off(name, inputs[0], wanted[0]):
                self._alias(results[0], self.integers[inputs[0]], wanted[0])
                return
            inputs = self._computing_inputs(inputs, active, floats, bits, nearest=name == "PRELU")
            if name == "RELU" and bits == 8 and wanted[0].zero_point == -128:
                # What is negative has no integer in the result: a conversion cuts it off, and has a faster kernel.
                operator.opcodeIndex = self._code("QUANTIZE", version_of("QUANTIZE", bits))
        self._emit(operator, inputs, results, wanted)

    def _is_cut_off(self, name, index, wanted):
        """Whether integers of the input, `index`, hold what an activation leaves and nothing else."""
        if self.parameters[self.integers[index]] != wanted or wanted.bits != 8 or wanted.zero_point != -128:
            return False
        return name == "RELU" or 255 * wanted.scale <= 6.0 + wanted.scale / 2

    def _computing_inputs(self, inputs, active, floats, bits, nearest=False):
        """The inputs in integers; `nearest` says to round constants that are on no grid."""
        constants = {
            index: self._constant(index, None, bits, nearest=nearest) for index in floats if index not in active
        }
        if None in constants.values():
            raise _InFloats("a constant is on no grid of integers")
        known = {**constants, **{index: self.integers[index] for index in active}}
        return [known.get(index, index) for index in inputs]

    def _moving_inputs(self, inputs, active, floats, wanted, averages):
        """The inputs, and the parameters of all results: those that are wanted, or the input's own."""
        if len(active) != 1 or len(floats) != 1:
            raise _InFloats("it has several inputs, or a constant one")
        (source,) = active
        own = self.parameters[self.integers[source]]
        asked = {own if want is None else want for want in wanted}
        target = asked.pop() if len(asked) == 1 else own
        if target != own and averages:
            raise _InFloats("its result has a range of its own, which averages of integers cannot have")
        moved = self._converted(source, target)
        return [moved if index == source else index for index in inputs], [target] * len(wanted)

    def _weighted_inputs(self, name, inputs, activation, weight, bias, axis):
        if not self._is_constant(inputs[weight]) or inputs[activation] not in self.integers:
            raise _InFloats("its weights are not constant")
        kernel = self._constant(inputs[weight], axis, 8, name in INT4_WEIGHTS)
        if kernel is None:
            raise _InFloats("its weights are not quantized")
        new = list(inputs)
        new[activation], new[weight] = self.integers[inputs[activation]], kernel
        if len(inputs) > bias and inputs[bias] >= 0:
            if not self._is_constant(inputs[bias]):
                raise _InFloats("its bias is not constant")
            new[bias] = self._bias(inputs[bias], new[activation], kernel)
        return new

    def _emit(self, operator, inputs, results, wanted):
        new = []
        for index, parameters in zip(results, wanted, strict=True):
            target = self._new_tensor(index, parameters)
            self._alias(index, target, parameters)
            new.append(target)
        operator.inputs, operator.outputs = inputs, new
        name = self.name(operator)
        operator.opcodeIndex = self._code(name, version_of(name, wanted[0].bits))
        options = operator.builtinOptions
        if hasattr(options, "potScaleInt16"):
            options.potScaleInt16 = False
        self.operators.append(operator)

    def _alias(self, index, integer, parameters):
        """Notes that the float tensor `index`, and marks of the same numbers on it, are the tensor `integer`."""
        self.integers[index] = integer
        if index in self.marks and self.marks[index][0] == parameters:
            for key, marked in self.marks[index][1]:
                self.integers.update(dict.fromkeys(marked, integer))
                self.skipped.add(key)

    # Tensors

    def _is_float(self, index):
        return self.graph.tensors[index].type == self.schema.TensorType.FLOAT32

    def _is_constant(self, index):
        data = self.model.buffers[self.graph.tensors[index].buffer].data
        return data is not None and len(data) > 0

    def _new_tensor(self, like, parameters):
        tensor = copy.copy(self.graph.tensors[like])
        tensor.buffer = 0
        tensor.type, tensor.quantization = self.schema.TensorType.FLOAT32, None
        label = tensor.name.decode() if isinstance(tensor.name, bytes) else str(tensor.name)
        tensor.name = f"{label}_float"
        if parameters is not None:
            tensor.name = self._named(self.labels.get((like, parameters), f"{label}_int"))
            self._describe(tensor, parameters.bits, [parameters.scale], [parameters.zero_point], 0)
        self.graph.tensors.append(tensor)
        index = len(self.graph.tensors) - 1
        if parameters is not None:
            self.parameters[index] = parameters
        return index

    def _named(self, label):
        """The label; of its second and later uses, with a number (the converter moves marks behind poolings)."""
        count = self.names[label] = self.names.get(label, 0) + 1
        return label if count == 1 else f"{label}:{count}"

    def _describe(self, tensor, bits, scales, zero_points, axis):
        types = self.schema.TensorType
        tensor.type = {4: types.INT4, 8: types.INT8, 16: types.INT16, 32: types.INT32, 64: types.INT64}[bits]
        tensor.quantization = quantization = self.schema.QuantizationParametersT()
        quantization.scale = np.asarray(scales, "float32")
        quantization.zeroPoint = np.asarray(zero_points, "int64")
        quantization.quantizedDimension = axis

    def _constant(self, index, axis, bits, packed=False, nearest=False):
        """The constant `index` in integers, with a scale for each slice along `axis`; `None` if it is on no grid.

        Args:
            index: of the tensor.
            axis: of the channels, or `None` for one scale.
            bits: 8 or 16.
            packed: whether weights of 4 bits may be stored as such, and not in 8.
            nearest: whether to round to the nearest numbers what is on no grid.
        """
        key = (index, axis, bits, nearest)
        if key not in self.made:
            self.made[key] = self._make_constant(index, axis, bits, packed, nearest)
        return self.made[key]

    def _make_constant(self, index, axis, bits, packed, nearest):
        values = dense_values(self.model, self.graph.tensors[index]).astype("float32", copy=False)
        if axis is not None and bits == 8:
            found = on_grid(values, axis, self.weight_limits, self.weight_grids)
        else:
            found = on_grid(values, axis, (32767 if bits == 16 else 127,))
        if found is None and nearest:
            scale = np.abs(values).max(keepdims=True) / np.float32(127)
            found = np.round(values / scale), scale
        if found is None:
            return None
        integers, scale = found
        small = packed and max(integers.max(), -integers.min()) <= 7
        return self._store_constant(index, integers, scale, axis, 4 if small else bits)

    def _store_constant(self, index, integers, scale, axis, stored):
        new = copy.copy(self.graph.tensors[index])
        data = integers.astype("int16" if stored == 16 else "int8").reshape(-1)
        if stored == 4:
            nibbles = np.pad(data.view("uint8") & 15, (0, data.size % 2))
            data = nibbles[::2] | (nibbles[1::2] << 4)
        new.buffer = self._new_buffer(data)
        scales = scale.reshape(-1)
        # One scale has no axis: runtimes for microcontrollers refuse one that is not 0.
        self._describe(new, stored, scales, np.zeros(len(scales)), axis if len(scales) > 1 else 0)
        self.graph.tensors.append(new)
        return len(self.graph.tensors) - 1

    def _table(self, index, parameters):
        """The constant `index`, of which an operator takes rows, rounded to the numbers of these parameters."""
        key = (index, parameters)
        if key not in self.made:
            values = dense_values(self.model, self.graph.tensors[index]).astype("float32")
            limits = np.iinfo(f"int{parameters.bits}")
            integers = np.round(values / np.float32(parameters.scale)) + parameters.zero_point
            self.made[key] = self._new_tensor(index, parameters)
            self.graph.tensors[self.made[key]].name = self.graph.tensors[index].name
            integers = np.clip(integers, limits.min, limits.max).astype(limits.dtype)
            self.graph.tensors[self.made[key]].buffer = self._new_buffer(integers)
        return self.made[key]

    def _bias(self, index, source, kernel):
        parameters = self.parameters[source]
        key = (index, parameters, kernel)
        if key not in self.made:
            tensor = self.graph.tensors[index]
            weight_scales = self.graph.tensors[kernel].quantization.scale
            scales = (np.float32(parameters.scale) * weight_scales).astype("float32")
            bits = 64 if parameters.bits == 16 else 32
            limits = np.iinfo("int32" if bits == 32 else "int64")
            values = dense_values(self.model, tensor).astype("float64")
            integers = np.clip(np.round(values / scales.astype("float64")), limits.min, limits.max)
            new = copy.copy(tensor)
            new.buffer = self._bias_buffer(integers.astype(limits.dtype))
            self._describe(new, bits, scales, np.zeros(len(scales)), 0)
            self.graph.tensors.append(new)
            self.made[key] = len(self.graph.tensors) - 1
        return self.made[key]

    def _new_buffer(self, values):
        buffer = self.schema.BufferT()
        buffer.data = np.frombuffer(np.ascontiguousarray(values).tobytes(), "uint8")
        self.model.buffers.append(buffer)
        return len(self.model.buffers) - 1

    def _bias_buffer(self, values):
        """The buffer of a bias; equal ones, most of them 0, are stored once.

        Kernels are not: XNNPACK knows what it has packed, scales included, by where kernel and bias lie.
        """
        content = values.tobytes()
        if content not in self.biases:
            self.biases[content] = self._new_buffer(values)
        return self.biases[content]

    def _code(self, name, version):
        number = getattr(self.schema.BuiltinOperator, name)
        for index, code in enumerate(self.model.operatorCodes):
            if self.codes[index] == name and code.version == version:
                return index
        code = self.schema.OperatorCodeT()
        code.builtinCode, code.deprecatedBuiltinCode, code.version = number, min(number, 127), version
        self.model.operatorCodes.append(code)
        self.codes.append(name)
        return len(self.codes) - 1

    def _add(self, name, inputs, outputs, bits):
        operator = self.schema.OperatorT()
        operator.opcodeIndex = self._code(name, version_of(name, bits))
        operator.inputs, operator.outputs = inputs, outputs
        self.operators.append(operator)

    # The whole file

    def _finish(self, input_type, output_type):
        graph = self.graph
        graph.inputs = [int(index) for index in graph.inputs]
        graph.outputs = [self._in_floats(int(index)) for index in graph.outputs]
        renamed = dict(zip(self._outputs_in_order, graph.outputs, strict=True))
        for signature in self.model.signatureDefs or []:
            for item in signature.outputs:
                item.tensorIndex = renamed.get(item.tensorIndex, item.tensorIndex)
        graph.operators = self.operators
        if input_type != "float32":
            self._in_integers(graph.inputs, input_type, "inputs", "QUANTIZE")
        if output_type != "float32":
            self._in_integers(graph.outputs, output_type, "outputs", "DEQUANTIZE")
        self._drop_unused()

    def _in_integers(self, indices, kind, side, conversion):
        """Gives the float tensors `indices`, the `side` of the file, the type `kind`, without their conversion."""
        for position, index in enumerate(indices):
            if not self._is_float(index):
                continue
            beside = [operator for operator in self.graph.operators if index in getattr(operator, side)]
            if len(beside) != 1 or self.name(beside[0]) != conversion:
                raise ValueError(f"Number {position} of the file's {side} is in floats: it cannot be {kind}.")
            (operator,) = beside
            inner = int((operator.outputs if side == "inputs" else operator.inputs)[0])
            indices[position] = self._exchanged(index, inner, operator, kind, side)
            for signature in self.model.signatureDefs or []:
                for item in getattr(signature, side):
                    if item.tensorIndex == index:
                        item.tensorIndex = indices[position]

    def _exchanged(self, outer, inner, operator, kind, side):
        """The integer tensor `inner`, or one of another type beside it, as an input or output of the file."""
        parameters = self.parameters[inner]
        if kind == {8: "int8", 16: "int16"}[parameters.bits]:
            self.graph.operators.remove(operator)
            return inner
        if kind == "uint8" and parameters.bits == 8:
            tensor = self.graph.tensors[outer]
            self._describe(tensor, 8, [parameters.scale], [parameters.zero_point + 128], 0)
            tensor.type = self.schema.TensorType.UINT8
            operator.opcodeIndex = self._code("QUANTIZE", 1)
            operator.builtinOptions, operator.builtinOptionsType = None, 0
            return outer
        raise ValueError(f"The file computes in int{parameters.bits}: its {side} cannot be {kind}.")

    def _drop_unused(self):
        graph, model = self.graph, self.model
        used = {*graph.inputs, *graph.outputs}
        for operator in graph.operators:
            used.update(int(index) for index in (*operator.inputs, *operator.outputs) if index >= 0)
        order = {index: number for number, index in enumerate(sorted(used))}
        order[-1] = -1
        graph.tensors = [graph.tensors[index] for index in sorted(used)]
        for operator in graph.operators:
            operator.inputs = [order[int(index)] for index in operator.inputs]
            operator.outputs = [order[int(index)] for index in operator.outputs]
        graph.inputs, graph.outputs = [order[i] for i in graph.inputs], [order[i] for i in graph.outputs]
        for signature in model.signatureDefs or []:
            for item in (*signature.inputs, *signature.outputs):
                item.tensorIndex = order[item.tensorIndex]
        bodies = model.subgraphs[1:]
        tensors = [*graph.tensors, *(tensor for body in bodies for tensor in body.tensors), *(model.metadata or [])]
        kept = sorted({0, *(item.buffer for item in tensors)})
        buffers = {index: number for number, index in enumerate(kept)}
        model.buffers = [model.buffers[index] for index in kept]
        for item in tensors:
            item.buffer = buffers[item.buffer]
        operators = [*graph.operators, *(operator for body in bodies for operator in body.operators)]
        codes = sorted({operator.opcodeIndex for operator in operators})
        model.operatorCodes = [model.operatorCodes[index] for index in codes]
        for operator in operators:
            operator.opcodeIndex = codes.index(operator.opcodeIndex)
