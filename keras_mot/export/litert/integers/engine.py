"""The export of quantized models: a float file with marks from an engine, made to compute in integers."""

import dataclasses

import numpy as np

from keras_mot.export.litert.integers.integer_file import to_integers
from keras_mot.layers import strip, transformed_weights
from keras_mot.layers.activation_quantizer import activation_quantizers
from keras_mot.layers.attaching import numpy_value
from keras_mot.layers.copying import copy_model
from keras_mot.transforms import FakeQuantize


class IntegerEngine:
    """An engine for quantized models; `floats` lists what the last conversion left in floats.

    Args:
        engine: the engine that converts the marked float model.
        input_type: type of the file's inputs.
        output_type: type of its outputs.
        strict: whether anything in floats is an error.
    """

    def __init__(self, engine, input_type, output_type, strict):
        self._engine, self._types, self._strict = engine, (input_type, output_type), strict
        self.floats = ()

    def __call__(self, model, signature, request):
        """Converts `model` as the `ConversionRequest` says; returns a `Conversion`."""
        grids = {}
        for weight in transformed_weights(model):
            _add_grids(grids, weight)
        plain = strip(copy_model(model))
        quantizers = dict(enumerate(((item.name, item.parameters()) for item in activation_quantizers(model)), 1))
        conversion = self._engine(plain, signature, request)
        del plain  # its memory is wanted
        file = to_integers(conversion.dense, quantizers, grids, *self._types)
        self.floats = file.floats
        if self._strict and self.floats:
            parts = "\n".join(f"  {name} ({result}): {reason}" for name, result, reason in self.floats)
            raise ValueError(f"`strict=True`, but not all of '{model.name}' can be computed in integers:\n{parts}")
        return dataclasses.replace(conversion, dense=file.content)


def _add_grids(grids, weight):
    """Adds the largest integer of each slice of a quantized weight, by the number that it stands for.

    A slice need not use the last integer: not where a scale is learned, or follows the whole weight.
    """
    transform = weight.transform_of(FakeQuantize)
    if transform is None:
        return
    integers, scale = transform.integers(numpy_value(weight.value_before(transform)))
    axes = tuple(axis for axis, length in enumerate(scale.shape) if length == 1)
    largest = np.abs(integers).max(axis=axes, keepdims=True)
    for number, integer in zip((largest.astype("float32") * scale).reshape(-1), largest.reshape(-1), strict=True):
        if integer:
            grids.setdefault(float(number), set()).add(int(integer))
