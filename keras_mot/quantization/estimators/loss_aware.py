"""Ranges that are chosen by the loss on labelled data (as in Nahshan et al., 2021, arXiv:1911.07190)."""

import math

import keras
import numpy as np
from keras import ops

from keras_mot._arrays import to_numpy
from keras_mot._keras import no_gradients
from keras_mot.layers.activation_quantizer import activation_quantizers

_FEW = 4  # batches, which tell nothing of chance


def check_loss(passes, labelled, loss):
    """Raises an error if the loss cannot be had, before anything is done: of the float model, on the first batch."""
    received = float(batch_losses(passes, labelled[:1], loss, floats=True).mean())
    if not math.isfinite(received):
        raise ValueError(f"`loss` is {received} for the float model on the first batch of the calibration data.")


def batch_losses(passes, labelled, loss, floats=False):
    """The mean losses of a model on pairs of inputs and labels: float64 array; those that are NaN are infinite.

    Each is multiplied by how many samples its batch has, relative to the others, so that their mean is that of samples.
    """
    function = keras.losses.get(loss)
    losses = []
    with no_gradients():
        for outputs, (_, labels) in zip(passes.results([x for x, _ in labelled], floats), labelled, strict=True):
            labels = keras.tree.map_structure(_tensor, to_numpy(labels))
            outputs = keras.tree.map_structure(lambda item: ops.convert_to_tensor(item, keras.config.floatx()), outputs)
            losses.append(float(np.mean(ops.convert_to_numpy(function(labels, outputs)))))
    sizes = np.array([len(keras.tree.flatten(inputs)[0]) for inputs, _ in labelled], "float64")
    losses = np.asarray(losses, "float64")
    return np.where(np.isnan(losses), math.inf, losses) * sizes / sizes.mean()


def keep_best(model, choices, costs):
    """Calls each of some functions that set ranges, and keeps the ranges of the least mean cost.

    The first choice stays unless another one is better by more than what samples of the data differ in: ranges that
    win by a hair on labelled data lose as often on others.

    Args:
        model: a quantized model.
        choices: list of functions without arguments.
        costs: function without arguments to an array of costs, one for each batch.
    """
    quantizers = [quantizer for quantizer in activation_quantizers(model) if quantizer.fixed is None]
    start = [quantizer.state() for quantizer in quantizers]
    found = []
    for choose in choices:
        _put_back(quantizers, start)
        choose()
        found.append((np.asarray(costs(), "float64"), [quantizer.state() for quantizer in quantizers]))
    usual, kept = found[0]
    best, states = min(found, key=lambda each: each[0].mean())
    if np.isfinite(best).all() and not _within_chance(usual, best):
        kept = states
    _put_back(quantizers, kept)


def _within_chance(usual, best):
    """Whether costs may be less in the mean by chance: by no more than the standard error of the difference."""
    difference = usual - best
    if len(difference) < _FEW or not np.isfinite(difference).all():
        return False
    return difference.mean() <= difference.std(ddof=1) / math.sqrt(len(difference))


def _put_back(quantizers, states):
    for quantizer, state in zip(quantizers, states, strict=True):
        quantizer.restore(state)


def _tensor(values):
    """Labels as `fit` gives them to a loss: a tensor of this backend, floats of the usual type."""
    return ops.convert_to_tensor(values, keras.config.floatx() if values.dtype.kind == "f" else None)
