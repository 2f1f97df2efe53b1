"""A bound on the weights that layers may create, see `Layer.add_weight`."""

import contextlib
import contextvars
import math

import keras

from keras_mot._keras.patches import extend

_VALUES_LEFT = contextvars.ContextVar("values_left", default=None)


@contextlib.contextmanager
def bounded_weights(most):
    """Within the block, layers that together make more than `most` values raise a ValueError.

    A configuration of a few bytes can ask for weights that no memory holds; they would be made before the file's own
    weights are looked at. Layers of other threads are not counted.
    """
    token = _VALUES_LEFT.set([most])
    try:
        yield
    finally:
        _VALUES_LEFT.reset(token)


def _bounded(add_weight):
    def bounded(self, *args, **kwargs):
        left = _VALUES_LEFT.get()
        if left is not None:
            shape = args[0] if args else kwargs.get("shape")
            left[0] -= math.prod(() if shape is None else (shape,) if isinstance(shape, int) else shape)
            if left[0] < 0:
                raise ValueError(
                    f"its configuration asks for more weights than the file holds ('{self.path}': {shape})."
                )
        return add_weight(self, *args, **kwargs)

    return bounded


extend(
    keras.layers.Layer,
    "add_weight",
    _bounded,
    arguments=("shape",),
    without="a `.keras` file may ask for more weights than the memory holds when it is loaded",
)
