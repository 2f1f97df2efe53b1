"""The mask of pruning: chosen weights are zero."""

from typing import Any

import keras
import numpy as np
from keras import ops

from keras_mot import _torch
from keras_mot.transforms.base import WeightTransform


@keras.saving.register_keras_serializable("keras_mot")
class Mask(WeightTransform):
    """Zeroes the weights whose mask entry is `False`, and stops their gradient.

    The stored weight keeps its value while it is masked, so that a later update of the mask may bring it
    back (Zhu and Gupta, 2017, "To prune, or not to prune", arXiv:1710.01878, section 3). One byte is kept
    for each weight.

    Example:

    ```python
    mask = keras_mot.transforms.Mask()
    mask.build((2, 2))
    mask.assign([[True, False], [True, True]])
    mask(np.ones((2, 2), "float32"))  # [[1, 0], [1, 1]]
    ```
    """

    kind = "mask"
    followers = ("codebook", "quantization")

    def build(self, weight_shape):
        """Creates the mask, all `True`; `weight_shape` is the shape of the weight."""
        self.mask = self.add_weight(name="mask", shape=weight_shape, dtype="bool", initializer="ones", trainable=False)
        self.built = True

    def call(self, weight):
        """The weight, zero where masked; same shape and dtype as `weight`."""
        mask = ops.convert_to_tensor(self.mask.value)
        if keras.backend.backend() == "torch":
            return _torch.masked(weight, mask)
        return ops.where(mask, weight, ops.zeros((), weight.dtype))

    def follow_assignment(self, before: Any, after: Any) -> Any:
        """Keeps what is masked as it is."""
        return ops.where(ops.convert_to_tensor(self.mask.value), after, before)

    def assign(self, mask: Any) -> None:
        """Sets the mask: an array of the weight's shape, true (or not zero) where the weight is kept."""
        self.mask.assign(np.asarray(mask, dtype="bool"))

    def zeros(self) -> int:
        """How many weights the mask zeroes."""
        mask = keras.ops.convert_to_numpy(self.mask)
        return int(mask.size - np.count_nonzero(mask))
