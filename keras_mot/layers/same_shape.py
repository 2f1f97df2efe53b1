"""Layers that stand between others and return what they get, or about that."""

import keras


class SameShape(keras.layers.Layer):
    """Base class: needs no building, passes masks on, and returns as many numbers as it gets."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.supports_masking = True
        self.built = True

    def build(self, input_shape):
        """Nothing: what there is does not depend on the shape."""

    def compute_output_shape(self, input_shape):
        """The inputs' own."""
        return input_shape
