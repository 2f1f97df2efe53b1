"""Which operators a file has, and whether its target's runtime has them all."""

from typing import Any

from keras_mot.export.dependencies import require
from keras_mot.export.litert.litert_file import enum_name, operator_codes, parse_model
from keras_mot.targets import Target


def operators_of(file: Any) -> tuple[str, ...]:
    """Names of the operators of a parsed file, each once, sorted."""
    return tuple(sorted({name for _, name, _ in named_operators(file)}))


def check_operators(content: bytes, target: Target, layers: Any, model_name: str) -> None:
    """Raises a `ValueError` that names the layers whose operators the target's runtime lacks.

    Args:
        content: a file.
        target: a `Target`.
        layers: the `UserLayers` of the model that it was made from.
        model_name: for the message.
    """
    if target.operators is None:
        return
    file, missing = parse_model(content), {}
    for graph, name, operator in named_operators(file):
        wide = ""
        if name in target.operators:
            axes = _axes(graph, operator)
            if axes <= target.most_axes.get(name, axes):
                continue
            wide = f" of {axes} axes"
        label = graph.tensors[int(operator.outputs[0])].name.decode()
        source = layers.of(label)
        missing.setdefault((f"{name}{wide}", label if source is None else source.name))
    if missing:
        lines = "\n".join(f"  {name} ('{layer}')" for name, layer in missing)
        raise ValueError(
            f"The runtime of the target '{target.name}' has no operator for what these layers of '{model_name}' "
            f"compute:\n{lines}\nReplace them, or do it in front of or behind the model."
        )


def _axes(graph, operator):
    """How many axes the first tensor that an operator reads has."""
    if operator.inputs is None or not len(operator.inputs):
        return 0
    shape = graph.tensors[int(operator.inputs[0])].shape
    return 0 if shape is None else len(shape)


def named_operators(file):
    """(graph, name, operator) of each operator, bodies of loops included; custom ones have names of the file's."""
    schema = require("ai_edge_litert.schema_py_generated")
    codes = operator_codes(file)
    for graph in file.subgraphs:
        for operator in graph.operators or ():
            custom = file.operatorCodes[operator.opcodeIndex].customCode
            name = custom.decode() if custom else enum_name(schema.BuiltinOperator, codes[operator.opcodeIndex])
            yield graph, name, operator
