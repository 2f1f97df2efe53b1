"""Rounding biases to the 32 bits that they have in integers, after calibration and in the course of training."""

import keras
import numpy as np

from keras_mot._keras import flatten_layers
from keras_mot.graph.batch_norm import scale_and_offset
from keras_mot.graph.functional import as_functional, is_a, nodes_of
from keras_mot.layers.activation_quantizer import is_quantized
from keras_mot.layers.attaching import numpy_value, transformed_weights
from keras_mot.layers.updates import add_automatic_callback
from keras_mot.quantization.simulation.placement import WEIGHTED, quantizer_of
from keras_mot.quantization.simulation.trained_batch_norm import trained_pairs
from keras_mot.transforms import FakeQuantize
from keras_mot.transforms.fake_quantize import with_scales_for_zeros


def settle_biases(simulation):
    """Rounds each bias to the 32 bits that it has in integers: multiples of the scales of input times weight.

    Behind a layer whose batch normalization is trained, beta moves so that the bias that both come to is rounded.
    """
    batch_norms = {id(linear): batch_norm for linear, batch_norm in trained_pairs(simulation)}
    calls = {}
    for node in nodes_of(simulation):
        calls.setdefault(id(node.operation), []).append(node.arguments.keras_tensors[0])
    for layer in simulation.layers:
        batch_norm = batch_norms.get(id(layer))
        if not is_a(layer, WEIGHTED) or (not layer.use_bias and batch_norm is None):
            continue
        quantizers = {id(item): item for item in (quantizer_of(tensor) for tensor in calls[id(layer)])}
        kernels = [weight for weight in transformed_weights(layer) if weight.transform_of(FakeQuantize)]
        if len(quantizers) != 1 or None in quantizers.values() or len(kernels) != 1:
            continue  # no integers, or several grids at once
        (quantizer,) = quantizers.values()
        if not quantizer.is_settled:
            continue  # no batch seen yet, or training has diverged
        transform = kernels[0].transform_of(FakeQuantize)
        scale = transform.scales(numpy_value(kernels[0].value_before(transform)))
        variable = layer.bias if batch_norm is None else batch_norm.beta
        factors, bias = (1.0, numpy_value(layer.bias)) if batch_norm is None else scale_and_offset(batch_norm)
        scale = np.broadcast_to(scale.reshape(-1), bias.shape) * factors
        steps = np.float32(quantizer.parameters().scale) * with_scales_for_zeros(scale.astype("float32"))
        steps = steps.astype("float64")
        integers = np.round(bias.astype("float64") / steps)
        if quantizer.bits == 8:
            integers = np.clip(integers, -(2**30), 2**30)  # the rest of 32 bits is for the sum
        variable.assign(numpy_value(variable) + (integers * steps - bias))


class SettleBiases(keras.callbacks.Callback):
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
        self._settle()

    def on_epoch_end(self, epoch, logs=None):
        """Before checkpoints."""
        self._settle()

    def on_train_end(self, logs=None):
        """After the last epoch."""
        self._settle()
        self._training = False

    def _settle(self):
        if not self._training:
            return
        for part in flatten_layers(self.model):
            functional = as_functional(part)
            if functional is not None and is_quantized(part):
                settle_biases(functional)


add_automatic_callback(is_quantized, SettleBiases)
