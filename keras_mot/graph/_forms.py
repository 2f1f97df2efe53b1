"""In which of its forms an operation is: conditions of the rows of the table of kinds."""

from typing import Any

import keras
import numpy as np

from keras_mot._keras import calls_anywhere

_FAR = 1e8  # what stands for minus infinity


def casts_floats(operation: Any) -> bool:
    """Whether floats are cast to floats."""
    given = [str(tensor.dtype) for call in calls_anywhere(operation) for tensor in call.arguments.keras_tensors]
    return bool(given) and all("float" in dtype for dtype in (*given, str(operation.dtype)))


def crops_only(layer: Any) -> bool:
    """Whether a `CenterCrop` gets images that are large enough; others it resizes."""
    sizes = [tensor.shape[-3:-1] for call in calls_anywhere(layer) for tensor in call.arguments.keras_tensors]
    wanted = layer.height, layer.width
    return bool(sizes) and all(
        None not in size and all(have >= want for have, want in zip(size, wanted, strict=True)) for size in sizes
    )


def resizes_by(interpolation: str, operation: Any) -> bool:
    """Whether images are resized by this interpolation alone, or cropped before, or get a border of zeros."""
    if operation.interpolation != interpolation or getattr(operation, "antialias", False):
        return False
    bordered = operation.pad_to_aspect_ratio
    return not bordered or (operation.fill_mode == "constant" and operation.fill_value == 0.0)


def pads_zeros(operation: Any) -> bool:
    """Whether a border has zeros, or copies of numbers."""
    return operation.mode != "constant" or all(value == 0 for value in _borders(operation))


def pads_least(operation: Any) -> bool:
    """Whether a border has what is less than all numbers, as before a pooling."""
    values = _borders(operation)
    return bool(values) and all(value <= -_FAR for value in values)


def _borders(operation):
    """The constants that a padding is called with."""
    found = []
    for call in calls_anywhere(operation):
        arguments = call.arguments
        value = arguments.args[1] if len(arguments.args) > 1 else arguments.kwargs.get("constant_values")
        if value is not None and not keras.utils.is_keras_tensor(value):
            found.append(float(np.max(value)))
    return found
