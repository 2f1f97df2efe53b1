"""Limits of shapes, and of the axes that operators work along."""

import math

import numpy as np

from keras_mot.analysis._limits import limit, listed, shown


def _positive(tensor):
    """The sizes that are more than 1; an open one is that of the batch, which `check` speaks of by itself."""
    return [size for size in tensor.shape if size > 1]


@limit
def vector_result(operator):
    result = operator.outputs[0]
    return None if len(_positive(result)) <= 1 else f"its result is {shown(result)}; one axis may be larger than 1"


@limit
def vector_input(operator):
    source = operator.activation
    return None if len(_positive(source)) <= 1 else f"its input is {shown(source)}; one axis may be larger than 1"


@limit
def inner_axes(operator, count):
    for tensor in (*operator.inputs, *operator.outputs):
        if tensor is not None and not tensor.constant and any(size > 1 for size in tensor.shape[:-count]):
            return f"a tensor is {shown(tensor)}; only the last {count} axes may be larger than 1"
    return None


@limit
def most_axes(operator, most):
    axes = operator.activation.axes
    return None if axes <= most else f"its input has {axes} axes; at most {most}"


@limit
def axes(operator, *counts):
    axes = operator.activation.axes
    return None if axes in counts else f"its input has {axes} axes; expected {listed(counts)}"


@limit
def most_elements(operator, most):
    count = math.prod(abs(size) for size in operator.activation.shape)
    return None if count <= most else f"its input has {count:,} elements; at most {most:,}"


@limit
def most_channels(operator, most):
    size = operator.activation.shape[-1]
    return None if size <= most else f"its input has {size} channels; at most {most}"


@limit
def most_rows(operator, most):
    count = math.prod(abs(size) for size in operator.activation.shape[1:-1])
    return None if count <= most else f"its input has {count:,} positions; at most {most:,}"


@limit
def batch(operator, size):
    source = operator.activation
    if source is None or source.axes < 4 or source.shape[0] == size:  # with fewer axes, the first one is no batch there
        return None
    return f"the first axis of its input is {shown(source)}; {size} is expected there"


def _reduced(operator):
    """The axes that an operator reduces, counted from the first; `None` if they are not known."""
    tensor, axes = operator.input(1), operator.activation.axes
    if tensor is None or not tensor.constant:
        return None
    return sorted({int(axis) % axes for axis in np.ravel(tensor.values())})


@limit
def not_over_batch(operator):
    axes = _reduced(operator)
    if axes is None:
        return "the axes that it reduces are computed"
    return "it reduces the batch" if 0 in axes and operator.activation.axes > 1 else None


@limit
def depth_multiple_if_reduced(operator, factor):
    axes, source = _reduced(operator), operator.activation
    if axes is None or source.axes - 1 not in axes or source.shape[-1] % factor == 0:
        return None
    return f"it reduces {source.shape[-1]} channels; a multiple of {factor} is demanded"


@limit
def longest_reduced(operator, most):
    axes, source = _reduced(operator), operator.activation
    longest = max((source.shape[axis] for axis in axes or ()), default=0)
    return None if longest <= most else f"it reduces an axis of {longest:,}; at most {most:,}"


@limit
def not_a_scalar(operator):
    return None if operator.outputs[0].axes else "its result is a scalar"


@limit
def not_along(operator, axis):
    own, axes = operator.option("axis", 0), operator.outputs[0].axes
    if own % axes != axis % axes:
        return None
    return f"it works along the {'batch' if axis == 0 else 'last axis'}"


@limit
def along_last_axis(operator):
    axes = _reduced(operator)
    return None if axes == [operator.activation.axes - 1] else "it works along another axis than the last one"


@limit
def along_batch_axes(operator):
    axis, batch = operator.option("axis", 0), operator.option("batchDims", 0)
    return None if axis == batch else f"it gathers along axis {axis} with {batch} batch axes; both should be the same"


@limit
def not_split_over_batch(operator):
    axis = operator.inputs[0]
    if not axis.constant:
        return "the axis that it splits is computed"
    return "it splits the batch" if int(np.ravel(axis.values())[0]) % operator.inputs[1].axes == 0 else None


@limit
def batch_unpadded(operator):
    padding = operator.input(1)
    if not padding.constant:
        return "its padding is computed"
    return "it pads the batch" if np.any(padding.values()[0]) else None


@limit
def slope_of_last_axis(operator):
    slope = operator.input(1)
    if all(size == 1 for size in slope.shape[:-1]):
        return None
    return f"its slopes are {shown(slope)}; only the last axis may be larger than 1 (Keras: `shared_axes=[1, 2]`)"


@limit
def equal_shapes(operator, first, second):
    one, other = operator.input(first), operator.input(second)
    if one.shape == other.shape:
        return None
    return f"its inputs are {shown(one)} and {shown(other)}; equal ones are demanded"


@limit
def square(operator):
    shape = operator.outputs[0].shape
    return None if shape[1] == shape[2] else f"its result is {shown(operator.outputs[0])}; it should be square"
