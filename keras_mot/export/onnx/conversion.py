"""A LiteRT file becomes an ONNX file."""

from collections.abc import Mapping, Sequence

from keras_mot._messages import shortened
from keras_mot.export.litert.litert_file import parse_model
from keras_mot.export.onnx.operators import TABLE
from keras_mot.export.onnx.translation import Translation

_IR_VERSIONS = {17: 8, 21: 10}
PRODUCER = "keras-mot"


def to_onnx(content: bytes, input_names: Sequence[str], output_names: Mapping[str, str], name: str = "model") -> bytes:
    """An ONNX file that computes what a LiteRT file computes, with the same integers.

    Args:
        content: a LiteRT file whose inputs and outputs are floats, or whole numbers that are no quantized ones.
        input_names: names of its inputs, which have these names in the ONNX file too.
        output_names: by the names of its outputs, those that they have in the ONNX file, where inputs and outputs have
            no name in common.
        name: of the graph.

    Raises:
        ValueError: an operator has no translation (all such are named, with the tensors that they compute), or ONNX has
            no such file.
    """
    file = parse_model(content)
    translation = Translation(file)
    _check(translation)
    inputs = [translation.reserve(each) for each in input_names]
    outputs = [translation.reserve(each) for each in output_names.values()]
    helper = translation.onnx.helper
    by_name = _indices(file, "inputs")
    for each in inputs:
        translation.replace(by_name[each], each)
    for kind, operator in translation.operators():
        arguments, results = ([int(index) for index in part] for part in (operator.inputs, operator.outputs))
        try:
            TABLE[kind](translation, arguments, results, operator.builtinOptions)
        except Exception as error:  # of a form of the operator that its function does not know
            reason = str(error) if type(error) is ValueError else f"{type(error).__name__}: {error}"
            raise ValueError(
                f"ONNX export cannot write {kind}, which computes '{translation.label(results[0])}': {reason}."
            ) from error
    by_file = _indices(file, "outputs")
    ends = {new: by_file[old] for old, new in output_names.items()}
    for each in outputs:
        translation.nodes.append(helper.make_node("Identity", [translation.read(ends[each])], [each], name=each))
    graph = helper.make_graph(
        translation.nodes,
        name,
        [_described(translation, by_name[each], each) for each in inputs],
        [_described(translation, ends[each], each) for each in outputs],
        list(translation.initializers.values()),
    )
    opset = translation.opset
    model = helper.make_model(
        graph,
        producer_name=PRODUCER,
        opset_imports=[helper.make_opsetid("", opset)],
        ir_version=_IR_VERSIONS[opset],
    )
    try:
        translation.onnx.checker.check_model(model, full_check=True)
        return model.SerializeToString()
    except Exception as error:  # the checker's own, and those of protocol buffers, which hold 2 GB at most
        raise ValueError(f"'{name}' cannot be written as one ONNX file: {shortened(error)}") from error


def _check(translation):
    """Raises a ValueError that names what has no translation, before any is made."""
    missing = {}
    for kind, operator in translation.operators():
        if kind not in TABLE:
            missing.setdefault(kind, []).append(translation.label(int(operator.outputs[0])))
    if missing:
        parts = "; ".join(f"{kind} (for '{labels[0]}')" for kind, labels in missing.items())
        raise ValueError(f"ONNX export has no translation of {parts}.")


def _indices(file, side):
    """The tensors of one side of a file by the names of its signature."""
    return {item.name.decode(): int(item.tensorIndex) for item in getattr(file.signatureDefs[0], side)}


def _described(translation, index, name):
    sizes = [f"{name}_{axis}" if size is None else size for axis, size in enumerate(translation.shape(index))]
    sizes = ["batch" if axis == 0 and isinstance(size, str) else size for axis, size in enumerate(sizes)]
    return translation.onnx.helper.make_tensor_value_info(name, translation.element_type(index), sizes)
