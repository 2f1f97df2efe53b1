"""Bias rounding: to the integers that a target stores, after calibration and in the course of training."""

import keras
import numpy as np

from keras_mot._arrays import numpy_value
from keras_mot._keras import flatten_layers
from keras_mot.graph.batch_norm import scale_and_offset
from keras_mot.graph.functional import as_functional
from keras_mot.graph.kinds import WEIGHTED, bias_of, has_role
from keras_mot.graph.model_graph import Graph
from keras_mot.layers.activation_quantizer import is_quantized
from keras_mot.layers.transformed import transformed_weights
from keras_mot.layers.updates import add_automatic_callback
from keras_mot.quantization.simulation.placement import quantizer_of
from keras_mot.quantization.simulation.trained_batch_norm import trained_pairs
from keras_mot.targets import target_of
from keras_mot.transforms import FakeQuantize
from keras_mot.transforms.grid import with_scales_for_zeros


def round_biases(simulation: keras.Model) -> None:
    """Rounds each bias to the integers that the target stores: multiples of the scales of input times weight.

    Behind a layer whose batch normalization is trained, beta moves so that the bias that both come to is rounded.

    Args:
        simulation: a flat quantized model; it is changed in place.
    """
    batch_norms = {id(linear): batch_norm for linear, batch_norm in trained_pairs(simulation)}
    graph, target = Graph(simulation), target_of(simulation)
    for layer in simulation.layers:
        batch_norm = batch_norms.get(id(layer))
        if not has_role(layer, WEIGHTED) or (bias_of(layer) is None and batch_norm is None):
            continue
        quantizers = {id(item): item for item in (quantizer_of(call.inputs[0]) for call in graph.calls_of(layer))}
        kernels = [weight for weight in transformed_weights(layer) if weight.transform_of(FakeQuantize)]
        if len(quantizers) != 1 or None in quantizers.values() or len(kernels) != 1:
            continue  # no integers, or inputs of several scales
        (quantizer,) = quantizers.values()
        if not quantizer.is_settled:
            continue  # no batch seen yet, or training has diverged
        _round_bias(layer, batch_norm, quantizer, kernels[0], target.biases[quantizer.bits])


def _round_bias(layer, batch_norm, quantizer, kernel, form):
    transform = kernel.transform_of(FakeQuantize)
    scale = transform.scales(numpy_value(kernel.value_before(transform)))
    variable = bias_of(layer) if batch_norm is None else batch_norm.beta
    factors, bias = (1.0, numpy_value(variable)) if batch_norm is None else scale_and_offset(batch_norm)
    scale = np.broadcast_to(scale.reshape(-1), bias.shape) * factors
    steps = np.float32(quantizer.parameters().scale) * with_scales_for_zeros(scale.astype("float32"))
    steps = steps.astype("float64")
    variable.assign(numpy_value(variable) + (form.integers(bias, steps) * steps - bias))


class RoundBiases(keras.callbacks.Callback):
    """Rounds the biases of a quantized model at the end of each epoch of `fit`, before what validates and saves it.

    A step of a bias is a hundredth of a step of the result or less, so that training does not feel it; but results
    near a tie are rounded as in the file then. `fit` adds it by itself.
    """

    _training = False

    def on_train_begin(self, logs=None):
        """Remembers that `fit` runs, and not `evaluate` alone."""
        self._training = True

    def on_test_begin(self, logs=None):
        """Before the validation of an epoch."""
        self._round()

    def on_epoch_end(self, epoch, logs=None):
        """Before checkpoints."""
        self._round()

    def on_train_end(self, logs=None):
        """After the last epoch."""
        self._round()
        self._training = False

    def _round(self):
        if not self._training:
            return
        for part in flatten_layers(self.model):
            functional = as_functional(part)
            if functional is not None and is_quantized(part):
                round_biases(functional)


add_automatic_callback(is_quantized, RoundBiases)
