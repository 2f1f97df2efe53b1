"""Operators of LiteRT with weights or windows, written in ONNX."""

import math

import numpy as np

from keras_mot.export.onnx.translation import FIRST

_SAME = 0
NONE = 0
_BOUNDS = {1: (0.0, math.inf), 2: (-1.0, 1.0), 3: (0.0, 6.0)}
"""Of ReLU, and of those between -1 or 0 and a number, by LiteRT's numbers."""


def fused(t, name, code, result):
    """A value behind the activation that the operator has fused; nothing where integers end at its bounds anyway."""
    if code == NONE:
        return name
    if code not in _BOUNDS:
        raise ValueError(f"what follows in the same step, activation {code} of LiteRT, is none that cuts off")
    low, high = _BOUNDS[code]
    grid = t.grid(result)
    if grid is not None:
        scale, point = grid
        reach = 2 ** (15 if t.type_of(result) == "INT16" else 7)
        ends = ((-reach - point) * scale, (reach - 1 - point) * scale)
        if ends[0] >= low - scale / 2 and ends[1] <= high + scale / 2:
            return name
    if grid is None and math.isinf(high):
        return t.add("Relu", [name])
    bounds = [t.array(np.float32(low)), *([] if math.isinf(high) else [t.array(np.float32(high))])]
    return t.add("Clip", [name, *bounds])


def _window(t, index, options, sizes, dilations=(1, 1)):
    """Padding and strides of a window over the image of a tensor, as attributes."""
    strides = (int(options.strideH), int(options.strideW))
    attributes = {"strides": strides}
    if options.padding != _SAME:
        return attributes
    spatial = t.shape(index)[1:3]
    if None in spatial:
        return {**attributes, "auto_pad": "SAME_UPPER"}
    total = [
        max((-(-size // stride) - 1) * stride + (window - 1) * dilation + 1 - size, 0)
        for size, window, stride, dilation in zip(spatial, sizes, strides, dilations, strict=True)
    ]
    before = [each // 2 for each in total]
    return {**attributes, "pads": [*before, *(each - half for each, half in zip(total, before, strict=True))]}


def _bias(t, inputs, position, axis=0):
    return [t.weight(inputs[position], (0,), axis)] if len(inputs) > position and inputs[position] >= 0 else []


def convolution(t, inputs, outputs, options, depthwise=False):
    """A convolution of images."""
    source, kernel = inputs[:2]
    sizes = [int(size) for size in t.graph.tensors[kernel].shape[1:3]]
    dilations = (int(options.dilationHFactor), int(options.dilationWFactor))
    groups = t.shape(source)[3] if depthwise else 1
    if not depthwise:
        groups = t.shape(source)[3] // int(t.graph.tensors[kernel].shape[3])
    weight = t.weight(kernel, (3, 0, 1, 2) if depthwise else (0, 3, 1, 2), 0)
    result = t.add(
        "Conv",
        [t.read(source, FIRST), weight, *_bias(t, inputs, 2)],
        **_window(t, source, options, sizes, dilations),
        dilations=dilations,
        group=groups,
        kernel_shape=sizes,
    )
    t.write(outputs[0], fused(t, result, options.fusedActivationFunction, outputs[0]), FIRST)


def depthwise(t, inputs, outputs, options):
    """A convolution of each channel by itself."""
    convolution(t, inputs, outputs, options, depthwise=True)


def transposed_convolution(t, inputs, outputs, options):
    """A convolution the other way."""
    _, kernel, source = inputs[:3]
    sizes = [int(size) for size in t.graph.tensors[kernel].shape[1:3]]
    strides = (int(options.strideH), int(options.strideW))
    before, after = t.shape(source)[1:3], t.shape(outputs[0])[1:3]
    if None in (*before, *after):
        raise ValueError("the size of its result is open")
    total = [
        (size - 1) * stride + window - wanted
        for size, stride, window, wanted in zip(before, strides, sizes, after, strict=True)
    ]
    pads = [max(each, 0) // 2 for each in total]
    ends = [max(each, 0) - half for each, half in zip(total, pads, strict=True)]
    weight = t.weight(kernel, (3, 0, 1, 2), 1)
    result = t.add(
        "ConvTranspose",
        [t.read(source, FIRST), weight, *_bias(t, inputs, 3)],
        strides=strides,
        pads=[*pads, *ends],
        output_padding=[max(-each, 0) for each in total],
        kernel_shape=sizes,
    )
    t.write(outputs[0], fused(t, result, getattr(options, "fusedActivationFunction", NONE), outputs[0]), FIRST)


def dense(t, inputs, outputs, options):
    """A product with a matrix of weights."""
    source, kernel = inputs[:2]
    if t.constant(kernel) is None:
        raise ValueError("its weights are not constant")
    rows = int(t.graph.tensors[kernel].shape[1])
    value, shape = t.read(source), t.shape(outputs[0])
    if len(t.shape(source)) != 2:
        value = t.add("Reshape", [value, t.integers64([-1, rows])])
    result = t.add("Gemm", [value, t.weight(kernel, (0, 1), 0), *_bias(t, inputs, 2)], transB=1)
    t.write(outputs[0], fused(t, result, options.fusedActivationFunction, outputs[0]))
    if len(shape) != 2:
        t.replace(outputs[0], t.add("Reshape", [t.read(outputs[0]), t.integers64(_open_first(shape))]))


def _open_first(shape):
    """A shape for Reshape: one size may be open."""
    if sum(size is None for size in shape) > 1:
        raise ValueError("more than one size of its result is open")
    return [-1 if size is None else size for size in shape]


def pool(kind):
    """A function that writes pooling by a kind of ONNX's."""

    def one(t, inputs, outputs, options):
        sizes = [int(options.filterHeight), int(options.filterWidth)]
        window = _window(t, inputs[0], options, sizes)
        result = t.add(kind, [t.read(inputs[0], FIRST)], kernel_shape=sizes, **window)
        t.write(outputs[0], fused(t, result, options.fusedActivationFunction, outputs[0]), FIRST)

    return one


def resize(mode):
    """A function that writes the resizing of images, by a mode of ONNX's."""

    def one(t, inputs, outputs, options):
        before, after = t.shape(inputs[0])[1:3], t.numbers(inputs[1], "size").ravel()
        if None in before:
            raise ValueError("the size of its image is open")
        way = "half_pixel" if options.halfPixelCenters else "asymmetric"
        way = "align_corners" if options.alignCorners else way
        attributes = {"mode": mode, "coordinate_transformation_mode": way}
        if mode == "nearest":
            attributes["nearest_mode"] = "floor" if way == "asymmetric" else "round_prefer_ceil"
        value = t.read(inputs[0], FIRST)
        t.write(outputs[0], t.add("Resize", [value, "", *_new_size(t, value, before, after)], **attributes), FIRST)

    return one


def _new_size(t, value, before, after):
    """By what Resize multiplies, where that gives just this size in float32; else the size itself, of all axes."""
    factors = np.array([1.0, 1.0, *(new / old for new, old in zip(after, before, strict=True))], "float32")
    products = factors[2:].astype("float64") * before, factors[2:] * np.asarray(before, "float32")
    if all(np.array_equal(np.floor(each), after) for each in products):
        return [t.array(factors, "scales")]
    sizes = t.add("Slice", [t.add("Shape", [value]), t.integers64([0]), t.integers64([2])])
    return ["", t.add("Concat", [sizes, t.integers64(after)], axis=0)]


def matrix_product(t, inputs, outputs, options):
    """A product of two tensors' last axes."""
    values = []
    for index, turned in zip(inputs, (options.adjX, options.adjY), strict=True):
        value, rank = t.read(index), len(t.shape(index))
        if turned:
            value = t.add("Transpose", [value], perm=[*range(rank - 2), rank - 1, rank - 2])
        values.append(value)
    t.write(outputs[0], t.add("MatMul", values))
