"""How a weight is clustered: the settings, which also choose centroids and update assignments."""

import dataclasses

import keras
import numpy as np

from keras_mot._arrays import numpy_value
from keras_mot._config import Config, check_hashable
from keras_mot._messages import describe
from keras_mot.clustering.centroids import CentroidInitialization, ExactKMeans
from keras_mot.clustering.methods import ClusteringMethod, SharedValues
from keras_mot.transforms import Mask, PaletteTransform


@keras.saving.register_keras_serializable("keras_mot")
@dataclasses.dataclass(frozen=True)
class ClusteringConfig(Config):
    """How weights are clustered.

    Args:
        number_of_clusters: how many different values a weight (or a channel) may have, at least 2. A zero that
            is preserved is one of them. More than a weight has values count as that many.
        initialization: a `CentroidInitialization`.
        per_channel: whether each output channel has its own values.
        frequency: number of training steps after which weights are assigned anew to the nearest centroid.
        end_step: the last step that may assign anew; -1 for no end.
        method: a `ClusteringMethod`: `SharedValues()`, or `DifferentiableKMeans()` for 2 to 8 clusters.

    Raises:
        TypeError: if an argument is of another type.
        ValueError: if a number is out of range.
    """

    number_of_clusters: int
    initialization: CentroidInitialization = dataclasses.field(default_factory=ExactKMeans)
    per_channel: bool = False
    frequency: int = 10
    end_step: int = -1
    method: ClusteringMethod = dataclasses.field(default_factory=SharedValues)

    def __post_init__(self):
        for name, least in (("number_of_clusters", 2), ("frequency", 1), ("end_step", -1)):
            value = getattr(self, name)
            if isinstance(value, bool) or not hasattr(value, "__index__"):
                raise TypeError(f"`{name}` should be an integer; received {describe(value)}.")
            if value < least:
                raise ValueError(f"`{name}` should be at least {least}; received {value}.")
            object.__setattr__(self, name, int(value))
        if not isinstance(self.initialization, CentroidInitialization):
            raise TypeError(
                "The centroid initialisation should be a `CentroidInitialization`, such as "
                f"`CentroidInitialization.KMEANS`; received {describe(self.initialization)}."
            )
        if not isinstance(self.per_channel, bool):
            raise TypeError(f"`per_channel` should be True or False; received {describe(self.per_channel)}.")
        if not isinstance(self.method, ClusteringMethod):
            raise TypeError(f"`method` should be a `ClusteringMethod`; received {describe(self.method)}.")
        check_hashable("initialization", self.initialization)
        check_hashable("method", self.method)
        most = self.method.most_clusters
        if most is not None and self.number_of_clusters > most:
            raise ValueError(f"{self.method!r} is for up to {most} clusters; received {self.number_of_clusters}.")
        if self.per_channel and not self.method.supports_channels:
            raise ValueError(f"{self.method!r} has one palette for each weight: it cannot cluster per channel.")

    # The methods below are what `keras_mot.transforms.WeightTransform` asks of an updater.

    def due(self, step):
        """Whether weights are assigned anew at `step`; at step 0, weights that have no centroids yet get them."""
        if step == 0:
            return True
        return step % self.frequency == 0 and (self.end_step < 0 or step <= self.end_step)

    def codebook(self, preserve_zeros, name, weight=None):
        """The transform for one weight; `weight` is a `FoundWeight`, or `None` as long as its layer is not built."""
        codebook = self.method.codebook(
            self.number_of_clusters, self.per_channel, preserve_zeros, updater=self, name=name
        )
        if weight is not None:
            codebook.suit(tuple(weight.variable.shape), weight.axes)
        return codebook

    def initialize(self, weights):
        """Chooses the centroids of those `weights` (`keras_mot.layers.TransformedWeight`) that have none."""
        for weight in weights:
            codebook = codebook_of(weight)
            if not codebook.unique_values():
                _take_zeros(weight, codebook)
                self.choose_centroids(codebook, self._values(weight, codebook, 0))

    def update(self, weights, step):
        """Assigns the stored values of `weights` to the nearest centroids.

        Raises:
            ValueError: if a weight is NaN or infinite, which means that training has diverged.
        """
        self.initialize(weights)
        for weight in weights:
            codebook = codebook_of(weight)
            codebook.assign_nearest(self._values(weight, codebook, step))

    def follow(self, weights, step):
        """Chooses the centroids of `weights` anew, after the masks before them have changed."""
        for weight in weights:
            codebook = codebook_of(weight)
            self.choose_centroids(codebook, self._values(weight, codebook, step))

    def check(self, weights):
        """Raises a `ValueError` if weights of these shapes cannot be clustered this way.

        Args:
            weights: list of (path, shape, axes) of all weights with these settings.
        """
        for path, shape, axes in weights:
            if self.per_channel and not axes.inputs:
                raise ValueError(
                    f"Weight '{path}' of shape {shape} has one value for each channel: it cannot be clustered per "
                    "channel. Give its layer settings with `per_channel=False`, or `None`, in `overrides`."
                )

    @staticmethod
    def logs(weights):
        """`{"unique_values": count}`: the most different values in any clustered weight, over all channels."""
        return {"unique_values": float(max(codebook_of(weight).unique_values() for weight in weights))}

    def _values(self, weight, codebook, step):
        values = np.asarray(numpy_value(weight.value_before(codebook)), "float32")
        if not np.isfinite(values).all():
            raise ValueError(
                f"Cannot assign '{weight.path}' to its centroids after {step} steps: it has NaN or infinite values. "
                "Training has diverged; lower the learning rate."
            )
        return values

    def choose_centroids(self, codebook, values):
        """Gives a codebook the centroids that suit `values`, the weight as the codebook receives it."""
        palette = np.zeros((codebook.channels, codebook.number_of_clusters), "float32")
        fixed = int(codebook.preserve_zeros)
        for channel, entries in enumerate(palette):
            members = values[codebook.channel_slice(channel)].reshape(-1)
            if fixed:
                members = members[members != 0]
            if members.size:
                entries[fixed:] = self._centroids(members, codebook.number_of_clusters - fixed)
        codebook.assign(palette, np.zeros(values.shape, "int32"))
        codebook.assign_nearest(values)

    def _centroids(self, values, count):
        centroids = np.asarray(self.initialization.centroids(values, count), "float32").reshape(-1)
        if not 0 < len(centroids) <= count or not np.isfinite(centroids).all():
            raise ValueError(
                f"{self.initialization!r} should return 1 to {count} finite centroids; it returned "
                f"{describe(centroids)}."
            )
        # With fewer different values than clusters, the rest repeats the last: it has no members.
        return np.pad(centroids, (0, count - len(centroids)), mode="edge")


def _take_zeros(weight, codebook):
    """Gives a mask that clustering attached, and that is still empty, the zeros of the stored weight."""
    mask = weight.transform_of(Mask)
    if codebook.preserve_zeros and mask is not None and mask.updater is None and not mask.zeros():
        mask.assign(numpy_value(weight.variable) != 0)


def codebook_of(weight):
    """The `Codebook` or `SoftCodebook` in the stack of a `TransformedWeight`, or `None`."""
    return weight.transform_of(PaletteTransform)
