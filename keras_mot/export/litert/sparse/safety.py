"""Tells whether a sparsely encoded `.tflite` file is safe to run where XNNPACK has sparse kernels.

On x86 with AVX the default delegate of LiteRT, XNNPACK, expands sparse weights and computes as usual. On Arm
it may instead switch a part of the graph to sparse inference: pointwise convolutions read their weights
sparsely and the feature maps between them are stored channels first. It looks for a part that

* begins with a 3x3 convolution of stride 2 over 3 channels, padded explicitly by 1 (the *stem*),
* goes on with operators that have a channels-first kernel (the *members*),
* ends in a global average pooling or a depth-to-space (the *ends*),

and switches it when more than 2/3 of its pointwise weights are zero (`xnn_subgraph_rewrite_for_nchw` in
XNNPACK's `subgraph.c`). XNNPACK checks that what the members *read* is channels first, but not that every
value which leaves the part does so through an end. When one branch of the part reaches an end and another
leaves through an operator that is no member, or a value inside is an output of the model, that value is
read in the wrong layout, and the outputs are wrong without any error. Such a graph cannot be found out by
running it on x86, so it is recognised here, by its shape.

The check errs on the careful side: what it does not know to be right, it calls unsafe.
"""

import dataclasses

import numpy as np

from keras_mot.export.dependencies import require
from keras_mot.export.litert.litert_file import dense_values, enum_name, operator_codes, parse_model

# XNNPACK switches to sparse inference above this share of zeros in the pointwise kernels.
_ZEROS_NUMERATOR, _ZEROS_DENOMINATOR = 2, 3
_DECODERS = ("DENSIFY", "DEQUANTIZE")
_SAME_PADDING = 0
_UNARY = (
    *("ABS", "CEIL", "ELU", "FLOOR", "GELU", "HARD_SWISH", "LEAKY_RELU", "LOGISTIC"),
    *("NEG", "RELU", "RELU6", "RELU_N1_TO_1", "ROUND", "SQUARE", "TANH"),
)


@dataclasses.dataclass(frozen=True)
class SparseSafety:
    """Whether a file is safe, whether Arm would use sparse kernels, for which kernels of which zeros, and why."""

    safe: bool
    sparse_kernels: bool
    reason: str
    layers: tuple[str, ...] = ()
    zeros: float = 0.0


def check_sparse_safety(path_or_content):
    """Reads a `.tflite` file and tells whether sparse inference could give wrong outputs.

    Args:
        path_or_content: Path or bytes of the file.

    Returns:
        A `SparseSafety`.
    """
    model = parse_model(path_or_content)
    verdicts = [_check_graph(_Graph(model, graph)) for graph in model.subgraphs]
    return min(verdicts, key=lambda verdict: (verdict.safe, not verdict.sparse_kernels))


class _Operator:
    """An operator of the graph, with its name and without the decoders of its weights."""

    def __init__(self, name, operator):
        self.name = name
        self.options = operator.builtinOptions
        self.inputs = [int(i) for i in operator.inputs if i >= 0]
        self.outputs = [int(i) for i in operator.outputs]


class _Graph:
    """One subgraph, with producers and consumers; constants are seen through DENSIFY and DEQUANTIZE."""

    def __init__(self, model, graph):
        schema = require("ai_edge_litert.schema_py_generated")
        self.model, self.tensors = model, graph.tensors
        self.outputs = {int(index) for index in graph.outputs}
        names = [enum_name(schema.BuiltinOperator, code) for code in operator_codes(model)]
        operators = [_Operator(names[o.opcodeIndex], o) for o in graph.operators or []]
        self.constants = {
            index: index
            for index, tensor in enumerate(self.tensors)
            if model.buffers[tensor.buffer].data is not None and len(model.buffers[tensor.buffer].data)
        }
        self.operators, self.sparsely_encoded = [], False
        for operator in operators:
            if operator.name in _DECODERS and operator.inputs[0] in self.constants:
                self.constants[operator.outputs[0]] = self.constants[operator.inputs[0]]
                self.sparsely_encoded |= operator.name == "DENSIFY"
            else:
                self.operators.append(operator)
        self.producer = {index: operator for operator in self.operators for index in operator.outputs}
        self.consumers = {}
        for operator in self.operators:
            for index in operator.inputs:
                self.consumers.setdefault(index, []).append(operator)

    def shape(self, index):
        shape = self.tensors[index].shape
        return [] if shape is None else [int(size) for size in shape]

    def values(self, index):
        return dense_values(self.model, self.tensors[self.constants[index]])

    def activations(self, operator):
        """The inputs of an operator that are computed, not constant."""
        return [index for index in operator.inputs if index not in self.constants]

    def successors(self, operator):
        return [consumer for index in operator.outputs for consumer in self.consumers.get(index, [])]

    def explicit_padding(self, operator):
        """The padding of a PAD that feeds this operator alone, or None."""
        source = self.producer.get(operator.inputs[0])
        if source is None or source.name != "PAD" or len(self.successors(source)) != 1:
            return None
        return self.values(source.inputs[1]).tolist()


def _pads_by(width):
    return [[0, 0], [width, width], [width, width], [0, 0]]


def _is_stem(graph, operator):
    if operator.name != "CONV_2D" or operator.inputs[1] not in graph.constants:
        return False
    options = operator.options
    return (
        graph.shape(operator.inputs[1])[1:] == [3, 3, 3]
        and options.strideH == options.strideW == 2
        and options.dilationHFactor == options.dilationWFactor == 1
        and options.padding != _SAME_PADDING
        and graph.explicit_padding(operator) == _pads_by(1)
    )


def _is_pointwise(graph, operator):
    options, kernel = operator.options, graph.shape(operator.inputs[1])
    channels = graph.shape(operator.inputs[0])[-1]
    return kernel[1:3] == [1, 1] and options.strideH == options.strideW == 1 and kernel[3] == channels


def _is_depthwise(graph, operator):
    options, (_, height, width, _) = operator.options, graph.shape(operator.inputs[1])
    if height != width or height not in (3, 5) or options.strideH != options.strideW:
        return False
    if options.dilationHFactor != 1 or options.dilationWFactor != 1 or options.depthMultiplier != 1:
        return False
    if options.padding == _SAME_PADDING:  # XNNPACK can spell it out for stride 1 only
        return options.strideH == 1
    return options.strideH in (1, 2) and graph.explicit_padding(operator) == _pads_by(height // 2)


def _feeds_depthwise(graph, operator):
    """A PAD disappears into the depthwise convolution behind it."""
    successors = graph.successors(operator)
    return len(successors) == 1 and _is_member(graph, successors[0]) and successors[0].name.startswith("DEPTH")


def _has_four_dimensions(graph, operator):
    return all(len(graph.shape(index)) == 4 for index in operator.inputs)


def _joins_feature_maps(graph, operator):
    return len(graph.activations(operator)) == 2 and _has_four_dimensions(graph, operator)


def _is_enlarging(graph, operator):
    return all(size > 1 for size in graph.shape(operator.inputs[0])[1:3])


def _is_global_average(graph, operator):
    axes = sorted(axis % 4 for axis in np.ravel(graph.values(operator.inputs[1])).tolist())
    return _has_four_dimensions_in(graph, operator) and axes == [1, 2] and not operator.options.keepDims


def _has_four_dimensions_in(graph, operator):
    return len(graph.shape(operator.inputs[0])) == 4


_MEMBERS = {
    "CONV_2D": _is_pointwise,
    "DEPTHWISE_CONV_2D": _is_depthwise,
    "PAD": _feeds_depthwise,
    "ADD": _joins_feature_maps,
    "MUL": _joins_feature_maps,
    "RESIZE_BILINEAR": _is_enlarging,
    **dict.fromkeys(_UNARY, _has_four_dimensions_in),
}
_ENDS = {"MEAN": _is_global_average, "DEPTH_TO_SPACE": _has_four_dimensions_in}


def _is_member(graph, operator):
    return operator.name in _MEMBERS and _MEMBERS[operator.name](graph, operator)


def _is_end(graph, operator):
    return operator.name in _ENDS and _ENDS[operator.name](graph, operator)


def _check_graph(graph):
    if not graph.sparsely_encoded:
        return SparseSafety(True, False, "no weight is sparsely encoded")
    stems = [operator for operator in graph.operators if _is_stem(graph, operator)]
    if not stems:
        return SparseSafety(True, False, "no stem that XNNPACK's sparse inference starts from")
    if not _has_sparse_kernel(graph):
        return SparseSafety(True, False, "no pointwise kernel with more than 2/3 zeros")
    part, ends, leaks = _walk(graph, stems)
    leaks += _entries(graph, part, stems)
    leaks += [
        f"an output of the model inside the sparse part (after {operator.name})"
        for operator in part
        if operator not in ends and any(index in graph.outputs for index in operator.outputs)
    ]
    if leaks:
        found = ", ".join(dict.fromkeys(leaks))
        return SparseSafety(
            False, False, f"XNNPACK's sparse inference on Arm may give wrong outputs for this graph: {found}"
        )
    if not ends:
        return SparseSafety(True, False, "no global average pooling or depth-to-space behind the stem")
    kernels = [operator.inputs[1] for operator in part if operator.name == "CONV_2D" and operator not in stems]
    values = [graph.values(index) for index in kernels]
    size = sum(each.size for each in values)
    zeros = size - sum(np.count_nonzero(each) for each in values)
    if not zeros * _ZEROS_DENOMINATOR > size * _ZEROS_NUMERATOR:
        share = zeros / max(size, 1)
        return SparseSafety(True, False, f"{share:.0%} zeros in all 1x1 kernels behind the stem, and not more than 2/3")
    names = tuple(graph.tensors[graph.constants[index]].name.decode() for index in kernels)
    reason = "the graph has the shape that XNNPACK's sparse inference supports"
    return SparseSafety(True, True, reason, names, zeros / size)


def _has_sparse_kernel(graph):
    """Whether any kernel could lift a part of the graph above XNNPACK's threshold.

    XNNPACK adds up the zeros of a whole part; if no kernel alone is above the threshold, no sum can be.
    """
    for operator in graph.operators:
        pointwise = operator.name == "CONV_2D" and graph.shape(operator.inputs[1])[1:3] == [1, 1]
        if not pointwise and operator.name != "FULLY_CONNECTED":
            continue
        if operator.inputs[1] not in graph.constants:
            continue
        values = graph.values(operator.inputs[1])
        zeros = values.size - np.count_nonzero(values)
        if zeros * _ZEROS_DENOMINATOR > values.size * _ZEROS_NUMERATOR:
            return True
    return False


def _walk(graph, stems):
    """The part reachable from the stems through members, its ends, and where it leaves through no end."""
    part, ends, leaks = [], [], []
    pending = list(stems)
    while pending:
        operator = pending.pop()
        if operator in part:
            continue
        part.append(operator)
        if operator not in stems and _is_end(graph, operator):
            ends.append(operator)
            continue
        for successor in graph.successors(operator):
            if _is_end(graph, successor) or _is_member(graph, successor):
                pending.append(successor)
            else:
                leaks.append(f"{operator.name} is followed by {successor.name}")
    return part, ends, leaks


def _entries(graph, part, stems):
    """Values that enter the part from outside, other than through a stem."""
    return [
        f"{operator.name} reads a value from outside the sparse part"
        for operator in part
        if operator not in stems
        for index in graph.activations(operator)
        if graph.producer.get(index) not in part
    ]
