"""Gradients of the loss with respect to the weights that a model computes with, those behind their masks."""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_mot.layers.transformed_weight import TransformedWeight, evaluated_once
from keras_mot.sparsity.evidence import PruningEvidence


def collect_gradients(
    model: keras.Model, weights: Sequence[TransformedWeight], needed: Sequence[str], evidence: PruningEvidence
) -> dict[int, dict[str, np.ndarray]]:
    """Means over batches of what the gradients of some weights are.

    Args:
        model: the model with the weights; it is run in inference, and nothing of it changes.
        weights: the weights.
        needed: names among `gradient`, `absolute_gradient`, `squared_gradient` and `movement`.
        evidence: the data and the loss.

    Returns:
        Dictionary from the id of each variable to a dictionary from `needed` to arrays of its shape.

    Raises:
        ValueError: if there are no labels or no loss.
    """
    loss = _loss_of(model, evidence)
    sums = {id(weight.variable): {name: 0.0 for name in _MEANS if name in needed} for weight in weights}
    if "movement" in needed:
        for each in sums.values():
            each.setdefault("gradient", 0.0)
    batches = evidence.next_batches(model)
    for inputs, labels in batches:
        if labels is None:
            raise ValueError("Criteria that go by gradients need labels: give `(x, y)` as data.")
        gradients = gradients_of(model, weights, inputs, labels, loss)
        for weight, gradient in zip(weights, gradients, strict=True):
            own = sums[id(weight.variable)]
            for name in own:
                own[name] = own[name] + _MEANS[name](gradient) / len(batches)
    if "movement" in needed:
        for weight in weights:
            key = id(weight.variable)
            step = -sums[key]["gradient"] * np.asarray(ops.convert_to_numpy(weight.variable), "float32")
            evidence.moved[key] = evidence.moved.get(key, 0.0) + step
            sums[key]["movement"] = evidence.moved[key]
    return {key: {name: values[name] for name in needed} for key, values in sums.items()}


_MEANS = {"gradient": np.asarray, "absolute_gradient": np.abs, "squared_gradient": np.square}


def _loss_of(model, evidence):
    """A function from inputs, labels and outputs to a number."""
    if evidence.loss is not None:
        return lambda x, y, outputs: ops.mean(evidence.loss(y, outputs))
    for each in (model, evidence.compiled):
        if getattr(each, "compiled", False):
            return lambda x, y, outputs: each.compute_loss(x=x, y=y, y_pred=outputs, training=False)
    raise ValueError(
        f"'{model.name}' is not compiled, and gradients need a loss: compile it, or give a loss, "
        "`prune_at_once(..., loss=...)` or `PruningEvidence(data, loss=...)`."
    )


def gradients_of(model: keras.Model, weights: Sequence[TransformedWeight], x: Any, y: Any, loss: Any) -> list:
    """The gradients of one batch: a float32 array for each weight, zero for one that the loss does not depend on."""
    x, y = (keras.tree.map_structure(ops.convert_to_tensor, each) for each in (x, y))

    def value_of(*values):
        known = {id(weight.variable): value for weight, value in zip(weights, values, strict=True)}
        # Random seeds that dropout would draw, and metrics of the loss, go nowhere.
        with evaluated_once(known):
            return loss(x, y, model(x, training=False))

    values = [weight.effective_value() for weight in weights]
    gradients = _BACKENDS[keras.backend.backend()](value_of, values)
    return [
        np.zeros(tuple(value.shape), "float32") if gradient is None else _array(gradient)
        for value, gradient in zip(values, gradients, strict=True)
    ]


def _array(gradient):
    return np.asarray(ops.convert_to_numpy(ops.cast(gradient, "float32")))


def _tensorflow(function, values):
    import tensorflow as tf

    values = [tf.convert_to_tensor(value) for value in values]
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        for value in values:
            tape.watch(value)
        result = function(*values)
    return [None if each is None else tf.convert_to_tensor(each) for each in tape.gradient(result, values)]


def _torch(function, values):
    import torch

    with torch.enable_grad():
        values = [value.detach().clone().requires_grad_(True) for value in values]
        return torch.autograd.grad(function(*values), values, allow_unused=True)


def _jax(function, values):
    import jax

    def stateless(*values):
        with keras.StatelessScope():
            return function(*values)

    return jax.grad(stateless, argnums=tuple(range(len(values))))(*values)


_BACKENDS = {"tensorflow": _tensorflow, "torch": _torch, "jax": _jax}
