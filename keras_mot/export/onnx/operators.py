"""How each operator of LiteRT is written in ONNX: a function for each, in one table."""

import math

import numpy as np

from keras_mot.export.onnx import moves, windows
from keras_mot.export.onnx.translation import AS_IS, FIRST
from keras_mot.export.onnx.windows import NONE, fused


def _elementwise(kind):
    def one(t, inputs, outputs, options):
        together = all(t.layout(index) == FIRST or t.is_single(index) for index in inputs)
        layout = FIRST if together and any(t.layout(index) == FIRST for index in inputs) else AS_IS
        result = t.add(kind, [t.read(index, layout) for index in inputs])
        t.write(outputs[0], fused(t, result, getattr(options, "fusedActivationFunction", NONE), outputs[0]), layout)

    return one


def _chain(function):
    """An operator of one tensor; `function` makes nodes from the translation, a value, and the options."""

    def one(t, inputs, outputs, options):
        layout = t.layout(inputs[0])
        t.write(outputs[0], function(t, t.read(inputs[0], layout), options), layout)

    return one


def _plain(kind, **attributes):
    return _chain(lambda t, value, options: t.add(kind, [value], **attributes))


def _clip(low, high):
    return _chain(lambda t, value, options: t.add("Clip", [value, *(t.array(np.float32(end)) for end in (low, high))]))


def _gelu(t, value, options):
    half = t.add("Mul", [value, t.array(np.float32(0.5))])
    if options.approximate:
        cube = t.add("Mul", [t.add("Mul", [value, value]), value])
        inner = t.add("Add", [value, t.add("Mul", [cube, t.array(np.float32(0.044715))])])
        bent = t.add("Tanh", [t.add("Mul", [inner, t.array(np.float32(math.sqrt(2 / math.pi)))])])
    else:
        bent = t.add("Erf", [t.add("Mul", [value, t.array(np.float32(math.sqrt(0.5)))])])
    return t.add("Mul", [half, t.add("Add", [bent, t.array(np.float32(1.0))])])


def _softmax(kind):
    def one(t, inputs, outputs, options):
        value = t.read(inputs[0])
        if getattr(options, "beta", 1.0) not in (0.0, 1.0):
            value = t.add("Mul", [value, t.array(np.float32(options.beta))])
        t.write(outputs[0], t.add(kind, [value], axis=-1))

    return one


def _prelu(t, inputs, outputs, options):
    t.write(outputs[0], t.add("PRelu", [t.read(inputs[0]), t.read(inputs[1])]))


def _reduce(kind):
    def one(t, inputs, outputs, options):
        axes = [int(axis) % len(t.shape(inputs[0])) for axis in t.numbers(inputs[1], "axes").ravel()]
        keep = bool(options.keepDims)
        if kind == "ReduceMean" and t.layout(inputs[0]) == FIRST and sorted(axes) == [1, 2]:
            result = t.add("GlobalAveragePool", [t.read(inputs[0], FIRST)])
            if keep:
                t.write(outputs[0], result, FIRST)
            else:
                t.write(outputs[0], t.add("Flatten", [result]))
            return
        value = t.read(inputs[0])
        if kind == "ReduceSum" or t.opset >= 18:
            result = t.add(kind, [value, t.integers64(axes)], keepdims=int(keep))
        else:
            result = t.add(kind, [value], axes=axes, keepdims=int(keep))
        t.write(outputs[0], result)

    return one


def _select(t, inputs, outputs, options):
    t.write(outputs[0], t.add("Where", [t.read(index) for index in inputs]))


def _largest(kind):
    def one(t, inputs, outputs, options):
        axis = int(t.numbers(inputs[1], "axis").ravel()[0])
        t.write(outputs[0], t.cast(t.add(kind, [t.read(inputs[0])], axis=axis, keepdims=0), t.type_of(outputs[0])))

    return one


def _not_equal(t, inputs, outputs, options):
    t.write(outputs[0], t.add("Not", [t.add("Equal", [t.read(index) for index in inputs])]))


def _squared_difference(t, inputs, outputs, options):
    difference = t.add("Sub", [t.read(index) for index in inputs])
    t.write(outputs[0], t.add("Mul", [difference, difference]))


def _requantize(t, inputs, outputs, options):
    layout = t.layout(inputs[0])
    value, before, after = t.read(inputs[0], layout), t.grid(inputs[0]), t.grid(outputs[0])
    if before is not None and after is not None:
        # ONNX Runtime makes one of two pairs of quantizers that follow each other, on a third grid: other numbers. What
        # is less than the lowest number of the first grid, this is none.
        lowest = int(np.iinfo(t.type_of(inputs[0]).lower()).min) - before[1]
        value = t.add("Max", [value, t.array(np.float32(lowest * before[0]))])
    t.write(outputs[0], value, layout)


def _zeros(t, inputs, outputs, options):
    layout = t.layout(inputs[0])
    kind = t.element_type(outputs[0])
    zero = t.onnx.helper.make_tensor("zero", kind, [1], [0])
    shape = t.add("Shape", [t.read(inputs[0], layout)])
    t.write(outputs[0], t.add("ConstantOfShape", [shape], value=zero), layout)


def _one_hot(t, inputs, outputs, options):
    indices, depth, on, off = inputs
    values = t.add("Concat", [t.add("Reshape", [t.read(index), t.integers64([1])]) for index in (off, on)], axis=0)
    count = t.integers64(t.numbers(depth, "depth").ravel())
    index = t.cast(t.read(indices), "INT64")
    # ONNX counts negative ones from the end; for LiteRT they are none, as those that are too large are for both.
    index = t.add("Where", [t.add("Less", [index, t.integers64([0])]), count, index])
    result = t.add("OneHot", [index, count, values], axis=int(options.axis))
    t.write(outputs[0], result)


TABLE = {
    "CONV_2D": windows.convolution,
    "DEPTHWISE_CONV_2D": windows.depthwise,
    "TRANSPOSE_CONV": windows.transposed_convolution,
    "FULLY_CONNECTED": windows.dense,
    "BATCH_MATMUL": windows.matrix_product,
    **{kind.upper(): _elementwise(kind) for kind in ("Add", "Sub", "Mul", "Div", "Pow")},
    "MAXIMUM": _elementwise("Max"),
    "MINIMUM": _elementwise("Min"),
    "GREATER": _elementwise("Greater"),
    "GREATER_EQUAL": _elementwise("GreaterOrEqual"),
    "LESS": _elementwise("Less"),
    "LESS_EQUAL": _elementwise("LessOrEqual"),
    "EQUAL": _elementwise("Equal"),
    "NOT_EQUAL": _not_equal,
    "LOGICAL_AND": _elementwise("And"),
    "LOGICAL_OR": _elementwise("Or"),
    "LOGICAL_NOT": _plain("Not"),
    "SQUARED_DIFFERENCE": _squared_difference,
    "SELECT": _select,
    "SELECT_V2": _select,
    "RELU": _plain("Relu"),
    "RELU6": _clip(0.0, 6.0),
    "RELU_N1_TO_1": _clip(-1.0, 1.0),
    "RELU_0_TO_1": _clip(0.0, 1.0),
    "LEAKY_RELU": _chain(lambda t, value, options: t.add("LeakyRelu", [value], alpha=float(options.alpha))),
    "PRELU": _prelu,
    "ELU": _plain("Elu"),
    "GELU": _chain(_gelu),
    "HARD_SWISH": _plain("HardSwish"),
    "LOGISTIC": _plain("Sigmoid"),
    "TANH": _plain("Tanh"),
    "SOFTMAX": _softmax("Softmax"),
    "LOG_SOFTMAX": _softmax("LogSoftmax"),
    **{
        kind.upper(): _plain(kind)
        for kind in ("Exp", "Log", "Sqrt", "Abs", "Neg", "Sin", "Cos", "Floor", "Ceil", "Round", "Sign")
    },
    "RSQRT": _chain(lambda t, value, options: t.add("Reciprocal", [t.add("Sqrt", [value])])),
    "SQUARE": _chain(lambda t, value, options: t.add("Mul", [value, value])),
    "AVERAGE_POOL_2D": windows.pool("AveragePool"),
    "MAX_POOL_2D": windows.pool("MaxPool"),
    "MEAN": _reduce("ReduceMean"),
    "SUM": _reduce("ReduceSum"),
    "REDUCE_MAX": _reduce("ReduceMax"),
    "REDUCE_MIN": _reduce("ReduceMin"),
    "REDUCE_PROD": _reduce("ReduceProd"),
    "ARG_MAX": _largest("ArgMax"),
    "ARG_MIN": _largest("ArgMin"),
    "RESHAPE": moves.reshape,
    "TRANSPOSE": moves.transpose,
    "SQUEEZE": moves.squeeze,
    "EXPAND_DIMS": moves.expand,
    "CONCATENATION": moves.concatenate,
    **dict.fromkeys(("PAD", "PADV2", "MIRROR_PAD"), moves.pad),
    "SLICE": moves.slice_,
    "STRIDED_SLICE": moves.strided_slice,
    "SPLIT": moves.split,
    "SPLIT_V": moves.split_by_sizes,
    "PACK": moves.pack,
    "UNPACK": moves.unpack,
    "SHAPE": moves.shape,
    "CAST": moves.cast,
    "GATHER": moves.gather,
    "TILE": moves.tile,
    "BROADCAST_TO": moves.broadcast,
    "REVERSE_V2": moves.reverse,
    "SPACE_TO_BATCH_ND": moves.space_to_batch,
    "BATCH_TO_SPACE_ND": moves.batch_to_space,
    "ONE_HOT": _one_hot,
    "ZEROS_LIKE": _zeros,
    "RESIZE_BILINEAR": windows.resize("linear"),
    "RESIZE_NEAREST_NEIGHBOR": windows.resize("nearest"),
    "QUANTIZE": _requantize,
    "DEQUANTIZE": _requantize,
}
"""By the names of operators, functions of (translation, inputs, outputs, options), which write the outputs."""
