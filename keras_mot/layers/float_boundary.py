"""Where a quantized model goes from integers to floats: since its user said so, or since floats are faster."""

import contextlib
import contextvars

import keras

from keras_mot.layers.same_shape import SameShape

ASKED, FASTER, UNEVEN = "asked", "faster", "uneven"
MASKED, ANGLE, NO_KERNEL, WIDE = "masked", "angle", "no_kernel", "wide"
"""Why something is in floats: its user said so; the target computes it faster so; one scale is too coarse for it;
nothing in integers stands for what a mask leaves out; it is an angle; the target has no kernel for it; or a logarithm
reads what integers do not hold."""

_MARK = contextvars.ContextVar("float_boundary_mark", default=None)


@keras.saving.register_keras_serializable("keras_mot")
class FloatBoundary(SameShape):
    """Returns its inputs; what reads them computes in floats, in an exported file too.

    Args:
        reason: why: `ASKED`, `FASTER`, `UNEVEN`, `MASKED`, `ANGLE`, `NO_KERNEL` or `WIDE`.
        **kwargs: arguments of `keras.layers.Layer`.
    """

    def __init__(self, reason=ASKED, **kwargs):
        super().__init__(**kwargs)
        self.reason = reason

    def call(self, inputs):
        """The inputs, or what an export marks them by."""
        mark = _MARK.get()
        return inputs if mark is None else mark(inputs, self.reason)

    def get_config(self):
        """The arguments of the constructor."""
        return {**super().get_config(), "reason": self.reason}


@contextlib.contextmanager
def marked_boundaries(mark):
    """While open, `mark(inputs, reason)` takes the place of every boundary's call."""
    token = _MARK.set(mark)
    try:
        yield
    finally:
        _MARK.reset(token)
