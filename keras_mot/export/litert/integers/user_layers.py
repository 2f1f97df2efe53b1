"""Which of the user's layers an operator of a file belongs to, by the scopes in the names of its tensors."""

import re
from collections.abc import Iterable, Sequence

import keras

from keras_mot._keras import call_of, calls_anywhere, producer_of
from keras_mot.export.litert.integers.rewriting import BEHIND_FLOATS, NO_RANGE, FloatOperator
from keras_mot.export.litert.integers.rules import LOOP
from keras_mot.graph.functional import as_functional
from keras_mot.layers.activation_quantizer import ActivationQuantizer, activation_quantizers
from keras_mot.layers.transformed import plain_class
from keras_mot.quantization.simulation.sources import Source, sources_of
from keras_mot.targets import target_of


class UserLayers:
    """Looks up layers by names of tensors.

    Args:
        model: the quantized model.
        output_names: the names of the file's outputs, in the order of the model's.
        asked: why what the user leaves in floats is in floats.
    """

    def __init__(self, model: keras.Model, output_names: Sequence[str], asked: str):
        self._asked = asked
        functional, self._sources = as_functional(model), sources_of(model)
        self._bits = max((quantizer.bits for quantizer in activation_quantizers(model)), default=8)
        self._target = target_of(model)
        self._operations = {operation.name: operation for operation in functional.operations}
        layers = [operation for operation in functional.operations if isinstance(operation, keras.layers.Layer)]
        self._layers = {layer.name for layer in layers}
        self._others = {operation.name for operation in functional.operations} - self._layers
        self._outputs = {}
        for name, tensor in zip(output_names, functional.outputs, strict=False):
            self._outputs[name] = _computing(tensor).name

    def of(self, label: str) -> Source | None:
        """The layer, or operation, that a tensor of this name comes from, or `None`."""
        name = self._made_by(label)
        return None if name is None else self._sources.get(name, Source(name))

    def _made_by(self, label):
        """The name of the operation of the quantized model that a tensor of this name comes from, or `None`."""
        known = self._outputs.get(label) or self._before_quantizer(label)
        return known or next(filter(None, map(self._operation, label.split(";"))), None)

    def _before_quantizer(self, label):
        """The name of the operation whose results the quantizer of this name rounds, or `None`."""
        quantizer = self._operations.get(label.split(":")[0])
        if not isinstance(quantizer, ActivationQuantizer):
            return None
        tensors = [tensor for node in calls_anywhere(quantizer) for tensor in node.arguments.keras_tensors]
        return _computing(tensors[0]).name if tensors else None

    def _operation(self, label):
        """The name of the operation in whose scope something stands; that of the outermost one."""
        for part in label.split("/")[:-1]:
            bare = re.sub(r"_\d+$", "", part)  # TensorFlow numbers the scopes of layers
            for name, known in ((part, self._others), (bare, self._layers), (part, self._layers), (bare, self._others)):
                if name in known:
                    return name
        return None

    def explained(self, operators: Iterable[FloatOperator]) -> tuple[tuple[str, str, str], ...]:
        """(operator, layer, reason) of each operator that stayed in floats, with the user's layers."""
        return tuple((each.operator, self._name(each.result), self._reason(each)) for each in operators)

    def _name(self, label):
        source = self.of(label)
        return label if source is None else source.name

    def _reason(self, operator):
        own, before = self.of(operator.result), None if operator.source is None else self.of(operator.source)
        if own is not None and own.left:
            return self._asked
        within = before is not None and before == own
        if own is not None and not within and operator.reason in (BEHIND_FLOATS, NO_RANGE, LOOP):
            operation = self._operations[self._made_by(operator.result)]
            reason = self._of_operation(operation, own, operator.reason, before)
            if reason is not None:
                return reason
        if operator.reason == BEHIND_FLOATS and before is not None:
            what = "the layer" if within else f"'{before.name}'"
            return f"its input comes from what {what} computes in floats"
        return operator.reason

    def _of_operation(self, operation, source, reason, before):
        """Why an operation of the quantized model has no integer form, where nothing else is known of it.

        Args:
            operation: the operation.
            source: its `Source`.
            reason: the reason that the operator has by itself.
            before: the `Source` of an input in floats, if it is another one, or `None`.
        """
        if source.closed is not None:
            return f"{plain_class(operation).__name__} could not be taken apart: {source.closed}"
        if isinstance(operation, keras.layers.RNN | keras.layers.Wrapper) and reason == LOOP:
            return None
        if self._target.has_kernel(operation, self._bits):
            return None
        name = f"{plain_class(operation).__name__} has no integer form for the target '{self._target.name}'"
        if getattr(operation, "data_format", None) == "channels_first":
            return f"{name} with channels first: build the model with `data_format='channels_last'`"
        if before is not None:
            return None
        return f"{name}, which has no kernel for loops" if reason == LOOP else name


def _computing(tensor):
    """The operation that computes an output, in front of its quantizer."""
    while hasattr(producer_of(tensor), "output_name"):  # quantizers, and what gives outputs their names
        tensor = call_of(tensor).arguments.keras_tensors[0]
    return producer_of(tensor)
