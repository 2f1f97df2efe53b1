"""Marks by which what a quantized model says of its tensors is found again in a converted file.

The converter knows nothing of quantizers, and moves, joins and renames what it converts. Four kinds of marks go
through it unharmed, each with a number:

- an activation quantizer leaves a fake quantization, whose scale is its number, counted from 1;
- a boundary to what stays in floats leaves the same, with a number behind the last quantizer's, one for each reason;
- in a model with dynamic ranges, what stands before and behind a dense layer leaves the number 1;
- a quantized weight goes through as a constant with one value throughout, which says which weight it is.
"""

import contextlib

import keras
import numpy as np

from keras_mot.export.dependencies import require
from keras_mot.export.litert.litert_file import dense_values, enum_name, operator_codes
from keras_mot.graph.functional import as_functional
from keras_mot.layers.activation_quantizer import activation_quantizers, intercepted
from keras_mot.layers.dynamic_quantizer import dynamic_quantizers_as
from keras_mot.layers.float_boundary import ANGLE, ASKED, FASTER, MASKED, NO_KERNEL, UNEVEN, WIDE, marked_boundaries

REASONS = (ASKED, FASTER, UNEVEN, MASKED, ANGLE, NO_KERNEL, WIDE)
"""Why something is in floats, in the order of the numbers of boundaries' marks."""

_STEPS = 255.0  # of a fake quantization of 8 bits
# The marks of weights are the odd multiples of 1 / _WEIGHTS behind 2, which float32 holds exactly. What stands for
# large weights in floats lies below 2.
_WEIGHTS = 2**21

KERNELS = {
    "FULLY_CONNECTED": (1, (1, 0)),
    "CONV_2D": (1, (3, 0, 1, 2)),
    "DEPTHWISE_CONV_2D": (1, (0, 1, 2, 3)),
    "TRANSPOSE_CONV": (1, (2, 0, 1, 3)),
    "GATHER": (0, (0, 1)),
}
"""LiteRT operator -> (which input its kernel is, order in which it has the axes of the kernel in TensorFlow).

Between that kernel and the variable lie axes of length 1, and channels times their multipliers.
"""


@contextlib.contextmanager
def marked(model: keras.Model):
    """Context in which the quantizers of a model, and its boundaries to floats, leave marks."""
    import tensorflow as tf

    numbers = {id(quantizer): number for number, quantizer in enumerate(activation_quantizers(model), 1)}

    def mark(inputs, number):
        return tf.quantization.fake_quant_with_min_max_args(inputs, 0.0, _STEPS * number, num_bits=8)

    with (
        intercepted(lambda quantizer, inputs, averages: mark(inputs, numbers[id(quantizer)]), whole=True),
        dynamic_quantizers_as(lambda layer, inputs: mark(inputs, 1)),
        _scopes_of_operations(model),
        marked_boundaries(lambda inputs, reason: mark(inputs, len(numbers) + 1 + REASONS.index(reason))),
    ):
        yield


@contextlib.contextmanager
def _scopes_of_operations(model):
    """Context in which operations of `keras.ops` leave their names in the graph, as layers do by themselves."""
    import tensorflow as tf

    functional = as_functional(model)
    operations = [] if functional is None else functional.operations
    operations = [operation for operation in operations if not isinstance(operation, keras.layers.Layer)]

    def scoped(operation):
        call = operation.call

        def in_scope(*args, **kwargs):
            with tf.name_scope(operation.name):
                return call(*args, **kwargs)

        return in_scope

    for operation in operations:
        operation.call = scoped(operation)
    try:
        yield
    finally:
        for operation in operations:
            del operation.call


def number_of_mark(scale: float) -> int:
    """The number of the mark that has become a QUANTIZE with this scale."""
    return round(scale)


def mark_of_weight(number: int) -> float:
    """The value that stands for the quantized weight of this number, from 0 on."""
    return 2.0 + (2 * number + 1) / _WEIGHTS


def number_of_weight(values: np.ndarray) -> int | None:
    """The number of the weight that a constant of a file stands for; `None` if it stands for itself."""
    if values.dtype != np.float32 or not values.size:
        return None
    value = (float(values.flat[0]) - 2.0) * _WEIGHTS
    if not 0 < value < _WEIGHTS or value % 2 != 1 or not (values == values.flat[0]).all():
        return None
    return int(value) // 2


def weights_of_file(model) -> dict[int, int]:
    """The numbers of the weights whose marks are kernels in a parsed file, by the tensor's index in its first graph.

    Those that are left out have a mark that something else reads, too.
    """
    schema = require("ai_edge_litert.schema_py_generated")
    names = [enum_name(schema.BuiltinOperator, code) for code in operator_codes(model)]
    numbers, others = {}, set()
    for place, graph in enumerate(model.subgraphs):
        uses = {}
        for operator in graph.operators or []:
            for position, index in enumerate(operator.inputs if operator.inputs is not None else ()):
                uses.setdefault(int(index), set()).add((names[operator.opcodeIndex], position))
        for index, tensor in enumerate(graph.tensors):
            data = model.buffers[tensor.buffer].data
            if data is None or not len(data) or tensor.type != schema.TensorType.FLOAT32:
                continue
            number = number_of_weight(dense_values(model, tensor))
            if number is None:
                continue
            (operator, position), *more = uses.get(index, {(None, None)})
            if more or place or KERNELS.get(operator, (None,))[0] != position or operator is None:
                others.add(number)
            else:
                numbers[index] = number
    return {index: number for index, number in numbers.items() if number not in others}


def in_file_order(array: np.ndarray, operator: str, shape: tuple[int, ...]) -> np.ndarray:
    """An array of the shape of a kernel's variable, as an operator of LiteRT reads it.

    Args:
        array: the kernel, or one that was broadcast to it.
        operator: name of the operator.
        shape: of the kernel in the file.

    Raises:
        ValueError: the kernel does not have this form there.
    """
    _, order = KERNELS[operator]
    read = tuple(shape[order.index(axis)] for axis in range(len(order)))
    own = array.shape
    if operator == "DEPTHWISE_CONV_2D":  # channels and multipliers are one axis
        own = (*own[:-2], own[-2] * own[-1])
    if [length for length in own if length != 1] != [length for length in read if length != 1]:
        raise ValueError(f"A kernel of shape {array.shape} has become one of {tuple(shape)} of {operator}.")
    return array.reshape(read).transpose(order)
