"""What the hard and the soft codebook have in common: a palette of values, one of which may be zero."""

import math
from typing import Any

import numpy as np
from keras import ops

from keras_mot._messages import describe
from keras_mot.transforms.base import WeightTransform
from keras_mot.transforms.palette import nearest


class PaletteTransform(WeightTransform):
    """Base of the codebooks: a weight has at most `number_of_clusters` different values in each channel.

    A subclass has the variables `centroids`, the values without a preserved zero, and `members`, of shape (channels,
    number_of_clusters): how many weights each value has.

    Args:
        number_of_clusters: how many different values the weight (or each channel of it) has at most.
        preserve_zeros: whether one of the values is 0, stays 0, and belongs to those weights that are 0.
        **kwargs: arguments of `WeightTransform`.

    Raises:
        TypeError: if `number_of_clusters` is no integer.
        ValueError: if it is below 1.
    """

    kind = "codebook"
    followers = ("quantization",)
    channels = 1
    per_channel = False

    def __init__(self, number_of_clusters: int, preserve_zeros: bool = False, **kwargs: Any):
        super().__init__(**kwargs)
        if isinstance(number_of_clusters, bool) or not hasattr(number_of_clusters, "__index__"):
            raise TypeError(f"`number_of_clusters` should be an integer; received {describe(number_of_clusters)}.")
        if number_of_clusters < 1:
            raise ValueError(f"`number_of_clusters` should be at least 1; received {number_of_clusters}.")
        self.number_of_clusters = int(number_of_clusters)
        self.preserve_zeros = preserve_zeros

    def suit(self, weight_shape: tuple[int, ...], axes: Any) -> None:
        """Lowers `number_of_clusters` to how many values the weight (or a channel of it) has, two at least."""
        shared = axes.outputs if self.per_channel else ()
        size = math.prod(length for axis, length in enumerate(weight_shape) if axis not in shared)
        self.number_of_clusters = min(self.number_of_clusters, max(size, 2))

    def palette(self) -> np.ndarray:
        """The values: float array of shape (channels, number_of_clusters), entry 0 being 0 with `preserve_zeros`."""
        centroids = np.array(ops.convert_to_numpy(self.centroids), "float32").reshape(self.channels, -1)
        return np.pad(centroids, ((0, 0), (int(self.preserve_zeros), 0)))

    def channel_slice(self, channel: int) -> Any:
        """The index that picks one channel (of `channels`) from an array of the weight's shape."""
        return ...

    def assignments_of(self, weight: np.ndarray) -> np.ndarray:
        """The entry of the palette that stands for each weight once stripped: integers of the weight's shape."""
        raise NotImplementedError

    def unique_values(self) -> int:
        """How many different values the weight has now, or would have if it were stripped."""
        used = ops.convert_to_numpy(self.members) > 0
        return len(np.unique(self.palette()[used]))

    def _checked_palette(self, palette):
        palette = np.asarray(palette, "float32")
        if palette.size != self.channels * self.number_of_clusters:
            raise ValueError(self._palette_error(palette))
        palette = palette.reshape(self.channels, self.number_of_clusters)
        if self.preserve_zeros and palette[:, 0].any():
            raise ValueError(self._palette_error(palette))
        return palette

    def _palette_error(self, palette):
        return (
            f"The palette should have shape ({self.channels}, {self.number_of_clusters})"
            f"{', with 0 as the first entry' if self.preserve_zeros else ''}; received {describe(palette)}."
        )

    def _nearest(self, values, entries):
        """The entry nearest to each value; with `preserve_zeros`, 0 for zeros and for nothing else."""
        if not self.preserve_zeros:
            return nearest(values, entries)
        return np.where(values == 0, 0, 1 + nearest(values, entries[1:]))

    def get_config(self):
        """The constructor's arguments."""
        return {
            **super().get_config(),
            "number_of_clusters": self.number_of_clusters,
            "preserve_zeros": self.preserve_zeros,
        }
