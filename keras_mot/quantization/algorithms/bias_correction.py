"""Bias correction: rounding shifts the mean of a layer's outputs, and the bias takes the shift back."""

import contextlib
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_mot._arrays import numpy_value
from keras_mot._keras import no_gradients
from keras_mot.graph.kinds import WEIGHTED, bias_of, has_role
from keras_mot.graph.model_graph import Graph
from keras_mot.quantization.estimators.calibrating import in_floats
from keras_mot.second_order import freeing


def correct_biases(model: keras.Model, batch: Any) -> int:
    """Moves biases so that the mean of each channel of each layer is what it is in floats, in place.

    The means are those of the outputs before the activation function. Layers are corrected in the order of the graph,
    each with those before it rounded and corrected (Nagel et al., 2019, "Data-Free Quantization Through Weight
    Equalization and Bias Correction", arXiv:1906.04721, section 4.2 and appendix D). It takes two runs of the model.

    Args:
        model: a quantized functional model whose activation quantizers have ranges.
        batch: inputs as the model takes them; some dozen samples.

    Returns:
        How many layers have been corrected: those with a bias that are called once.
    """
    graph = Graph(model)
    chosen = [layer for layer in model.layers if _has_bias(layer) and len(graph.calls_of(layer)) == 1]
    expected = {}

    def note(layer, outputs):
        expected[id(layer)] = _means(layer, outputs)
        return outputs

    def correct(layer, outputs):
        shift = expected[id(layer)] - _means(layer, outputs)
        bias = bias_of(layer)
        bias.assign(numpy_value(bias) + shift)
        return outputs + ops.convert_to_tensor(_in_channels(layer, shift, outputs), outputs.dtype)

    run = freeing(model)
    with in_floats(model), _before_activation(chosen, note):
        run(batch)
    with no_gradients(), _before_activation(chosen, correct):
        run(batch)
    return len(expected)


def _has_bias(layer):
    """Whether a layer adds a bias to its sums, and calls an activation on that."""
    return has_role(layer, WEIGHTED) and bias_of(layer) is not None and hasattr(layer, "activation")


@contextlib.contextmanager
def _before_activation(chosen, function):
    """Context in which `function(layer, outputs)` sees, and may change, what each layer passes to its activation."""
    before = [layer.activation for layer in chosen]

    def hook(layer, activation):
        return lambda outputs: activation(function(layer, outputs))

    for layer, activation in zip(chosen, before, strict=True):
        layer.activation = hook(layer, activation)
    try:
        yield
    finally:
        for layer, activation in zip(chosen, before, strict=True):
            layer.activation = activation


def _channel_axis(layer, outputs):
    return 1 if getattr(layer, "data_format", "channels_last") == "channels_first" else len(outputs.shape) - 1


def _means(layer, outputs):
    axis = _channel_axis(layer, outputs)
    values = np.asarray(ops.convert_to_numpy(ops.cast(outputs, "float32")))
    return values.mean(axis=tuple(other for other in range(values.ndim) if other != axis), dtype="float64")


def _in_channels(layer, shift, outputs):
    axis = _channel_axis(layer, outputs)
    return shift.reshape([-1 if other == axis else 1 for other in range(len(outputs.shape))])
