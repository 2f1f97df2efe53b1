"""The export of quantized models: a float file with marks from an engine, made to compute in integers."""

import dataclasses

from keras_mot._arrays import numpy_value
from keras_mot.export.litert.engines.conversion import places_of
from keras_mot.export.litert.integers.constants import QuantizedWeight
from keras_mot.export.litert.integers.integer_file import to_integers
from keras_mot.export.litert.integers.operators import check_operators
from keras_mot.export.litert.integers.static_shapes import with_static_shapes
from keras_mot.export.litert.integers.substitutes import with_substitutes
from keras_mot.export.litert.integers.tables import with_table_marks
from keras_mot.export.litert.integers.user_layers import UserLayers
from keras_mot.export.litert.marking import REASONS
from keras_mot.graph.origins import copy_with_origins
from keras_mot.layers import strip, transformed_weights
from keras_mot.layers.activation_quantizer import activation_quantizers
from keras_mot.layers.float_boundary import ANGLE, ASKED, FASTER, MASKED, NO_KERNEL, UNEVEN, WIDE
from keras_mot.targets import target_of
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
        plain, origins = copy_with_origins(model)
        by_layer = {(id(weight.owner), weight.key): weight for weight in quantized_weights(model)}
        copies = [
            (weight.variable, by_layer[id(origins.of(weight.owner)), weight.key]) for weight in quantized_weights(plain)
        ]
        marked, carried = [variable for variable, _ in copies], [carried_weight(weight) for _, weight in copies]
        plain, tables = with_table_marks(strip(plain, inplace=True), target_of(model))
        request = dataclasses.replace(request, marked_weights=places_of(plain, marked))
        conversion = self._engine(plain, signature, request)
        del plain, origins, copies, marked  # their memory is wanted
        target = target_of(model)
        quantizers = [(item.name, item.parameters()) for item in activation_quantizers(model)]
        why = {
            ASKED: "it is left in floats, as asked",
            FASTER: f"it is faster in floats on {target.name}",
            UNEVEN: "it is by default left in floats: the features of the input differ in size, and share one scale",
            MASKED: "it is a softmax with a mask, or what that reads, and no integer stands for what is left out",
            ANGLE: "it is an angle of many periods, which sine or cosine reads: integers are too coarse for it",
            NO_KERNEL: f"{target.name} has no integer kernel for it",
            WIDE: "it is by default left in floats: a logarithm reads it, and 8 bits hold too little of small numbers",
        }
        numbers = dict(enumerate([*quantizers, *((why[reason], None) for reason in REASONS)], 1))
        file = to_integers(conversion.dense, numbers, carried, *self._types, target, tables)
        layers = UserLayers(model, conversion.output_names, why[ASKED])
        self.floats = layers.explained(file.floats)
        content = with_substitutes(file.content, target)
        check_operators(content, target, layers, model.name)
        if self._strict and self.floats:
            parts = "\n".join(f"  {name} ({result}): {reason}" for name, result, reason in self.floats)
            chosen = any(reason in (why[FASTER], why[UNEVEN]) for _, _, reason in self.floats)
            way = (
                "\nQuantize it with `placement='integer'` to have in integers what is left in floats by default."
                if chosen
                else ""
            )
            if any(reason == why[WIDE] for _, _, reason in self.floats):
                way += "\nA scheme in `overrides` for the layer has in integers what its logarithm reads."
            raise ValueError(f"`strict=True`, but not all of '{model.name}' can be computed in integers:\n{parts}{way}")
        return dataclasses.replace(conversion, dense=with_static_shapes(content))


def quantized_weights(model):
    """The weights of a quantized model that are rounded, as `TransformedWeight` objects."""
    return [weight for weight in transformed_weights(model) if weight.transform_of(FakeQuantize) is not None]


def carried_weight(weight):
    """The `QuantizedWeight` of a `TransformedWeight`."""
    transform = weight.transform_of(FakeQuantize)

    # A layer of one's own may have its matrix the other way round than those that the operators of LiteRT come from.
    transposed = len(weight.variable.shape) == 2 and weight.axes.outputs == (0,)

    def integers():
        integers, scales = transform.integers(numpy_value(weight.value_before(transform)))
        return (integers.T, scales.T) if transposed else (integers, scales)

    return QuantizedWeight(transform.bits, integers, transform.block_size)
