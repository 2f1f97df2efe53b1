"""The codebook of weight clustering: each weight is one of a few shared values."""

import math
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_mot.transforms._lookup import digits_per_code, look_up
from keras_mot.transforms._palette_transform import PaletteTransform
from keras_mot.transforms.palette import pack, unpack


@keras.saving.register_keras_serializable("keras_mot")
class Codebook(PaletteTransform):
    """Replaces each weight by the centroid that it is assigned to; the centroids are trained.

    The gradient of a centroid is the mean (or the sum) of the gradients of its members; the stored weight
    gets the gradient of the value that stands for it, so that it moves on, and may later be assigned to another
    centroid (Han et al., 2016, "Deep Compression", arXiv:1510.00149; TFMOT does the same). Assignments do not
    change in a training step: `assign_nearest` changes them between steps.

    State: the centroids, and the assignments packed into codes of 16 bits (in large weights 0.5 bytes per weight for 16
    centroids, 1 byte for 17 to 256; 2 or 4 bytes in small ones, for more, or per channel).

    Args:
        number_of_clusters: how many different values the weight (or each channel of it) has at most.
        per_channel: whether each output channel has centroids of its own.
        preserve_zeros: whether one of the values is 0, stays 0, and belongs to those weights that are 0.
        average_gradient: whether a centroid's gradient is the mean over its members, or else their sum. The
            optimizers that normalise gradients, such as Adam, hardly see the difference; for others the sum
            grows with the size of the weight.
        **kwargs: arguments of `WeightTransform`.

    Example:

    ```python
    codebook = keras_mot.transforms.Codebook(2)
    codebook.build((2, 2))
    codebook.assign([-1.0, 1.0], [[0, 1], [1, 1]])
    codebook(np.zeros((2, 2), "float32"))  # [[-1, 1], [1, 1]]
    ```
    """

    def __init__(
        self,
        number_of_clusters: int,
        per_channel: bool = False,
        preserve_zeros: bool = False,
        average_gradient: bool = True,
        **kwargs: Any,
    ):
        super().__init__(number_of_clusters, preserve_zeros, **kwargs)
        self.per_channel = per_channel
        self.average_gradient = average_gradient

    def build(self, weight_shape):
        """Creates centroids and assignments, all zero; `weight_shape` is the shape of the weight."""
        self.weight_shape = tuple(weight_shape)
        size = math.prod(self.weight_shape)
        self._channel_axes = self.axes.outputs if self.per_channel else ()
        self.channels = math.prod(self.weight_shape[axis] for axis in self._channel_axes)
        self.digits = 1 if self.per_channel else digits_per_code(self.number_of_clusters, size)
        rows = self.channels * self.number_of_clusters**self.digits
        fixed = int(self.preserve_zeros)
        self.centroids = self.add_weight(
            name="centroids",
            shape=(self.channels, self.number_of_clusters - fixed),
            dtype="float32",
            initializer="zeros",
        )
        self.codes = self.add_weight(
            name="codes",
            shape=(-(-size // self.digits),),
            dtype="uint16" if rows <= 2**16 else "int32",
            initializer="zeros",
            trainable=False,
        )
        self.members = self.add_weight(
            name="members",
            shape=(self.channels, self.number_of_clusters),
            dtype="float32",
            initializer="zeros",
            trainable=False,
        )
        self.built = True

    def call(self, weight):
        """The centroid of each weight; same shape and dtype as `weight`."""
        return look_up(
            self._palette_tensor(),
            ops.cast(ops.convert_to_tensor(self.codes.value), "int32"),
            weight,
            self.digits,
            ops.convert_to_tensor(self.members.value) if self.average_gradient else None,
        )

    def _palette_tensor(self):
        # Reshaped to the shape that it has: between devices, a distributed variable is not a tensor yet.
        centroids = ops.reshape(ops.convert_to_tensor(self.centroids.value), self.centroids.shape)
        if not self.preserve_zeros:
            return centroids
        return ops.concatenate([ops.zeros((self.channels, 1), centroids.dtype), centroids], axis=1)

    def assignments(self) -> np.ndarray:
        """The entry of each weight: int array of the weight's shape."""
        codes = ops.convert_to_numpy(self.codes)
        size = math.prod(self.weight_shape)
        digits = unpack(codes, self.channels * self.number_of_clusters, self.digits, size)
        return digits.reshape(self.weight_shape) % self.number_of_clusters

    def assignments_of(self, weight: np.ndarray) -> np.ndarray:
        """The assignments, which do not depend on the weight's present value."""
        return self.assignments()

    def assign(self, palette: Any, assignments: Any) -> None:
        """Sets values and assignments.

        Args:
            palette: floats of shape (number_of_clusters,) or (channels, number_of_clusters). With
                `preserve_zeros`, entry 0 must be 0.
            assignments: integers of the weight's shape, in [0, number_of_clusters).

        Raises:
            ValueError: if `palette` has another shape, or entry 0 should be 0 and is not.
        """
        palette = self._checked_palette(palette)
        self.centroids.assign(palette[:, int(self.preserve_zeros) :])
        self._set_assignments(np.asarray(assignments))

    def assign_nearest(self, weight: np.ndarray) -> None:
        """Assigns each weight to the nearest centroid; with `preserve_zeros`, zeros to zero and nothing else.

        Args:
            weight: float array of the weight's shape, as this transform receives it.
        """
        palette = self.palette()
        if not self.per_channel:
            self._set_assignments(self._nearest(weight, palette[0]))
            return
        assignments = np.empty(self.weight_shape, "int32")
        for index, entries in enumerate(palette):
            where = self.channel_slice(index)
            assignments[where] = self._nearest(weight[where], entries)
        self._set_assignments(assignments)

    def channel_slice(self, channel: int) -> Any:
        """The index that picks one channel (of `channels`) from an array of the weight's shape."""
        where = [slice(None)] * len(self.weight_shape)
        lengths = [self.weight_shape[axis] for axis in self._channel_axes]
        positions = np.unravel_index(channel, lengths) if lengths else ()
        for axis, position in zip(self._channel_axes, positions, strict=True):
            where[axis] = int(position)
        return tuple(where)

    def _set_assignments(self, assignments):
        entries = self.number_of_clusters
        if self.per_channel:
            lengths = [length if axis in self._channel_axes else 1 for axis, length in enumerate(self.weight_shape)]
            assignments = assignments + entries * np.arange(self.channels).reshape(lengths)
        assignments = assignments.reshape(-1)
        members = np.bincount(assignments, minlength=self.channels * entries)
        self.members.assign(members.reshape(self.channels, entries).astype("float32"))
        codes = pack(assignments, self.channels * entries, self.digits)
        self.codes.assign(codes.astype(self.codes.dtype))

    def follow_assignment(self, before: Any, after: Any) -> Any:
        """Moves each centroid to the mean of what its members have become; the assignments stay."""
        entries = self.channels * self.number_of_clusters
        codes = ops.cast(ops.convert_to_tensor(self.codes.value), "int32")
        columns = [codes // entries ** (self.digits - 1 - digit) % entries for digit in range(self.digits)]
        places = ops.reshape(ops.stack(columns, axis=-1), (-1,))[: math.prod(self.weight_shape)]
        # Without a gradient: that of the stored weight, which moves as well, has the part that is due to this change.
        values = ops.reshape(ops.cast(ops.stop_gradient(after), "float32"), (-1,))
        sums = ops.reshape(ops.segment_sum(values, places, entries), (self.channels, self.number_of_clusters))
        members = ops.reshape(ops.convert_to_tensor(self.members.value), sums.shape)
        means = (sums / ops.maximum(members, 1))[:, int(self.preserve_zeros) :]
        centroids = ops.reshape(ops.convert_to_tensor(self.centroids.value), self.centroids.shape)
        moved = ops.where(members[:, int(self.preserve_zeros) :] > 0, means - ops.stop_gradient(centroids), 0.0)
        self.centroids.assign(centroids + ops.stop_gradient(moved))
        return after

    def get_config(self):
        """The constructor's arguments."""
        return {
            **super().get_config(),
            "per_channel": self.per_channel,
            "average_gradient": self.average_gradient,
        }
