"""Operators of LiteRT that move, cut and join values, written in ONNX."""

import numpy as np

from keras_mot.export.onnx.translation import AS_IS, FIRST
from keras_mot.export.onnx.windows import fused


def reshape(t, inputs, outputs, options):
    """The same values in another shape."""
    if len(inputs) > 1 and t.constant(inputs[1]) is None:
        sizes = t.cast(t.read(inputs[1]), "INT64")
    else:
        given = t.numbers(inputs[1], "shape").ravel() if len(inputs) > 1 else options.newShape
        sizes = t.integers64(given)
    t.write(outputs[0], t.add("Reshape", [t.read(inputs[0]), sizes]))


def transpose(t, inputs, outputs, options):
    """The same values with their axes in another order."""
    order = [int(axis) for axis in t.numbers(inputs[1], "order").ravel()]
    t.write(outputs[0], t.add("Transpose", [t.read(inputs[0])], perm=order))


def squeeze(t, inputs, outputs, options):
    """Axes of one value taken away."""
    axes = [int(axis) for axis in options.squeezeDims]
    t.write(outputs[0], t.add("Squeeze", [t.read(inputs[0]), t.integers64(axes)]))


def expand(t, inputs, outputs, options):
    """An axis of one value added."""
    axes = t.integers64(t.numbers(inputs[1], "axis").ravel())
    t.write(outputs[0], t.add("Unsqueeze", [t.read(inputs[0]), axes]))


def concatenate(t, inputs, outputs, options):
    """Several tensors along one axis."""
    axis = int(options.axis) % len(t.shape(inputs[0]))
    layout = FIRST if all(t.layout(index) == FIRST for index in inputs) else AS_IS
    along = (0, 2, 3, 1)[axis] if layout == FIRST else axis
    result = t.add("Concat", [t.read(index, layout) for index in inputs], axis=along)
    t.write(outputs[0], fused(t, result, options.fusedActivationFunction, outputs[0]), layout)


def pad(t, inputs, outputs, options):
    """A border around a tensor."""
    amounts = t.numbers(inputs[1], "padding").astype("int64")
    layout = t.layout(inputs[0])
    if layout == FIRST:
        amounts = amounts[[0, 3, 1, 2]]
    fill = [t.read(inputs[2])] if len(inputs) > 2 else []
    if fill and t.shape(inputs[2]):
        fill = [t.add("Reshape", [fill[0], t.integers64([])])]
    pads = t.integers64(amounts.T.ravel())
    mode = getattr(options, "mode", None)
    if mode not in (None, 0):
        raise ValueError("it repeats the border itself")
    attributes = {} if mode is None else {"mode": "reflect"}
    t.write(outputs[0], t.add("Pad", [t.read(inputs[0], layout), pads, *fill], **attributes), layout)


def slice_(t, inputs, outputs, options):
    """A part of a tensor, by beginning and size."""
    begin = t.numbers(inputs[1], "beginning").ravel().astype("int64")
    size = t.numbers(inputs[2], "size").ravel().astype("int64")
    end = np.where(size < 0, np.iinfo("int64").max, begin + size)
    t.write(outputs[0], t.add("Slice", [t.read(inputs[0]), t.integers64(begin), t.integers64(end)]))


def strided_slice(t, inputs, outputs, options):
    """A part of a tensor, by beginning, end and step."""
    if options.ellipsisMask or options.newAxisMask:
        raise ValueError("it adds axes to what it cuts")
    begin, end, step = (t.numbers(index, "bounds").ravel().astype("int64") for index in inputs[1:4])
    far, single = np.iinfo("int64").max, []
    for axis in range(len(begin)):
        bit = 1 << axis
        if options.shrinkAxisMask & bit:
            single.append(axis)
            end[axis], step[axis] = (far if begin[axis] == -1 else begin[axis] + 1), 1
            continue
        if options.beginMask & bit:
            begin[axis] = 0 if step[axis] > 0 else far
        if options.endMask & bit:
            end[axis] = far if step[axis] > 0 else -far
    axes = t.integers64(range(len(begin)))
    value = t.add("Slice", [t.read(inputs[0]), t.integers64(begin), t.integers64(end), axes, t.integers64(step)])
    t.write(outputs[0], t.add("Squeeze", [value, t.integers64(single)]) if single else value)


def split(t, inputs, outputs, options, sized=False):
    """A tensor in parts, of one size or of sizes that are given."""
    source, axis = (inputs[0], inputs[2]) if sized else (inputs[1], inputs[0])
    axis = int(t.numbers(axis, "axis").ravel()[0])
    if sized:
        sizes = [int(size) for size in t.numbers(inputs[1], "sizes").ravel()]
        if min(sizes) < 0:
            rest = _closed(t, source, axis) - sum(each for each in sizes if each >= 0)
            sizes = [rest if size < 0 else size for size in sizes]
    else:
        sizes = [_closed(t, source, axis) // len(outputs)] * len(outputs)
    results = t.add("Split", [t.read(source), t.integers64(sizes)], count=len(outputs), axis=axis)
    for index, result in zip(outputs, results, strict=True):
        t.write(index, result)


def _closed(t, index, axis):
    size = t.shape(index)[axis]
    if size is None:
        raise ValueError("the axis that it cuts is open")
    return size


def split_by_sizes(t, inputs, outputs, options):
    """A tensor in parts of given sizes."""
    split(t, inputs, outputs, options, sized=True)


def pack(t, inputs, outputs, options):
    """Tensors along a new axis."""
    axes = t.integers64([int(options.axis)])
    parts = [t.add("Unsqueeze", [t.read(index), axes]) for index in inputs]
    t.write(outputs[0], t.add("Concat", parts, axis=int(options.axis)))


def unpack(t, inputs, outputs, options):
    """The parts of a tensor along an axis, without it."""
    axis = int(options.axis)
    parts = t.add("Split", [t.read(inputs[0]), t.integers64([1] * len(outputs))], count=len(outputs), axis=axis)
    for index, part in zip(outputs, parts, strict=True):
        t.write(index, t.add("Squeeze", [part, t.integers64([axis])]))


def shape(t, inputs, outputs, options):
    """The sizes of a tensor."""
    t.write(outputs[0], t.cast(t.add("Shape", [t.read(inputs[0])]), t.type_of(outputs[0])))


def cast(t, inputs, outputs, options):
    """Numbers in another type; of integers on a grid, the integers themselves."""
    layout = t.layout(inputs[0])
    value = t.read(inputs[0], layout) if t.grid(inputs[0]) is None else t.raw(inputs[0])
    t.write(outputs[0], t.cast(value, t.type_of(outputs[0])), layout)


def gather(t, inputs, outputs, options):
    """Parts of a tensor, by their indices along an axis."""
    if getattr(options, "batchDims", 0):
        raise ValueError("it gathers by batches")
    # What is taken from a list lies as the indices do.
    layout = t.layout(inputs[1]) if len(t.shape(inputs[0])) == 1 else AS_IS
    parts = t.add("Gather", [t.read(inputs[0]), t.read(inputs[1], layout)], axis=int(options.axis))
    t.write(outputs[0], parts, layout)


def tile(t, inputs, outputs, options):
    """A tensor several times."""
    t.write(outputs[0], t.add("Tile", [t.read(inputs[0]), t.integers64(t.numbers(inputs[1], "repeats").ravel())]))


def broadcast(t, inputs, outputs, options):
    """A tensor in a larger shape."""
    given = t.constant(inputs[1])
    sizes = t.cast(t.read(inputs[1]), "INT64") if given is None else t.integers64(given.ravel())
    t.write(outputs[0], t.add("Expand", [t.read(inputs[0]), sizes]))


def reverse(t, inputs, outputs, options):
    """A tensor backwards along axes."""
    axes = [int(axis) for axis in t.numbers(inputs[1], "axes").ravel()]
    far = np.iinfo("int64").max
    ends = [t.integers64([value] * len(axes)) for value in (-1, -far)]
    t.write(outputs[0], t.add("Slice", [t.read(inputs[0]), *ends, t.integers64(axes), t.integers64([-1] * len(axes))]))


def space_to_batch(t, inputs, outputs, options):
    """Every so many rows and columns as a sample of its own, which is how a window with holes sees them."""
    blocks, sizes, border = _blocks(t, inputs)
    value, many = t.read(inputs[0]), len(blocks)
    if border.any():
        around = np.pad(border, ((1, len(sizes) - many), (0, 0)))
        value = t.add("Pad", [value, t.integers64(around.T.ravel())])
    counts = [(size + sum(ends)) // block for size, ends, block in zip(sizes, border, blocks, strict=False)]
    rest = sizes[many:]
    pairs = [size for pair in zip(counts, blocks, strict=True) for size in pair]
    value = t.add("Reshape", [value, t.integers64([-1, *pairs, *rest])])
    order = [*range(2, 2 * many + 1, 2), 0, *range(1, 2 * many, 2), *range(2 * many + 1, 2 * many + 1 + len(rest))]
    value = t.add("Transpose", [value], perm=order)
    t.write(outputs[0], t.add("Reshape", [value, t.integers64([-1, *counts, *rest])]))


def batch_to_space(t, inputs, outputs, options):
    """The way back from `space_to_batch`."""
    blocks, sizes, cut = _blocks(t, inputs)
    many, rest = len(blocks), sizes[len(blocks) :]
    value = t.add("Reshape", [t.read(inputs[0]), t.integers64([*blocks, -1, *sizes])])
    pairs = [axis for place in range(many) for axis in (many + 1 + place, place)]
    value = t.add("Transpose", [value], perm=[many, *pairs, *range(2 * many + 1, 2 * many + 1 + len(rest))])
    whole = [size * block for size, block in zip(sizes, blocks, strict=False)]
    value = t.add("Reshape", [value, t.integers64([-1, *whole, *rest])])
    if cut.any():
        ends = [size - after for size, (_, after) in zip(whole, cut, strict=True)]
        axes = t.integers64(range(1, many + 1))
        value = t.add("Slice", [value, t.integers64(cut[:, 0]), t.integers64(ends), axes])
    t.write(outputs[0], value)


def _blocks(t, inputs):
    """Sizes of blocks, the tensor's sizes behind the batch, and what is before and behind each axis of blocks."""
    blocks = [int(size) for size in t.numbers(inputs[1], "blocks").ravel()]
    around = t.numbers(inputs[2], "border").astype("int64").reshape(-1, 2)
    sizes = t.shape(inputs[0])[1:]
    if None in sizes:
        raise ValueError("the size of its image is open")
    return blocks, sizes, around
