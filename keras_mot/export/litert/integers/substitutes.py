"""Operators that a target's runtime lacks, written by others that it has and that give the same integers."""

import copy

from keras_mot.export.litert.integers.file_graph import FileGraph
from keras_mot.export.litert.litert_file import pack_model, parse_model
from keras_mot.targets import Target

_MOST_JOINED = 10  # inputs that TFLM's CONCATENATION takes


def with_substitutes(content: bytes, target: Target) -> bytes:
    """The file with what the target's runtime lacks replaced, where that is possible.

    TILE becomes CONCATENATION, SELECT of tensors of one shape SELECT_V2, or products, and RELU6 QUANTIZE.

    Args:
        content: a file.
        target: a `Target`.
    """
    if target.operators is None:
        return content
    graph, changed = FileGraph(parse_model(content)), False
    for operator in graph.graph.operators:
        name = graph.name(operator)
        substitute = None if name in target.operators else _SUBSTITUTES.get(name)
        if substitute is not None and substitute(graph, operator):
            changed = True
        else:
            graph.operators.append(operator)
    if not changed:
        return content
    graph.graph.operators = graph.operators
    return pack_model(graph.model)


def _tile(graph, operator):
    """The same tensor several times, one axis after the other."""
    source, repeats = (int(index) for index in operator.inputs)
    if not graph.is_constant(repeats):
        return False
    steps = [(axis, int(count)) for axis, count in enumerate(graph.values(repeats).ravel()) if count > 1]
    if not steps:
        return False
    for axis, count in steps[:-1]:
        source = _repeated(graph, source, axis, count)
    _repeated(graph, source, *steps[-1], int(operator.outputs[0]))
    return True


def _repeated(graph, source, axis, count, result=None):
    """A tensor `count` times along an axis; as the tensor `result`, if that is given."""
    if count <= _MOST_JOINED:
        return _joined(graph, [source] * count, axis, result)
    tens, rest = divmod(count, _MOST_JOINED)
    parts = [_repeated(graph, source, axis, _MOST_JOINED)]
    if tens > 1:
        parts = [_repeated(graph, parts[0], axis, tens, None if rest else result)]
    if rest:
        parts.append(source if rest == 1 else _repeated(graph, source, axis, rest))
        return _joined(graph, parts, axis, result)
    return parts[0]


def _joined(graph, parts, axis, result):
    if result is None:
        tensor = copy.copy(graph.graph.tensors[parts[0]])
        tensor.buffer, tensor.shapeSignature = 0, None
        tensor.shape = tensor.shape.copy()
        tensor.shape[axis] = sum(graph.shape(part)[axis] for part in parts)
        tensor.name = f"{graph.label(parts[0])}_joined_{len(graph.graph.tensors)}"
        graph.graph.tensors.append(tensor)
        result = len(graph.graph.tensors) - 1
    graph.add_operator("CONCATENATION", parts, [result], 8, axis=axis, fusedActivationFunction=0)
    return result


def _select(graph, operator):
    """SELECT_V2 where shapes are equal; of whole numbers, for which TFLM has none, products with truths as 0 and 1."""
    if len({graph.shape(int(index)) for index in operator.inputs}) != 1:
        return False
    result, types = int(operator.outputs[0]), graph.schema.TensorType
    if graph.graph.tensors[result].type != types.INT32:
        graph.set_kind(operator, "SELECT_V2", 8)
        operator.builtinOptions, operator.builtinOptionsType = None, 0
        graph.operators.append(operator)
        return True
    truth, first, second = (int(index) for index in operator.inputs)
    label = graph.label(result)
    names = ("false", "factor_of_first", "factor_of_second", "first", "second")
    false, *factors, one, other = (graph.add_positions(result, f"{label}_{name}") for name in names)
    graph.graph.tensors[false].type = types.BOOL
    graph.add_operator("LOGICAL_NOT", [truth], [false], 8, version=1)
    for source, factor in zip((truth, false), factors, strict=True):
        kinds = {"inDataType": types.BOOL, "outDataType": types.INT32}
        graph.add_operator("CAST", [source], [factor], 8, version=1, **kinds)
    for values, factor, product in zip((first, second), factors, (one, other), strict=True):
        graph.add_operator("MUL", [values, factor], [product], 8, version=1, fusedActivationFunction=0)
    graph.add_operator("ADD", [one, other], [result], 8, version=1, potScaleInt16=False)
    return True


def _relu6(graph, operator):
    """A conversion, where integers end at 0 and at 6: TFLM's kernel takes the result for one of the input's scale."""
    result = int(operator.outputs[0])
    quantization = graph.graph.tensors[result].quantization
    if quantization is None or graph.graph.tensors[result].type != graph.schema.TensorType.INT8:
        return False
    scale, zero_point = float(quantization.scale[0]), int(quantization.zeroPoint[0])
    if zero_point != -128 or 255 * scale > 6.0 + scale / 2:
        return False
    graph.set_kind(operator, "QUANTIZE", 8)
    operator.builtinOptions, operator.builtinOptionsType = None, 0
    graph.operators.append(operator)
    return True


_SUBSTITUTES = {"TILE": _tile, "SELECT": _select, "RELU6": _relu6}
