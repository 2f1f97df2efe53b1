"""Softmax of scores of which a mask leaves some out, as attention computes it, in one step or in two."""

import keras
import numpy as np
from keras import ops

from keras_mot.layers.same_shape import SameShape

_LEFT_OUT = -1e9


@keras.saving.register_keras_serializable("keras_mot")
class MaskedSoftmax(SameShape):
    """Weights of the last axis, which add up to 1; where the mask is false, they are 0.

    Args:
        causal: whether a position leaves out what comes after it.
        zeros: whether the weights are 0 where a mask leaves out everything; otherwise they are all equal.
        **kwargs: arguments of `keras.layers.Layer`.
    """

    def __init__(self, causal=False, zeros=False, **kwargs):
        super().__init__(**kwargs)
        self.causal, self.zeros = causal, zeros

    def call(self, inputs, mask=None):
        """The weights.

        Args:
            inputs: scores, of shape (batch, heads, positions, positions attended to).
            mask: what counts, true or false, of a shape that broadcasts to it.
        """
        mask = with_causal(mask, inputs.shape) if self.causal else mask
        weights = ops.softmax(ops.where(mask, inputs, _LEFT_OUT))
        return ops.where(mask, weights, 0.0) if self.zeros else weights

    def get_config(self):
        """The constructor's arguments."""
        return {**super().get_config(), "causal": self.causal, "zeros": self.zeros}


@keras.saving.register_keras_serializable("keras_mot")
class MaskedScores(SameShape):
    """The scores, with a number in place of minus infinity where a mask is false: what a softmax in integers reads."""

    def call(self, inputs, mask=None):
        """The scores; arguments as those of `MaskedSoftmax`."""
        return ops.where(mask, inputs, _LEFT_OUT)

    def compute_mask(self, inputs, previous_mask=None):
        """None: a softmax that follows would leave out the same again."""


def with_causal(mask, shape):
    """A mask, or `None`, and what positions leave out that come after; for scores of this shape."""
    before = np.tril(np.ones(shape[-2:], "bool"))
    return before if mask is None else ops.logical_and(mask, before)
