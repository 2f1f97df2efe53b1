"""The export of models with dynamic ranges: a float file with marks, whose marked weights become integers."""

import dataclasses

import keras

from keras_mot._keras import calls_anywhere
from keras_mot.export.litert.dynamic.rewriting import DynamicRewriter
from keras_mot.export.litert.engines.conversion import places_of
from keras_mot.export.litert.integers.engine import carried_weight, quantized_weights
from keras_mot.export.litert.integers.finishing import drop_unused
from keras_mot.export.litert.litert_file import pack_model, parse_model
from keras_mot.graph.functional import as_functional
from keras_mot.graph.kinds import kind_of
from keras_mot.graph.origins import copy_with_origins
from keras_mot.layers import strip
from keras_mot.layers.finding import find_weights
from keras_mot.layers.transformed import plain_class, transformed_weights
from keras_mot.quantization.simulation.sources import Source, sources_of
from keras_mot.targets import target_of
from keras_mot.transforms import FakeQuantize

_ASKED = "it is left in floats, as asked"
_LOOP = "a recurrent layer has integers with a fixed number of timesteps, 256 at most, and without kept state"
_LOST = "the converter computes something into its weights, which therefore are floats"


class DynamicEngine:
    """An engine for models with dynamic ranges; `floats` lists the weights that the last conversion left in floats.

    Args:
        engine: the engine that converts the marked float model.
        strict: whether any dense layer or embedding in floats is an error.
    """

    def __init__(self, engine, strict):
        self._engine, self._strict = engine, strict
        self.floats = ()

    def __call__(self, model, signature, request):
        """Converts `model` as the `ConversionRequest` says; returns a `Conversion`."""
        plain, origins = copy_with_origins(model)
        by_layer = {(id(weight.owner), weight.key): weight for weight in quantized_weights(model)}
        copies = [(each.variable, by_layer[id(origins.of(each.owner)), each.key]) for each in quantized_weights(plain)]
        marked, stacks = [variable for variable, _ in copies], [weight for _, weight in copies]
        plain = strip(plain, inplace=True)
        request = dataclasses.replace(request, marked_weights=places_of(plain, marked))
        conversion = self._engine(plain, signature, request)
        del plain, origins, copies, marked  # their memory is wanted
        parsed = parse_model(conversion.dense)
        rewriter = DynamicRewriter(parsed, [carried_weight(weight) for weight in stacks], target_of(model))
        rewriter.run()
        drop_unused(parsed)
        self.floats = _in_floats(model, [weight for n, weight in enumerate(stacks) if n not in rewriter.found])
        if self._strict and self.floats:
            parts = "\n".join(f"  {kind} ({name}): {reason}" for kind, name, reason in self.floats)
            raise ValueError(f"`strict=True`, but not all weights of '{model.name}' are integers:\n{parts}")
        return dataclasses.replace(conversion, dense=pack_model(parsed))


def _in_floats(model, lost):
    """(class, layer, reason) of each dense layer and embedding whose weights are floats in the file."""
    sources, found = sources_of(model), {}
    owners = {id(weight.owner) for weight in lost}
    for operation in as_functional(model).operations:
        if not isinstance(operation, keras.layers.Layer):
            continue
        source = sources.get(operation.name, Source(operation.name))
        reason = _LOST if id(operation) in owners else _reason(operation, source)
        if reason is not None:
            found[source.name] = (plain_class(operation).__name__, source.name, reason)
    return tuple(found.values())


def _reason(layer, source):
    """Why a layer with weights of dense layers or embeddings has floats for them; `None` for others."""
    if any(weight.transform_of(FakeQuantize) is not None for weight in transformed_weights(layer)):
        return None
    if not any(_is_table_or_product(weight) for weight in find_weights(layer)[0]):
        return None
    if source.left:
        return _ASKED
    if source.closed is not None:
        return f"it could not be taken apart: {source.closed}"
    if isinstance(layer, keras.layers.RNN | keras.layers.Bidirectional):
        return _LOOP
    inputs = [tensor for call in calls_anywhere(layer) for tensor in call.arguments.keras_tensors]
    if any(None in tensor.shape[1:] for tensor in inputs):
        return "sizes of its inputs are open: calibration data, or a `keras.Input` of known sizes, say what they are"
    return "it has no kernel with dynamic ranges in this form"


def _is_table_or_product(weight):
    kind = kind_of(weight.owner)
    return (kind is None or kind.name in ("dense", "embedding")) and len(weight.variable.shape) > 1
