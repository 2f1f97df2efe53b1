"""Turns a float `.tflite` file with marks into one that computes in integers.

All operators between marked tensors for which the runtime has integer kernels get integers; the others stay as they
are, with conversions at the borders. What the integers are is known from the quantized model (see `marking`): nothing
is decided here, and nothing is read off values.
"""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from keras_mot.export.litert.integers.constants import QuantizedWeight
from keras_mot.export.litert.integers.finishing import finish
from keras_mot.export.litert.integers.moved_biases import move_biases
from keras_mot.export.litert.integers.rewriting import FloatOperator, Rewriter
from keras_mot.export.litert.litert_file import pack_model, parse_model
from keras_mot.targets import LITERT, Target
from keras_mot.transforms.grid import QuantizationParameters


@dataclasses.dataclass(frozen=True)
class IntegerFile:
    """What became of a file.

    Attributes:
        content: the bytes of the new file.
        floats: a `FloatOperator` for each operator that computes in floats.
    """

    content: bytes
    floats: tuple[FloatOperator, ...]


def to_integers(
    content: bytes,
    quantizers: Mapping[int, tuple[str, QuantizationParameters]],
    weights: Sequence[QuantizedWeight] = (),
    input_type: str = "float32",
    output_type: str = "float32",
    target: Target = LITERT,
    tables: Sequence[np.ndarray] = (),
) -> IntegerFile:
    """Makes the operators between marked tensors compute in integers.

    Args:
        content: a `.tflite` file in floats with marks.
        quantizers: name and parameters by the numbers of the marks; tensors of the file get these names.
        weights: the quantized weights by the numbers of their marks.
        input_type: "float32", or "int8", "uint8" or "int16" for a file that takes integers.
        output_type: the same for its outputs.
        target: what says how weights and biases are stored.
        tables: results for all integers by the numbers of the marks of functions of each element.

    Returns:
        An `IntegerFile`.

    Raises:
        ValueError: an input or output cannot have the type.
    """
    model = parse_model(content)
    move_biases(model)
    rewriter = Rewriter(model, quantizers, weights, target, tables)
    rewriter.run()
    finish(rewriter, input_type, output_type)
    return IntegerFile(pack_model(model), tuple(rewriter.floats))
