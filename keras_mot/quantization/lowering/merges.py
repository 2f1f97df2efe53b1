"""Breaks down sums, products and the like: into such of two, or of a constant."""

import keras
import numpy as np
from keras import layers, ops

from keras_mot.quantization.lowering import affine


def add(lowering, layer, inputs):
    """A sum of many, or with a constant; `None` for one of two tensors."""
    if _has_constant(inputs):
        return affine.add(lowering, layer, *inputs)
    return chain(lowering, layer, inputs)


def multiply(lowering, layer, inputs):
    """A product of many, or with a constant; `None` for one of two tensors."""
    if _has_constant(inputs):
        return affine.multiply(lowering, layer, *inputs)
    return chain(lowering, layer, inputs)


def _has_constant(inputs):
    return len(inputs) == 2 and not all(keras.utils.is_keras_tensor(part) for part in inputs)


def chain(lowering, layer, inputs):
    """Of many, a chain of two each; `None` for two."""
    if len(inputs) < 3:
        return None
    total = inputs[0]
    for number, term in enumerate(inputs[1:-1]):
        step = lowering.make(layer, number, lambda number=number: type(layer)(name=f"{layer.name}_{number}"))
        total = step([total, term])
    return lowering.make(layer, "last", lambda: type(layer)(name=layer.name))([total, inputs[-1]])


def average(lowering, layer, inputs):
    """An average as a sum and a product."""
    add = lowering.make(layer, "sum", lambda: layers.Add(name=f"{layer.name}_sum"))
    return lowering.steps(add, inputs) * (1.0 / len(inputs))


def matmul(lowering, operation, x1, x2):
    """A product with a constant matrix, rounded as a weight is; `None` for one of two tensors."""
    constants = [part for part in (x1, x2) if not keras.utils.is_keras_tensor(part)]
    if len(constants) != 1 or lowering.bits != 8 or "float" not in str(getattr(constants[0], "dtype", "float32")):
        return None
    return ops.matmul(*(affine.rounded(lowering, part) if part is constants[0] else part for part in (x1, x2)))


def power(lowering, operation, x1, x2):
    """A square as a product, and a power of 1 as nothing; `None` for others."""
    if keras.utils.is_keras_tensor(x2) or np.size(x2) != 1:
        return None
    exponent = float(np.max(ops.convert_to_numpy(x2)))
    return {1.0: lambda: x1, 2.0: lambda: x1 * x1}.get(exponent, lambda: None)()


def glu(lowering, operation, x):
    """One half of the channels, gated by the sigmoid of the other."""
    first, second = ops.split(x, 2, axis=operation.axis)
    return first * ops.sigmoid(second)


def square(lowering, operation, x):
    """A square as a product."""
    return x * x


def negative(lowering, operation, x):
    """The negative as a product."""
    return x * -1.0
