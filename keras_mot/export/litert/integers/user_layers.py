"""Which of the user's layers an operator of a file belongs to, by the scopes in the names of its tensors."""

import re
from collections.abc import Iterable, Sequence

import keras

from keras_mot._keras import call_of, producer_of
from keras_mot.export.litert.integers.rewriting import BEHIND_FLOATS, NO_RANGE, FloatOperator
from keras_mot.graph.functional import as_functional
from keras_mot.layers.activation_quantizer import activation_quantizers
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
        return self._outputs.get(label) or next(filter(None, map(self._operation, label.split(";"))), None)

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
        if operator.reason == BEHIND_FLOATS and before is not None:
            what = "the layer" if before == own else f"'{before.name}'"
            return f"its input comes from what {what} computes in floats"
        if operator.reason == NO_RANGE and own is not None:
            operation = self._operations[self._made_by(operator.result)]
            if not self._target.has_kernel(operation, self._bits):
                return f"{plain_class(operation).__name__} has no integer form for the target '{self._target.name}'"
        return operator.reason


def _computing(tensor):
    """The operation that computes an output, in front of its quantizer."""
    while hasattr(producer_of(tensor), "output_name"):  # quantizers, and what gives outputs their names
        tensor = call_of(tensor).arguments.keras_tensors[0]
    return producer_of(tensor)
