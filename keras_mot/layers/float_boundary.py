"""Where a quantized model goes from integers to floats because its user said so."""

import contextlib
import contextvars

import keras

from keras_mot.layers.same_shape import SameShape

_MARK = contextvars.ContextVar("float_boundary_mark", default=None)


@keras.saving.register_keras_serializable("keras_mot")
class FloatBoundary(SameShape):
    """Returns its inputs; what reads them computes in floats, in an exported file too.

    Args:
        **kwargs: arguments of `keras.layers.Layer`.
    """

    def call(self, inputs):
        """The inputs, or what an export marks them by."""
        mark = _MARK.get()
        return inputs if mark is None else mark(inputs)


@contextlib.contextmanager
def marked_boundaries(mark):
    """While open, `mark(inputs)` takes the place of every boundary's call."""
    token = _MARK.set(mark)
    try:
        yield
    finally:
        _MARK.reset(token)
