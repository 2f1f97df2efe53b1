"""The shapes that a file with an open batch size gives for one sample.

Compilers for microcontrollers and accelerators go by them. The converter writes a 1 wherever a size is open, also
behind what makes the timesteps of a sequence one batch; there, the shapes on both sides of a RESHAPE do not agree.
"""

import math

import numpy as np

from keras_mot.export.dependencies import require
from keras_mot.export.litert.interpreter import LocalInterpreter
from keras_mot.export.litert.litert_file import enum_name, operator_codes, pack_model, parse_model


def with_static_shapes(content: bytes) -> bytes:
    """The file with the shapes that its tensors have for one sample, as the runtime computes them.

    Args:
        content: a file whose inputs have open batch sizes, if any.

    Returns:
        The same bytes, if the shapes agree already, or if other sizes are open as well.
    """
    schema = require("ai_edge_litert.schema_py_generated")
    model = parse_model(content)
    graph = model.subgraphs[0]
    reshape = schema.BuiltinOperator.RESHAPE
    codes = [code == reshape for code in operator_codes(model)]
    pairs = [(item.inputs[0], item.outputs[0]) for item in graph.operators if codes[item.opcodeIndex]]
    if all(math.prod(_sizes(graph.tensors[a])) == math.prod(_sizes(graph.tensors[b])) for a, b in pairs):
        return content
    inputs = [graph.tensors[index] for index in graph.inputs]
    if any(size < 0 for tensor in inputs for size in _signature(tensor)[1:]):
        return content
    try:
        interpreter = LocalInterpreter(content, 1, "reference")
    except ValueError:  # not every operator has a reference kernel, ELU for one
        interpreter = LocalInterpreter(content, 1, "default")
    kinds = [np.dtype(enum_name(schema.TensorType, tensor.type).lower()) for tensor in inputs]
    samples = [np.zeros(_sizes(tensor), kind) for tensor, kind in zip(inputs, kinds, strict=True)]
    indices = [details["index"] for details in interpreter.inputs.values()]
    if sorted(indices) != sorted(int(index) for index in graph.inputs):
        return content
    interpreter.set_inputs([int(index) for index in graph.inputs], samples)
    interpreter.invoke()
    shapes = {details["index"]: details["shape"] for details in interpreter.tensors()}
    for index, tensor in enumerate(graph.tensors):
        if any(size < 0 for size in _signature(tensor)) and len(shapes[index]) == len(_sizes(tensor)):
            tensor.shape = np.asarray(shapes[index], "int32")
    return pack_model(model)


def _sizes(tensor):
    return [] if tensor.shape is None else [int(size) for size in tensor.shape]


def _signature(tensor):
    return _sizes(tensor) if tensor.shapeSignature is None else [int(size) for size in tensor.shapeSignature]
