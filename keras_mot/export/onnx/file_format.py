"""What `keras_mot/_formats.py` asks of a format, for ONNX files."""

import contextlib
import pathlib

import numpy as np

from keras_mot._messages import shortened
from keras_mot.export.dependencies import require
from keras_mot.export.litert.litert_file import ConstantTensor, along, is_of_channels
from keras_mot.export.onnx.exporting import export_onnx as export
from keras_mot.export.onnx.runner import OnnxRunner as runner

__all__ = ["export", "operators", "parameters", "recognizes", "runner"]

_FIRST_FIELDS = (0x12, 0x1A, 0x22, 0x3A, 0x42)
"""What may follow the version in ONNX's protocol buffer: producer, its version, domain, graph, operator sets."""
_OF_QUANTIZERS = ("QuantizeLinear", "DequantizeLinear")
_BY_ELEMENTS = ("Add", "Sub", "Mul", "Div", "Max", "Min", "Pow", "PRelu")


def recognizes(content):
    """Whether a file begins as ONNX files do: with the version of the format, and another of its fields."""
    return len(content) > 2 and content[0] == 8 and 0 < content[1] < 32 and content[2] in _FIRST_FIELDS


def parameters(path):
    """The weights and biases in a file: constants that are no scales, zero points, or sizes."""
    onnx = require("onnx")
    with _blaming(path):
        graph = onnx.load_model_from_string(pathlib.Path(path).read_bytes()).graph
        constants = {item.name: item for item in graph.initializer}
        beside = {name for node in graph.node if node.op_type in _OF_QUANTIZERS for name in node.input[1:]}
        arrays = {name: onnx.numpy_helper.to_array(item) for name, item in constants.items() if name not in beside}
        scales = {
            node.input[0]: _scales(onnx, node, constants[node.input[1]], arrays[node.input[0]].shape)
            for node in graph.node
            if node.op_type == "DequantizeLinear" and node.input[0] in arrays and node.input[1] in constants
        }
        by_elements = _read_by_elements(graph)
    for name, values in arrays.items():
        if values.dtype == np.int64 or values.ndim == 0:
            continue
        of_channels = name in by_elements and is_of_channels(values)
        yield ConstantTensor(
            name, values.dtype.name, values, False, 0, scales=scales.get(name), of_channels=of_channels
        )


def _read_by_elements(graph):
    """The names of what operators on single elements read, behind a conversion from integers, too."""
    behind = {node.output[0]: node.input[0] for node in graph.node if node.op_type == "DequantizeLinear"}
    read = [name for node in graph.node if node.op_type in _BY_ELEMENTS for name in node.input]
    return {*read, *(behind[name] for name in read if name in behind)}


def operators(path):
    """Dictionary from (operator, type of what it computes, where the file tells it) to how often a file has it."""
    onnx = require("onnx")
    with _blaming(path):
        graph = onnx.load_model_from_string(pathlib.Path(path).read_bytes()).graph
        kinds = {item.name: item.type.tensor_type.elem_type for item in (*graph.value_info, *graph.output)}
        counts = {}
        for node in graph.node:
            kind = kinds.get(node.output[0], 0) if node.output else 0
            name = onnx.helper.tensor_dtype_to_np_dtype(kind).name if kind else ""
            counts[node.op_type, name] = counts.get((node.op_type, name), 0) + 1
        return counts


def _scales(onnx, node, constant, shape):
    """The scales of what a node reads, an array of this shape; `None` where they are of blocks."""
    axis = next((each.i for each in node.attribute if each.name == "axis"), 1)
    return along(onnx.numpy_helper.to_array(constant), axis, shape)


@contextlib.contextmanager
def _blaming(path):
    """Where whatever a damaged file makes of the parser is an error that names it."""
    try:
        yield
    except Exception as error:
        raise ValueError(
            f"The `.onnx` file '{path}' is damaged: {shortened(error)}. Export or copy it again."
        ) from error
