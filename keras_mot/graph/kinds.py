"""What an operation is, for layers and `keras.ops` alike."""

import keras
from keras import activations, layers

from keras_mot.graph.functional import is_a, kind_of

# What runtimes compute within the operation before it.
FUSED_ACTIVATIONS = ("relu", "relu6")

ACTIVATION_FUNCTIONS = {
    activations.linear: "linear",
    activations.relu: "relu",
    activations.relu6: "relu6",
    activations.sigmoid: "sigmoid",
    activations.tanh: "tanh",
    activations.softmax: "softmax",
    activations.silu: "silu",
    activations.hard_silu: "hard_silu",
    activations.hard_sigmoid: "hard_sigmoid",
    activations.gelu: "gelu",
    activations.elu: "elu",
    activations.leaky_relu: "leaky_relu",
}
_OPERATIONS = {
    "Relu": "relu",
    "Relu6": "relu6",
    "Sigmoid": "sigmoid",
    "Tanh": "tanh",
    "Softmax": "softmax",
    "Silu": "silu",
    "HardSilu": "hard_silu",
    "HardSigmoid": "hard_sigmoid",
    "Gelu": "gelu",
    "Elu": "elu",
    "LeakyRelu": "leaky_relu",
}


def activation_of(operation):
    """The name of the activation that a layer or operation computes and nothing else, or `None`."""
    if is_a(operation, layers.ReLU):
        if operation.negative_slope or operation.threshold:
            return "leaky_relu" if operation.max_value is None and not operation.threshold else None
        return {None: "relu", 6: "relu6"}.get(operation.max_value)
    if is_a(operation, layers.Activation):
        return ACTIVATION_FUNCTIONS.get(operation.activation)
    known = ((layers.Softmax, "softmax"), (layers.LeakyReLU, "leaky_relu"), (layers.ELU, "elu"))
    for kind, name in known:
        if is_a(operation, kind):
            return name
    if isinstance(operation, keras.layers.Layer):
        return None
    return _OPERATIONS.get(kind_of(operation))
