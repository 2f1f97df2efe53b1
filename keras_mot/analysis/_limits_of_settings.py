"""Limits of what is set of operators: activations, windows, strides, dilations."""

import numpy as np

from keras_mot.analysis._limits import limit, listed

_SAME = 0  # of the schema's `Padding`


@limit
def no_activation(operator):
    return "it has a fused activation" if operator.option("fusedActivationFunction", 0) else None


def _dilations(operator):
    return operator.option("dilationHFactor", 1), operator.option("dilationWFactor", 1)


@limit
def no_dilation(operator):
    return None if _dilations(operator) == (1, 1) else "it is dilated"


@limit
def equal_dilation(operator):
    height, width = _dilations(operator)
    return None if height == width else f"its dilation is {height} x {width}; both should be the same"


@limit
def default_weights_format(operator):
    return "its weights are stored in another order than the usual one" if operator.option("weightsFormat", 0) else None


@limit
def no_kept_axes(operator):
    return "it keeps the axes of its input" if operator.option("keepNumDims", False) else None


def _strides_of_slice(operator):
    strides = operator.input(3)
    return None if strides is None or not strides.constant else np.ravel(strides.values())


@limit
def unit_strides(operator):
    strides = _strides_of_slice(operator)
    return None if strides is not None and (strides == 1).all() else "it takes every second element, or fewer"


@limit
def positive_strides(operator):
    strides = _strides_of_slice(operator)
    return None if strides is not None and (strides > 0).all() else "it goes backwards, or its strides are computed"


@limit
def no_ellipsis(operator):
    return "it has an ellipsis" if operator.option("ellipsisMask", 0) else None


@limit
def no_new_axis(operator):
    return "it makes a new axis" if operator.option("newAxisMask", 0) else None


@limit
def no_crops(operator):
    crops = operator.input(2)
    return None if crops.constant and not np.any(crops.values()) else "it crops its result"


@limit
def plain_corners(operator):
    if operator.option("alignCorners", False):
        return "it aligns corners"
    return "its pixels have their centers at halves" if operator.option("halfPixelCenters", False) else None


@limit
def resized_by(operator, *factors):
    (_, height, width, _), (_, new_height, new_width, _) = operator.activation.shape, operator.outputs[0].shape
    if height == width == 1 or (height, width) == (new_height, new_width):
        return None
    if operator.option("halfPixelCenters", False) and operator.name == "RESIZE_BILINEAR":
        factors = (2,)
    less = 1 if operator.option("alignCorners", False) else 0
    for old, new in ((height, new_height), (width, new_width)):
        if old == new == 1:
            continue
        if old <= less or (new - less) / (old - less) not in factors:
            sizes = f"{height} x {width} to {new_height} x {new_width}"
            return f"it resizes {sizes}; possible factors are {listed(factors)}"
    return None


def _window(operator):
    return operator.option("filterHeight", 1), operator.option("filterWidth", 1)


def _padded(operator):
    return operator.option("padding", _SAME) == _SAME


@limit
def same_window(operator, most):
    height, width = _window(operator)
    if not _padded(operator) or max(height, width) <= most:
        return None
    return f"its window is {height} x {width}, with padding; at most {most} x {most}"


@limit
def valid_window(operator, most, highest):
    height, width = _window(operator)
    if (_padded(operator) and operator.name == "AVERAGE_POOL_2D") or (height * width <= most and height <= highest):
        return None
    return f"its window is {height} x {width}; at most {highest} high, and {most:,} elements"


@limit
def integer_window(operator, most):
    height, width = _window(operator)
    if not operator.activation.integer or height * width <= most:
        return None
    return f"its window is {height} x {width}; of integers, at most {most} elements"


def _strides(operator):
    return operator.option("strideH", 1), operator.option("strideW", 1)


@limit
def stride(operator, least, most):
    strides = _strides(operator)
    if all(least <= each <= most for each in strides):
        return None
    return f"its strides are {strides[0]} x {strides[1]}; {least} to {most} are possible"


@limit
def large_stride_unpadded(operator, most):
    strides = _strides(operator)
    if max(strides) <= most or (not _padded(operator) and _dilations(operator) == (1, 1)):
        return None
    return f"its strides are {strides[0]} x {strides[1]}; more than {most} only without padding and dilation"
