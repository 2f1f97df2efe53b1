"""Ranges that are chosen by the loss on labelled data (as in Nahshan et al., 2021, arXiv:1911.07190)."""

import math

import keras
import numpy as np
from keras import ops

from keras_mot._arrays import to_numpy
from keras_mot._keras import no_gradients
from keras_mot.layers.activation_quantizer import activation_quantizers
from keras_mot.layers.transformed_weight import evaluated_once
from keras_mot.quantization.estimators.calibrating import in_floats


def check_loss(model, labelled, loss):
    """Raises an error if the loss cannot be had, before anything is done: of the float model, on the first batch."""
    with in_floats(model):
        received = mean_loss(model, labelled[:1], loss)
    if not math.isfinite(received):
        raise ValueError(f"`loss` is {received} for the float model on the first batch of the calibration data.")


def mean_loss(model, labelled, loss):
    """The mean loss of a model over pairs of inputs and labels; infinite, if it is NaN."""
    function = keras.losses.get(loss)
    total = count = 0.0
    with evaluated_once(), no_gradients():
        for inputs, labels in labelled:
            labels = keras.tree.map_structure(_tensor, to_numpy(labels))
            received = ops.convert_to_numpy(function(labels, model(inputs, training=False)))
            size = len(keras.tree.flatten(inputs)[0])
            total, count = total + size * float(np.mean(received)), count + size
    return math.inf if math.isnan(total) else total / count


def keep_best(model, choices, cost):
    """Calls each of some functions that set ranges, and keeps the ranges for which `cost()` is least."""
    quantizers = [quantizer for quantizer in activation_quantizers(model) if quantizer.fixed is None]
    start, best, kept = [quantizer.state() for quantizer in quantizers], math.inf, None

    def put_back(states):
        for quantizer, state in zip(quantizers, states, strict=True):
            quantizer.restore(state)

    for choose in choices:
        put_back(start)
        choose()
        received = cost()
        if kept is None or received < best:
            best, kept = received, [quantizer.state() for quantizer in quantizers]
    put_back(kept)


def _tensor(values):
    """Labels as `fit` gives them to a loss: a tensor of this backend, floats of the usual type."""
    return ops.convert_to_tensor(values, keras.config.floatx() if values.dtype.kind == "f" else None)
