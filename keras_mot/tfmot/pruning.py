"""Pruning as TFMOT's guides have it: they strip models that were never trained."""

import warnings

import keras

from keras_mot import sparsity
from keras_mot.layers import strip, transformed_weights
from keras_mot.transforms import Mask


def strip_pruning(model: keras.layers.Layer, inplace: bool = False) -> keras.layers.Layer:
    """`keras_mot.sparsity.strip_pruning`, which see, but that a model that was not pruned yet is no error.

    Args:
        model: a model or layer from `prune_low_magnitude`.
        inplace: whether to change the given model itself.
    """
    masks = [weight.transform_of(Mask) for weight in transformed_weights(model)]
    if any(masks) and all(mask is None or (mask.updated_at < 0 and not mask.zeros()) for mask in masks):
        warnings.warn(
            f"Nothing in '{model.name}' has been pruned yet: it is stripped as it was. Train it first, with `fit`, or "
            "with `update_pruning_step(model)` after every step of a custom loop.",
            stacklevel=2,
        )
        return strip(model, inplace)
    return sparsity.strip_pruning(model, inplace)
