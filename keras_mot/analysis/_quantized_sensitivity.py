"""What each rounded weight and activation of a quantized model does alone."""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from keras_mot.analysis._output_loss import decibels, make_measure
from keras_mot.analysis.sensitivity_report import Sensitivity, SensitivityRow
from keras_mot.graph.model_graph import Graph
from keras_mot.layers import transformed_weights
from keras_mot.quantization import Calibration, QuantizationScheme, quantize_post_training
from keras_mot.quantization.estimators.passes import Passes
from keras_mot.quantization.simulation.sources import sources_of
from keras_mot.transforms import FakeQuantize


def quantized_rows(model: keras.Model, batches: Sequence[Any], labels: Any, loss: Any) -> Sensitivity:
    """The `Sensitivity` of a quantized model: each of its weights and activations rounded alone, and nothing else.

    Args:
        model: a quantized model.
        batches: list of inputs.
        labels: of these, or `None`.
        loss: as of `sensitivity`.
    """
    runs = _PassRuns(model, batches, labels, loss)
    rows = [*runs.weight_rows(), *runs.activation_rows()]
    count = sum(len(keras.tree.flatten(batch)[0]) for batch in batches)
    return Sensitivity(tuple(rows), runs.measure, count)


def activation_rows(model: keras.Model, bits: int, batches: Sequence[Any], labels: Any, loss: Any) -> list:
    """The rows of the activations of a float model, rounded to integers of some bits in the ranges that they take."""
    calibration = Calibration(list(batches), correct_biases=False, equalize=False, progress=False)
    scheme = QuantizationScheme(activation_bits=bits)
    quantized = quantize_post_training(model, scheme, calibration)
    return _PassRuns(quantized, batches, labels, loss).activation_rows()


class _PassRuns:
    """The runs of a quantized model, compiled once."""

    def __init__(self, model, batches, labels, loss):
        self._model, self._passes, self._batches = model, Passes(model), list(batches)
        self._graph, self._sources = Graph(model), sources_of(model)
        self._expected = self._outputs(rounding=(), floats=True)
        self.measure, self._loss_of = make_measure(self._expected, loss, labels)

    def weight_rows(self):
        """A row for each rounded weight."""
        found, rows = transformed_weights(self._model), []
        weights = [weight for weight in found if weight.transform_of(FakeQuantize) is not None]
        names = [self._name(weight.owner) for weight in weights]
        for weight, name in zip(weights, names, strict=True):
            received = self._outputs(rounding=(), floats=[other for other in weights if other is not weight])
            bits, size = weight.transform_of(FakeQuantize).bits, int(np.prod(weight.variable.shape))
            saved = size * 4 - -(-size * bits // 8)
            kernel = weight.owner.name if names.count(name) > 1 else ""  # of steps that a layer was broken down into
            rows.append(self._row(name, "weight_bits", bits, received, size, saved, kernel))
        return rows

    def activation_rows(self):
        """A row for each activation that is rounded; those of one layer of the user's are rounded together."""
        places = {}
        for quantizer in self._passes.quantizers:
            for call in self._graph.calls_of(quantizer)[:1]:
                made = self._graph.producer(call.inputs[0])
                name = call.inputs[0].name if made is None else self._name(made.operation)
                places.setdefault((name, quantizer.bits), []).append(quantizer)
        return [
            self._row(name, "activation_bits", bits, self._outputs(rounding=found, floats=True), 0, 0)
            for (name, bits), found in places.items()
        ]

    def _row(self, layer, technique, setting, received, parameters, saved, kernel=""):
        loss, decibel = self._loss_of(received), decibels(self._expected, received)
        return SensitivityRow(layer, technique, setting, loss, decibel, None, parameters, saved, kernel=kernel)

    def _name(self, operation):
        source = self._sources.get(operation.name)
        return operation.name if source is None else source.name

    def _outputs(self, **rounding):
        flat, count = self._passes.outputs(self._batches, **rounding), len(self._graph.outputs)
        return [np.concatenate(flat[number::count]) for number in range(count)]
