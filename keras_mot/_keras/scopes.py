"""In what surroundings code runs: traced or eager, with gradients or without."""

import contextlib

import keras
from keras.src.backend.common import global_state
from keras.src.backend.common.stateless_scope import in_stateless_scope
from keras.src.backend.common.variables import AutocastScope

__all__ = ["AutocastScope", "is_eager", "is_training", "no_gradients"]


def is_eager():
    """Whether the values of variables can be read now: not while a function is traced or compiled."""
    if in_stateless_scope():
        return False
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        return tf.executing_eagerly()
    return True


def no_gradients():
    """Context in which PyTorch does not keep what gradients would need."""
    if keras.backend.backend() != "torch":
        return contextlib.nullcontext()
    import torch

    return torch.no_grad()


def is_training():
    """Whether the layer that is being called now is called for training."""
    context = global_state.get_global_attribute("current_call_ctx")
    return bool(getattr(context, "training", None))
