"""The codebook of differentiable k-means: each weight is a mixture of a few shared values, until it is stripped."""

from typing import Any

import keras
import numpy as np
from keras import ops

from keras_mot.transforms._palette_transform import PaletteTransform
from keras_mot.transforms._soft_assignment import soft_values


@keras.saving.register_keras_serializable("keras_mot")
class SoftCodebook(PaletteTransform):
    """Replaces each weight by its attention over a few centroids, which are themselves means of the weights.

    In training the weight that is used is a mixture, sharper the lower the temperature, and the gradient reaches the
    stored weights through the assignment and through the centroids. Stripping snaps each weight to the nearest
    centroid. Made for very few values (2 to 8), where a hard assignment gets stuck.

    Args:
        number_of_clusters: how many different values the stripped weight has at most.
        temperature: of the attention, relative to the squared mean distance of neighbouring trained centroids. At
            0.1 a weight is mixed only near the border between two centroids.
        preserve_zeros: whether one of the values is 0, stays 0, and belongs to those weights that are 0.
        **kwargs: arguments of `WeightTransform`.

    Reference: Cho et al., 2022, "DKM: Differentiable K-Means Clustering Layer for Neural Network Compression"
    (arXiv:2108.12659).

    Example:

    ```python
    codebook = keras_mot.transforms.SoftCodebook(2)
    codebook.build((4,))
    codebook.assign([-1.0, 1.0])
    codebook.freeze(np.array([-1.2, -0.8, 0.9, 1.1], "float32"))  # [-1, -1, 1, 1]
    ```
    """

    def __init__(self, number_of_clusters: int, temperature: float = 0.1, preserve_zeros: bool = False, **kwargs: Any):
        super().__init__(number_of_clusters, preserve_zeros, **kwargs)
        self.temperature = temperature

    def build(self, weight_shape):
        """Creates the centroids, all zero; `weight_shape` is the shape of the weight."""
        self.weight_shape = tuple(weight_shape)
        count = self.number_of_clusters - int(self.preserve_zeros)
        self.centroids = self.add_weight(
            name="centroids", shape=(count,), dtype="float32", initializer="zeros", trainable=False
        )
        self.sharpness = self.add_weight(
            name="sharpness", shape=(), dtype="float32", initializer="ones", trainable=False
        )
        self.members = self.add_weight(
            name="members",
            shape=(1, self.number_of_clusters),
            dtype="float32",
            initializer="zeros",
            trainable=False,
        )
        self.built = True

    def call(self, weight):
        """The mixture of centroids for each weight; same shape and dtype as `weight`."""
        centroids = ops.convert_to_tensor(self.centroids.value)
        return soft_values(weight, centroids, ops.convert_to_tensor(self.sharpness.value), self.preserve_zeros)

    def freeze(self, weight):
        """The nearest centroid of each weight, after the centroids have followed the weights once more."""
        values = np.asarray(ops.convert_to_numpy(weight), "float32")
        palette = self._means(values, self.palette()[0])
        return ops.cast(ops.convert_to_tensor(palette[self._nearest(values, palette)]), weight.dtype)

    def assign(self, palette: Any, assignments: Any = None) -> None:
        """Sets the values, floats of shape (number_of_clusters,) or (1, number_of_clusters).

        With `preserve_zeros`, entry 0 must be 0. `assignments` are not used: they follow from the weights.
        """
        palette = self._checked_palette(palette)[0]
        centroids = palette[int(self.preserve_zeros) :]
        self.centroids.assign(centroids)
        distances = np.diff(np.unique(centroids))
        distance = float(distances.mean()) if len(distances) else 1.0
        self.sharpness.assign(min(1.0 / max(self.temperature * distance**2, 1e-30), 1e30))

    def assign_nearest(self, weight: np.ndarray) -> None:
        """Moves the centroids to the means of the weights nearest to them.

        Args:
            weight: float array of the weight's shape, as this transform receives it.
        """
        palette = self._means(weight, self.palette()[0])
        self.assign(palette)
        members = np.bincount(self._nearest(weight, palette).reshape(-1), minlength=self.number_of_clusters)
        self.members.assign(members[None].astype("float32"))

    def follow_assignment(self, before: Any, after: Any) -> Any:
        """Scales the centroids as the weight was scaled, in the sense of least squares."""
        old, new = (ops.cast(ops.stop_gradient(value), "float32") for value in (before, after))
        scale = ops.sum(old * new) / ops.maximum(ops.sum(old * old), keras.config.epsilon())
        self.centroids.assign(ops.convert_to_tensor(self.centroids.value) * scale)
        self.sharpness.assign(ops.convert_to_tensor(self.sharpness.value) / ops.maximum(scale * scale, 1e-30))
        return after

    def assignments_of(self, weight: np.ndarray) -> np.ndarray:
        """The entry nearest to each weight, after the centroids have followed the weights once more."""
        weight = np.asarray(weight, "float32")
        return self._nearest(weight, self._means(weight, self.palette()[0]))

    def _means(self, values, palette):
        indices = self._nearest(values, palette).reshape(-1)
        counts = np.bincount(indices, minlength=len(palette))
        sums = np.bincount(indices, weights=values.reshape(-1), minlength=len(palette))
        return np.where(counts > 0, sums / np.maximum(counts, 1), palette).astype("float32")

    def get_config(self):
        """The constructor's arguments."""
        return {**super().get_config(), "temperature": self.temperature}
