"""The places of largest and smallest numbers, as a converter can take them."""

import contextlib
import contextvars
import functools

__all__ = ["plain_places"]

_PLAIN = contextvars.ContextVar("plain_places", default=False)


@contextlib.contextmanager
def plain_places():
    """Context in which `keras.ops.argmax` and `argmin` are TensorFlow's own on the TensorFlow backend.

    Keras tells -0.0 from 0.0 there, by operations on the bits of floats that no runtime has. Other threads go on with
    Keras's functions.
    """
    import tensorflow as tf
    from keras.src.backend.tensorflow import numpy as functions

    for name in ("argmax", "argmin"):
        keras_own = getattr(functions, name)
        if not hasattr(keras_own, "_keras_mot"):
            setattr(functions, name, _either(keras_own, getattr(tf, name)))
    token = _PLAIN.set(True)
    try:
        yield
    finally:
        _PLAIN.reset(token)


def _either(keras_own, plain):
    """Keras's function, which is TensorFlow's in the context."""
    import tensorflow as tf

    @functools.wraps(keras_own)
    def places(x, axis=None, keepdims=False):
        if not _PLAIN.get():
            return keras_own(x, axis=axis, keepdims=keepdims)
        x = tf.convert_to_tensor(x)
        found = plain(tf.reshape(x, [-1]) if axis is None else x, axis=axis or 0, output_type="int32")
        if not keepdims:
            return found
        return tf.reshape(found, [1] * len(x.shape)) if axis is None else tf.expand_dims(found, axis)

    places._keras_mot = True
    return places
