"""What a sum of squares is divided into, where vectors are normalized."""

import keras
from keras import ops

from keras_mot.layers.same_shape import SameShape


@keras.saving.register_keras_serializable("keras_mot")
class InverseRoot(SameShape):
    """1 / sqrt(max(factor * x, least) + epsilon), element by element.

    Args:
        factor: what the inputs are multiplied by, such as 1 / n for a mean of n squares.
        epsilon: what is added.
        least: what takes the place of anything smaller.
        **kwargs: arguments of `keras.layers.Layer`.
    """

    def __init__(self, factor=1.0, epsilon=0.0, least=0.0, **kwargs):
        super().__init__(**kwargs)
        self.factor, self.epsilon, self.least = factor, epsilon, least

    def call(self, inputs):
        """The inverse roots."""
        return ops.rsqrt(ops.maximum(inputs * self.factor, self.least) + self.epsilon)

    def get_config(self):
        """The constructor's arguments."""
        return {**super().get_config(), "factor": self.factor, "epsilon": self.epsilon, "least": self.least}
