"""The places of largest and smallest numbers, as a converter can take them."""

import contextlib

__all__ = ["plain_places"]


@contextlib.contextmanager
def plain_places():
    """Context in which `keras.ops.argmax` and `argmin` are TensorFlow's own on the TensorFlow backend.

    Keras tells -0.0 from 0.0 there, by operations on the bits of floats that no runtime has.
    """
    import tensorflow as tf
    from keras.src.backend.tensorflow import numpy as functions

    plain = functions.argmax, functions.argmin

    def of(function):
        def places(x, axis=None, keepdims=False):
            x = tf.convert_to_tensor(x)
            found = function(tf.reshape(x, [-1]) if axis is None else x, axis=axis or 0, output_type="int32")
            if not keepdims:
                return found
            return tf.reshape(found, [1] * len(x.shape)) if axis is None else tf.expand_dims(found, axis)

        return places

    functions.argmax, functions.argmin = of(tf.argmax), of(tf.argmin)
    try:
        yield
    finally:
        functions.argmax, functions.argmin = plain
