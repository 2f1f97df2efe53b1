"""Fake quantization of scores of which a mask leaves some out, in front of their softmax."""

import math

import keras
from keras import ops

from keras_mot.layers.activation_quantizer import ActivationQuantizer

_LEFT_OUT = -1e8  # below it, all of a row is left out
_MANY = 1024  # scores of a row, where it has no fixed size


@keras.saving.register_keras_serializable("keras_mot")
class ScoresQuantizer(ActivationQuantizer):
    """Rounds scores to a range that ends just so far below their greatest that all below count for nothing.

    A number that stands for minus infinity would leave no integers for the others. Where the greatest score of each
    row is at least `g`, all scores below `g - log(2 * 2**bits * n)`, n to a row, together get less than half a step of
    the softmax: these become that number, which the lowest integer stands for.
    """

    def prepared(self, inputs, training=None):
        """The scores, cut off below; same shape and dtype."""
        scores = ops.cast(inputs, "float32")
        greatest = ops.max(scores, axis=-1)
        greatest = ops.min(ops.where(greatest > _LEFT_OUT, greatest, -_LEFT_OUT))
        reach = math.log(2.0 * 2**self.bits * (inputs.shape[-1] or _MANY))
        # What is cut off in one batch must not count in another, so that the range takes in all such ends.
        low = ops.minimum(greatest - reach, ops.convert_to_tensor(self._low.value))
        return ops.cast(ops.maximum(scores, ops.stop_gradient(low)), inputs.dtype)
