"""Losses that a layer adds in its own `call`, where this is run on symbolic tensors."""

import contextlib
import contextvars

import keras

from keras_mot._keras.patches import extend

__all__ = ["counted_losses"]

_COUNTED = contextvars.ContextVar("counted_losses", default=(None, None))


@contextlib.contextmanager
def counted_losses(layer):
    """Within the block, `layer.add_loss` takes symbolic tensors, and adds nothing; yields a list of what it was given.

    Keras refuses symbolic losses, and a `call` that is run on symbolic tensors has no others.
    """
    losses = []
    token = _COUNTED.set((layer, losses))
    try:
        yield losses
    finally:
        _COUNTED.reset(token)


def _counting(add_loss):
    def counting(self, loss):
        layer, losses = _COUNTED.get()
        if self is not layer:
            return add_loss(self, loss)
        losses.append(loss)
        return None

    return counting


extend(
    keras.layers.Layer,
    "add_loss",
    _counting,
    arguments=("loss",),
    without="layers that add losses in their `call` stay in floats when their model is quantized",
)
