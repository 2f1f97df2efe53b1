"""What `keras_mot/_formats.py` asks of a format, for ONNX files."""

import pathlib

import numpy as np

from keras_mot._messages import shortened
from keras_mot.export.dependencies import require
from keras_mot.export.litert.litert_file import ConstantTensor
from keras_mot.export.onnx.exporting import export_onnx as export
from keras_mot.export.onnx.runner import OnnxRunner as runner

__all__ = ["export", "parameters", "recognizes", "runner"]

_FIRST_FIELDS = (0x12, 0x1A, 0x22, 0x3A, 0x42)
"""What may follow the version in ONNX's protocol buffer: producer, its version, domain, graph, operator sets."""
_OF_QUANTIZERS = ("QuantizeLinear", "DequantizeLinear")


def recognizes(content):
    """Whether a file begins as ONNX files do: with the version of the format, and another of its fields."""
    return len(content) > 2 and content[0] == 8 and 0 < content[1] < 32 and content[2] in _FIRST_FIELDS


def parameters(path):
    """The weights and biases in a file: constants that are no scales, zero points, or sizes."""
    onnx = require("onnx")
    try:
        model = onnx.load_model_from_string(pathlib.Path(path).read_bytes())
        graph = model.graph
        constants = {item.name: item for item in graph.initializer}
        beside = {name for node in graph.node if node.op_type in _OF_QUANTIZERS for name in node.input[1:]}
        arrays = {name: onnx.numpy_helper.to_array(item) for name, item in constants.items() if name not in beside}
    except Exception as error:  # whatever a damaged file makes of the parser
        raise ValueError(
            f"The `.onnx` file '{path}' is damaged: {shortened(error)}. Export or copy it again."
        ) from error
    for name, values in arrays.items():
        if values.dtype == np.int64 or values.ndim == 0:
            continue
        yield ConstantTensor(name, values.dtype.name, values, False, 0)
