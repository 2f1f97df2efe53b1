"""Clustering methods: how weights and centroids are tied to each other while they are trained."""

import abc
import dataclasses

import keras

from keras_mot._config import Config, EqualByConfig
from keras_mot._messages import describe
from keras_mot._numbers import is_number
from keras_mot.transforms import Codebook, SoftCodebook, WeightTransform


class ClusteringMethod(EqualByConfig, abc.ABC):
    """Base class of methods: each makes the transform that a clustered weight gets."""

    supports_channels = True
    """Whether each output channel may have its own values."""

    most_clusters = None
    """The largest number of clusters that it is made for, or `None`."""

    @abc.abstractmethod
    def codebook(self, number_of_clusters: int, per_channel: bool, preserve_zeros: bool, **settings) -> WeightTransform:
        """A transform with the methods of `keras_mot.transforms.Codebook`.

        Args:
            number_of_clusters: different values at most.
            per_channel: whether each output channel has its own.
            preserve_zeros: whether zero is one of them, and stays.
            **settings: `updater` and `name` of the transform.
        """


@keras.saving.register_keras_serializable("keras_mot")
@dataclasses.dataclass(frozen=True)
class SharedValues(Config, ClusteringMethod):
    """Each weight is one of the centroids; centroids are trained (Han et al., 2016, arXiv:1510.00149).

    Args:
        average_gradient: whether a centroid's gradient is the mean over its members, or else their sum. Adam and
            others that normalise gradients hardly see the difference; for SGD the sum grows with the weight's size.
    """

    average_gradient: bool = True

    def __post_init__(self):
        if not isinstance(self.average_gradient, bool):
            raise TypeError(f"`average_gradient` should be True or False; received {describe(self.average_gradient)}.")

    def codebook(self, number_of_clusters: int, per_channel: bool, preserve_zeros: bool, **settings) -> WeightTransform:
        """A `keras_mot.transforms.Codebook`."""
        return Codebook(number_of_clusters, per_channel, preserve_zeros, self.average_gradient, **settings)


@keras.saving.register_keras_serializable("keras_mot")
@dataclasses.dataclass(frozen=True)
class DifferentiableKMeans(Config, ClusteringMethod):
    """Each weight is a mixture of centroids, which are means of weights (DKM; Cho et al., 2022, arXiv:2108.12659).

    For very few clusters, 2 to 8, and at most 256. Training costs more, in proportion to their number. Evaluate the
    stripped model: until then the weights are mixtures, closer to the centroids the lower the temperature is.

    Args:
        temperature: of the attention, relative to the squared mean distance of neighbouring centroids.
    """

    temperature: float = 0.1

    supports_channels = False
    most_clusters = 256

    def __post_init__(self):
        if not is_number(self.temperature):
            raise TypeError(f"`temperature` should be a number; received {describe(self.temperature)}.")
        if not 0.0 < self.temperature < float("inf"):
            raise ValueError(f"`temperature` should be above 0 and finite; received {describe(self.temperature)}.")

    def codebook(self, number_of_clusters: int, per_channel: bool, preserve_zeros: bool, **settings) -> WeightTransform:
        """A `keras_mot.transforms.SoftCodebook`."""
        return SoftCodebook(number_of_clusters, float(self.temperature), preserve_zeros, **settings)
