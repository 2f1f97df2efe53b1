"""Breaks down activations that no runtime has a kernel for, as layers and as operations alike."""

from keras import layers, ops


def silu(lowering, operation, inputs=None, x=None):
    """x * sigmoid(x); layers call their argument `inputs`, operations `x`."""
    inputs = x if inputs is None else inputs
    name = operation.name
    gate = lowering.make(operation, "sigmoid", lambda: layers.Activation("sigmoid", name=f"{name}_sigmoid"))
    return _gated(lowering, operation, inputs, gate(inputs))


def hard_sigmoid(lowering, operation, inputs=None, x=None):
    """relu6(x + 3) / 6."""
    inputs = x if inputs is None else inputs
    relu6 = lowering.make(operation, "relu6", lambda: layers.ReLU(6.0, name=f"{operation.name}_relu6"))
    return relu6(inputs + 3.0) * (1.0 / 6.0)


def hard_silu(lowering, operation, inputs=None, x=None):
    """x * hard_sigmoid(x)."""
    inputs = x if inputs is None else inputs
    return _gated(lowering, operation, inputs, hard_sigmoid(lowering, operation, inputs))


def hard_tanh(lowering, operation, inputs=None, x=None):
    """x, cut off at -1 and 1."""
    return ops.clip(x if inputs is None else inputs, -1.0, 1.0)


def relu_form(lowering, layer, inputs):
    """A ReLU with a greatest number of its own, cut off there; `None` for one with a threshold as well, or a slope."""
    if layer.threshold or layer.negative_slope:
        return None
    return ops.clip(inputs, 0.0, float(layer.max_value))


def _gated(lowering, operation, inputs, gate):
    multiply = lowering.make(operation, "gated", lambda: layers.Multiply(name=f"{operation.name}_gated"))
    return multiply([inputs, gate])
