"""Names the weights in a `.tflite` file after the Keras variables that they come from.

The converter calls a constant by the operations that it was part of, joined by semicolons, or by a number. The traced
graph says which variables such an operation reads; where that leaves a choice, the values decide. What is not known
keeps the converter's name, and nothing but names changes.
"""

import dataclasses
from typing import Any

import numpy as np

from keras_mot._arrays import numpy_value
from keras_mot.export.dependencies import require
from keras_mot.export.litert.litert_file import dense_values, enum_name, operator_codes, parse_model
from keras_mot.export.litert.marking import number_of_weight

_WEIGHT_TYPES = ("FLOAT32", "FLOAT16", "INT8")
_CONVERSIONS = ("DEQUANTIZE", "QUANTIZE")
_BIASES = {"CONV_2D": 2, "DEPTHWISE_CONV_2D": 2, "FULLY_CONNECTED": 2, "CONV_3D": 2, "TRANSPOSE_CONV": 3}
"""Which of their inputs the biases of weighted operators are; the second is the kernel."""
_NAME_FIELD = 10  # of a tensor in the schema, as an offset in its table of fields
_LARGEST_SEARCHED = 2**20  # values of a variable that a constant may be cut out of
_FOLDED = ("bias", "beta", "gamma")
"""Of variables that were folded into one vector, that which gives the name: what is added, else what multiplies."""


def variables_of_operations(frozen, sources, variables):
    """Which variables the operations of a graph get their constant inputs from.

    Args:
        frozen: a TensorFlow graph with constants in place of variables.
        sources: dictionary from names of constants to the Keras variables that they stand for.
        variables: list of all Keras variables, which gives their order.

    Returns:
        A dictionary from the name of an operation to a list of variables.
    """
    order = {id(variable): place for place, variable in enumerate(variables)}
    places = {name: {order[id(variable)]} for name, variable in sources.items() if id(variable) in order}
    operations = frozen.get_operations()
    waiting = {operation.name: {tensor.op.name for tensor in operation.inputs} for operation in operations}
    constant = [operation for operation in operations if operation.type == "Const"]
    while constant:
        operation = constant.pop()
        for reader in {reader.name: reader for output in operation.outputs for reader in output.consumers()}.values():
            places.setdefault(reader.name, set()).update(places.get(operation.name, ()))
            waiting[reader.name].discard(operation.name)
            if not waiting[reader.name]:  # it has constant inputs alone: the converter folds it
                constant.append(reader)
    return {name: [variables[place] for place in sorted(found)] for name, found in places.items() if found}


def name_weights(content, keras_model, readers, marked=()):
    """Renames the weights in a file.

    Args:
        content: bytes of a `.tflite` file from the converter.
        keras_model: the Keras model; its own name is no part of the names, as in a sequential model that was loaded.
        readers: what `variables_of_operations` returned.
        marked: the variables that constants stand for as marks, in the order of the marks' numbers.

    Returns:
        The bytes of the file with other names.
    """
    model = parse_model(content)
    if any(buffer.offset > 1 for buffer in model.buffers):
        return content  # contents of more than 2 GB lie behind the model, where repacking would lose them
    constants = list(_constants(model))
    paths = _Paths()
    for constant in constants:
        if constant.tensor.buffer not in paths.of_buffers:
            number = number_of_weight(constant.values) if marked else None
            known = number is not None and number < len(marked)
            variable = marked[number] if known else _source(constant, keras_model.variables, readers)
            if variable is not None:
                paths.add(constant.tensor.buffer, variable.path.removeprefix(f"{keras_model.name}/"))
    for kernel, bias in _kernels_and_biases(model):
        path = paths.of_buffers.get(kernel.buffer, "")
        if path.endswith("kernel") and bias.buffer not in paths.of_buffers:
            # A layer without a bias, or with zeros, is given zeros by the converter.
            paths.add(bias.buffer, path.removesuffix("kernel") + "bias")
    return _renamed(content, paths.of_buffers)


def _renamed(content, names):
    """The file with other names of the constants in the buffers of these numbers; their contents are not touched.

    The new names stand at the end of the file, and the tensors refer to them there.
    """
    schema = require("ai_edge_litert.schema_py_generated")
    file, result, places = schema.Model.GetRootAs(content, 0), bytearray(content), {}
    for graph in (file.Subgraphs(number) for number in range(file.SubgraphsLength())):
        for tensor in (graph.Tensors(number) for number in range(graph.TensorsLength())):
            name, field = names.get(tensor.Buffer()), tensor._tab.Offset(_NAME_FIELD)
            if name is None or not field:
                continue
            if name not in places:
                result += bytes(-len(result) % 4)
                places[name] = len(result)
                text = name.encode()
                result += len(text).to_bytes(4, "little") + text + b"\0"
            position = tensor._tab.Pos + field
            result[position : position + 4] = (places[name] - position).to_bytes(4, "little")
    return bytes(result)


class _Paths:
    """Paths by the numbers of buffers; of the second and later buffers with one path, with a number behind it."""

    def __init__(self):
        self.of_buffers, self._taken = {}, {}

    def add(self, buffer, path):
        count = self._taken[path] = self._taken.get(path, 0) + 1
        self.of_buffers[buffer] = path if count == 1 else f"{path}:{count}"


@dataclasses.dataclass(frozen=True)
class _Constant:
    """A constant tensor of the file; `places` are the names of operations that it was a part of."""

    tensor: Any
    values: np.ndarray
    places: tuple[list[str], ...]


def _constants(model):
    """The constants that may be weights: with the names that their own gives, and with those of their readers."""
    schema = require("ai_edge_litert.schema_py_generated")
    codes = [enum_name(schema.BuiltinOperator, code) for code in operator_codes(model)]
    for graph in model.subgraphs:
        readers = {}
        for operator in graph.operators or []:
            for index in operator.inputs if operator.inputs is not None else []:
                readers.setdefault(int(index), []).append(operator)
        for index, tensor in enumerate(graph.tensors):
            data = model.buffers[tensor.buffer].data
            if data is None or not len(data) or enum_name(schema.TensorType, tensor.type) not in _WEIGHT_TYPES:
                continue
            results = _results(index, readers, codes)
            behind = [part for result in results for part in _operations(graph.tensors[result])]
            yield _Constant(tensor, dense_values(model, tensor), (_operations(tensor), behind))


def _kernels_and_biases(model):
    """The pairs of constants of weighted operators, through conversions."""
    schema = require("ai_edge_litert.schema_py_generated")
    codes = [enum_name(schema.BuiltinOperator, code) for code in operator_codes(model)]
    for graph in model.subgraphs:
        operators = [(codes[operator.opcodeIndex], operator) for operator in graph.operators or []]
        sources = {int(item.outputs[0]): int(item.inputs[0]) for name, item in operators if name in _CONVERSIONS}
        for name, operator in operators:
            bias = _BIASES.get(name)
            if bias is not None and len(operator.inputs) > bias and operator.inputs[bias] >= 0:
                pair = (int(operator.inputs[1]), int(operator.inputs[bias]))
                yield tuple(graph.tensors[sources.get(index, index)] for index in pair)


def _results(index, readers, codes):
    """The results of the operators that read a tensor, conversions left out."""
    for operator in readers.get(index, []):
        result = int(operator.outputs[0])
        if codes[operator.opcodeIndex] in _CONVERSIONS:
            yield from _results(result, readers, codes)
        else:
            yield result


def _operations(tensor):
    name = tensor.name.decode() if isinstance(tensor.name, bytes) else str(tensor.name)
    return [part for part in name.split(";") if part]


def _source(constant, variables, readers):
    """The variable that a constant comes from, or `None`."""
    size = constant.values.size
    for places in constant.places:
        found = {id(v): v for place in places for v in _read_at(place, readers) if np.prod(v.shape) == size}
        if len(found) == 1:
            return next(iter(found.values()))
        chosen = _equal(constant, found.values()) or [
            variable for name in _FOLDED for variable in found.values() if variable.path.split("/")[-1] == name
        ]
        if chosen:
            return chosen[0]
    if size < 2 or (constant.values == constant.values.flat[0]).all():
        return None  # zeros and ones are found everywhere
    candidates = _equal(constant, [variable for variable in variables if np.prod(variable.shape) == size])
    if not candidates:
        larger = [variable for variable in variables if size < np.prod(variable.shape) <= _LARGEST_SEARCHED]
        candidates = _containing(constant, larger)
    return candidates[0] if len(candidates) == 1 else None


def _read_at(place, readers):
    """What the operation of this name reads; the converter may have put a number behind the name."""
    while place not in readers and place[-1:].isdigit():
        place = place[:-1]
    return readers.get(place, [])


def _equal(constant, variables):
    """Those of the variables that have the values of the constant, in whatever order."""
    values = np.sort(constant.values, axis=None)
    return [variable for variable in variables if np.array_equal(np.sort(_cast(variable, values), axis=None), values)]


def _containing(constant, variables):
    """Those of the variables that the constant may be cut out of, as the kernel of one gate is."""
    values = np.unique(constant.values)
    return [variable for variable in variables if np.isin(values, _cast(variable, values)).all()]


def _cast(variable, values):
    """The values of a variable in the type of others; none, if one are integers and the others floats."""
    own = numpy_value(variable)
    return own.astype(values.dtype) if own.dtype.kind == values.dtype.kind else own[:0]
