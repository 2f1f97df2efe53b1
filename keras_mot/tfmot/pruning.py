"""Pruning as TFMOT's scripts have it: they prune in groups what does not divide, and strip models never trained."""

from typing import Any

import keras

from keras_mot import sparsity
from keras_mot._warnings import warn
from keras_mot.layers import strip, transformed_weights
from keras_mot.tfmot.single_layers import applied_to_each
from keras_mot.transforms import Mask


def prune_low_magnitude(
    to_prune: Any,
    pruning_schedule: sparsity.PruningSchedule | None = None,
    block_size: tuple[int, int] = (1, 1),
    block_pooling_type: str = "AVG",
    pruning_policy: sparsity.PruningPolicy | None = None,
    sparsity_m_by_n: tuple[int, int] | None = None,
    **settings: Any,
) -> Any:
    """`keras_mot.sparsity.prune_low_magnitude`, which see, but for two things that are no errors.

    Weights may have inputs that do not divide into groups, and a layer nothing to prune: a copy of it is returned.

    Args:
        to_prune: a model, a layer, or a list of layers.
        pruning_schedule: a `PruningSchedule`.
        block_size: (inputs, outputs) of a block.
        block_pooling_type: `"AVG"` or `"MAX"`.
        pruning_policy: a `PruningPolicy`.
        sparsity_m_by_n: (zeros, group); a last group that is smaller is filled up with zeros.
        **settings: the other arguments.
    """
    groups = isinstance(sparsity_m_by_n, tuple | list) and len(sparsity_m_by_n) == 2
    if groups and settings.get("granularity") is None and tuple(block_size) == (1, 1):
        settings["granularity"], sparsity_m_by_n = sparsity.NofM(*sparsity_m_by_n, fill=True), None
    positional = pruning_schedule, block_size, block_pooling_type, pruning_policy, sparsity_m_by_n
    return applied_to_each(sparsity.prune_low_magnitude, to_prune, *positional, **settings)


def strip_pruning(model: keras.layers.Layer, inplace: bool = False) -> keras.layers.Layer:
    """`keras_mot.sparsity.strip_pruning`, which see, but that a model that was not pruned yet is no error.

    Args:
        model: a model or layer from `prune_low_magnitude`.
        inplace: whether to change the given model itself.
    """
    masks = [weight.transform_of(Mask) for weight in transformed_weights(model)]
    if any(masks) and all(mask is None or (mask.updated_at < 0 and not mask.zeros()) for mask in masks):
        warn(
            f"Nothing in '{model.name}' has been pruned yet: it is stripped as it was. Train it first, with `fit`, or "
            "with `update_pruning_step(model)` after every step of a custom loop."
        )
        return strip(model, inplace)
    return sparsity.strip_pruning(model, inplace)
