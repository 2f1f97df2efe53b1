"""The operators of a parsed file as rules see them: types, shapes, constants and settings."""

import dataclasses
from collections.abc import Iterator
from typing import Any

import numpy as np

from keras_mot.export.dependencies import require
from keras_mot.export.litert.integers.operators import named_operators
from keras_mot.export.litert.layer_names import LayerNames, label_of
from keras_mot.export.litert.litert_file import dense_values, enum_name

WEIGHTED = {
    **dict.fromkeys(("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED"), (0, 1, 2)),
    "TRANSPOSE_CONV": (2, 1, 3),
}
"""Operators with weights: which of their inputs are the activation, the weight and the bias."""


@dataclasses.dataclass(frozen=True)
class TensorView:
    """A tensor that an operator reads or writes.

    Attributes:
        name: in the file.
        type: such as "INT8".
        shape: sizes; an open one is -1.
        scales: of its integers; empty where it has none.
        zero_points: the same.
        constant: whether the file holds its values.
    """

    name: str
    type: str
    shape: tuple[int, ...]
    scales: tuple[float, ...]
    zero_points: tuple[int, ...]
    constant: bool
    _values: Any = dataclasses.field(repr=False, compare=False)

    @property
    def axes(self) -> int:
        """How many axes it has."""
        return len(self.shape)

    @property
    def integer(self) -> bool:
        """Whether its values are integers that stand for numbers."""
        return self.type in ("INT8", "UINT8", "INT16", "INT4")

    def values(self) -> np.ndarray | None:
        """Its values, if it is constant."""
        return self._values() if self.constant else None


class OperatorView:
    """An operator.

    Attributes:
        name: such as "CONV_2D"; of a custom one, its own.
        layer: the layer that it belongs to, as far as names tell.
        version: of the operator.
        inputs: a `TensorView` for each input, `None` where it is left out.
        outputs: the same for outputs.
    """

    def __init__(self, name, layer, version, options, inputs, outputs):
        self.name, self.layer, self.version, self._options = name, layer, version, options
        self.inputs, self.outputs = inputs, outputs

    def input(self, index: int) -> TensorView | None:
        """An input, or `None` if it has none at this place."""
        return self.inputs[index] if index < len(self.inputs) else None

    def option(self, name: str, default: Any = None) -> Any:
        """A setting by its name in the schema; the default where the operator has none of that name."""
        value = getattr(self._options, name, default)
        return default if value is None else value

    @property
    def activation(self) -> TensorView | None:
        """What is computed with: the first input that is no constant, or else the first."""
        places = WEIGHTED.get(self.name)
        if places is not None:
            return self.input(places[0])
        found = [tensor for tensor in self.inputs if tensor is not None]
        return next((tensor for tensor in found if not tensor.constant), found[0] if found else None)

    @property
    def weight(self) -> TensorView | None:
        """The weight of an operator that has one."""
        return self.input(WEIGHTED[self.name][1]) if self.name in WEIGHTED else None

    @property
    def bias(self) -> TensorView | None:
        """The bias of an operator with a weight, if there is one."""
        return self.input(WEIGHTED[self.name][2]) if self.name in WEIGHTED else None


def graph_inputs(file: Any) -> list[TensorView]:
    """The inputs of a file."""
    graph = file.subgraphs[0]
    return [_tensor(file, graph.tensors[int(index)]) for index in graph.inputs]


def operator_views(file: Any) -> Iterator[OperatorView]:
    """An `OperatorView` of each operator, bodies of loops included."""
    names = {}
    for graph, name, operator in named_operators(file):
        if id(graph) not in names:
            names[id(graph)] = LayerNames(graph)
        read = () if operator.inputs is None else operator.inputs
        inputs = [None if index < 0 else _tensor(file, graph.tensors[int(index)]) for index in read]
        outputs = [_tensor(file, graph.tensors[int(index)]) for index in operator.outputs]
        version = file.operatorCodes[operator.opcodeIndex].version
        yield OperatorView(name, names[id(graph)].of(operator), version, operator.builtinOptions, inputs, outputs)


def _tensor(file, tensor):
    schema = require("ai_edge_litert.schema_py_generated")
    signature = tensor.shapeSignature if tensor.shapeSignature is not None else tensor.shape
    data = file.buffers[tensor.buffer].data
    quantization = tensor.quantization
    scales = () if quantization is None or quantization.scale is None else tuple(map(float, quantization.scale))
    points = () if quantization is None or quantization.zeroPoint is None else tuple(map(int, quantization.zeroPoint))
    return TensorView(
        label_of(tensor),
        enum_name(schema.TensorType, tensor.type),
        () if signature is None else tuple(map(int, signature)),
        scales,
        points,
        data is not None and len(data) > 0,
        lambda: dense_values(file, tensor),
    )
