"""Breaks products that are made of others down: into transpositions and a product of matrices, or into moves alone."""

import math

import keras
import numpy as np
from keras import ops

from keras_mot._keras import operation_class, producer_of
from keras_mot.graph.functional import is_a
from keras_mot.quantization.lowering.affine import rounded


def einsum(lowering, operation, operands):
    """`keras.ops.einsum` of two tensors, or of one and an array, as a product of matrices; `None` for other forms."""
    symbolic = [isinstance(each, keras.KerasTensor) for each in operands]
    if len(operands) != 2 or not any(symbolic) or (lowering.bits != 8 and not all(symbolic)):
        return None
    form = _form(operation.subscripts, operands)
    if form is None:
        return None
    first, second, result, batch, left, summed, right = form
    if not all(symbolic):
        place = symbolic.index(False)
        if operands[place].shape[0] != 1 or "float" not in str(operands[place].dtype):
            return None
        operands = [rounded(lowering, each) if number == place else each for number, each in enumerate(operands)]
    sizes = dict(zip(first + second, (*operands[0].shape, *operands[1].shape), strict=True))
    matrices = (
        _matrices(operands[0], first, (batch, left, summed), sizes),
        _matrices(operands[1], second, (batch, summed, right), sizes),
    )
    product = ops.matmul(*matrices)
    shape = [sizes[letter] for letter in batch + left + right]
    if len(left) != 1 or len(right) != 1:
        product = ops.reshape(product, (-1, *shape[1:]))
    return _transposed(product, batch + left + right, result)


def fourier(lowering, operation, x):
    """The two-dimensional Fourier transform of what is real as products with matrices of sines and cosines.

    `None` for what is complex, or of open sizes.
    """
    real, imaginary = x
    sizes = real.shape[-2:]
    if None in sizes or lowering.bits == 16 or not is_a(producer_of(imaginary), operation_class("ZerosLike")):
        return None
    angles = [np.outer(np.arange(size), np.arange(size)) * (2 * np.pi / size) for size in sizes]
    (cosines, further_cosines), (sines, further_sines) = (
        [rounded(lowering, function(each).astype("float32")) for each in angles] for function in (np.cos, np.sin)
    )
    along = [ops.matmul(real, each) for each in (further_cosines, further_sines)]
    return (
        ops.matmul(cosines, along[0]) - ops.matmul(sines, along[1]),
        (ops.matmul(cosines, along[1]) + ops.matmul(sines, along[0])) * -1.0,
    )


def patches(lowering, operation, images):
    """`keras.ops.image.extract_patches` of patches that do not overlap, by moves alone; `None` for others.

    Keras computes it as a convolution with ones and zeros.
    """
    size, strides, rate = (_pair(each) for each in (operation.size, operation.strides, operation.dilation_rate))
    if len(size) != 2 or size != strides or rate != (1, 1) or operation.data_format != "channels_last":
        return None
    if len(images.shape) != 4 or None in images.shape[1:]:
        return None
    rows, columns, channels = images.shape[1:]
    if operation.padding.lower() == "same" and (rows % size[0] or columns % size[1]):
        return None
    high, wide = rows // size[0], columns // size[1]
    if (high * size[0], wide * size[1]) != (rows, columns):
        images = images[:, : high * size[0], : wide * size[1]]
    parts = ops.reshape(images, (-1, high, size[0], wide, size[1] * channels))
    return ops.reshape(ops.transpose(parts, (0, 1, 3, 2, 4)), (-1, high, wide, math.prod(size) * channels))


def _pair(value):
    return (value, value) if isinstance(value, int) else tuple(value)


def _form(subscripts, operands):
    """The letters of the operands, of the result, and of what they mean: of the batch, rows, sums and columns."""
    subscripts = subscripts.replace(" ", "")
    if "->" not in subscripts or "." in subscripts:
        return None
    sources, result = subscripts.split("->")
    first, second = sources.split(",")
    if any(len(set(letters)) != len(letters) for letters in (first, second, result)):
        return None
    batch = "".join(letter for letter in result if letter in first and letter in second)
    summed = "".join(letter for letter in first if letter in second and letter not in result)
    left = "".join(letter for letter in result if letter in first and letter not in second)
    right = "".join(letter for letter in result if letter in second and letter not in first)
    covered = set(batch + summed + left + right)
    if set(first + second) != covered or not (batch and summed and left and right):
        return None
    # The batch, of open size, is the first axis of all.
    if {letters[0] for letters in (first, second, result)} != {batch[0]}:
        return None
    if any(None in tensor.shape[1:] for tensor in operands):
        return None
    return first, second, result, batch, left, summed, right


def _matrices(tensor, letters, groups, sizes):
    """The tensor with axes for the batch, and one each for rows and columns."""
    batch, rows, columns = groups
    tensor = _transposed(tensor, letters, batch + rows + columns)
    if len(rows) == len(columns) == 1:
        return tensor
    shape = [sizes[letter] for letter in batch[1:]]
    return ops.reshape(tensor, (-1, *shape, *(math.prod(sizes[letter] for letter in group) for group in groups[1:])))


def _transposed(tensor, letters, wanted):
    return tensor if letters == wanted else ops.transpose(tensor, [letters.index(letter) for letter in wanted])
