"""Centroid initialisations: which values a weight's clusters begin with."""

import abc
import dataclasses
from typing import ClassVar

import keras
import numpy as np

from keras_mot._config import Config, EqualByConfig
from keras_mot._messages import describe
from keras_mot._numbers import is_number
from keras_mot.clustering._kmeans import kmeans_1d
from keras_mot.transforms.palette import nearest

_DRAWN_ONE_BY_ONE = 512


class CentroidInitialization(EqualByConfig, abc.ABC):
    """Base class of initialisations; its attributes hold one of each kind, under TFMOT's names.

    A user's own is a frozen dataclass that implements `centroids`.

    Attributes:
        KMEANS: `ExactKMeans()`, the default.
        LINEAR: `Linear()`.
        RANDOM: `Random()`.
        DENSITY_BASED: `DensityBased()`.
        KMEANS_PLUS_PLUS: `KMeansPlusPlus()`.

    Example:

    ```python
    @keras.saving.register_keras_serializable()
    @dataclasses.dataclass(frozen=True)
    class Quartiles(keras_mot.Config, keras_mot.clustering.CentroidInitialization):
        def centroids(self, values: np.ndarray, count: int) -> np.ndarray:
            return np.quantile(values, (np.arange(count) + 0.5) / count)
    ```
    """

    KMEANS: ClassVar["CentroidInitialization"]
    LINEAR: ClassVar["CentroidInitialization"]
    RANDOM: ClassVar["CentroidInitialization"]
    DENSITY_BASED: ClassVar["CentroidInitialization"]
    KMEANS_PLUS_PLUS: ClassVar["CentroidInitialization"]

    @abc.abstractmethod
    def centroids(self, values: np.ndarray, count: int) -> np.ndarray:
        """Chooses the first centroids of one weight, or of one channel.

        Args:
            values: float array of shape (size,), not empty, finite; must not be changed.
            count: how many centroids are wanted, at least 1.

        Returns:
            Float array of shape (count,) or shorter.
        """


@keras.saving.register_keras_serializable("keras_mot")
@dataclasses.dataclass(frozen=True)
class ExactKMeans(Config, CentroidInitialization):
    """The centroids with the least squared error, found by dynamic programming.

    Optimal for weights of up to 512 different values (16 per cluster if that is more); for others optimal among the
    clusters whose borders lie between that many cells of values, and then improved by Lloyd's iterations.
    25 million weights take a second or two. Above 128 clusters, where the optimum gains next to nothing, the
    iterations start from the optimal density of many levels instead.

    Args:
        entropy_weight: squared error, in variances of the weights, that a bit per weight is worth; 0, the default,
            for the least squared error. Values such as 0.003 give files that zip better at the same number of
            clusters: rarely used centroids are placed for the few weights far out, and near zero they lie wider
            apart.

    References: Wang and Song, 2011, "Ckmeans.1d.dp: Optimal k-means Clustering in One Dimension by Dynamic
    Programming", The R Journal 3/2; for the entropy, Chou, Lookabaugh and Gray, 1989, "Entropy-Constrained Vector
    Quantization", IEEE Transactions on Acoustics, Speech, and Signal Processing 37.
    """

    entropy_weight: float = 0.0

    def __post_init__(self):
        if not is_number(self.entropy_weight):
            raise TypeError(f"`entropy_weight` should be a number; received {describe(self.entropy_weight)}.")
        if not 0.0 <= self.entropy_weight < float("inf"):
            raise ValueError(
                f"`entropy_weight` should be 0 or more, and finite; received {describe(self.entropy_weight)}."
            )

    def centroids(self, values: np.ndarray, count: int) -> np.ndarray:
        """The best centroids, sorted."""
        return kmeans_1d(values, count, self.entropy_weight)


def _check_seed(seed):
    if isinstance(seed, bool) or not hasattr(seed, "__index__") or seed < 0:
        raise ValueError(f"`seed` should be an integer >= 0; received {describe(seed)}.")


@keras.saving.register_keras_serializable("keras_mot")
@dataclasses.dataclass(frozen=True)
class Linear(Config, CentroidInitialization):
    """Evenly spaced from the smallest to the largest value, which keeps large weights apart.

    Han et al., 2016, "Deep Compression" (arXiv:1510.00149), section 3.2, found it best when training follows.
    """

    def centroids(self, values: np.ndarray, count: int) -> np.ndarray:
        """Evenly spaced centroids."""
        return np.linspace(float(values.min()), float(values.max()), count)


@keras.saving.register_keras_serializable("keras_mot", name="RandomCentroids")  # sparsity has a `Random`, too
@dataclasses.dataclass(frozen=True)
class Random(Config, CentroidInitialization):
    """Uniformly random between the smallest and the largest value.

    Args:
        seed: of the random numbers; the same for every weight.
    """

    seed: int = 0

    def __post_init__(self):
        _check_seed(self.seed)

    def centroids(self, values: np.ndarray, count: int) -> np.ndarray:
        """Random centroids."""
        return np.random.default_rng(self.seed).uniform(values.min(), values.max(), count)


@keras.saving.register_keras_serializable("keras_mot")
@dataclasses.dataclass(frozen=True)
class DensityBased(Config, CentroidInitialization):
    """Quantiles at equal distances, so that all clusters begin with equally many members."""

    def centroids(self, values: np.ndarray, count: int) -> np.ndarray:
        """Evenly filled centroids: the middles of `count` equal shares of the sorted values."""
        # Sorted once: NumPy's quantiles take minutes for many thousands of them.
        positions = (np.arange(count) + 0.5) / count * (len(values) - 1)
        return np.interp(positions, np.arange(len(values)), np.sort(values))


@keras.saving.register_keras_serializable("keras_mot")
@dataclasses.dataclass(frozen=True)
class KMeansPlusPlus(Config, CentroidInitialization):
    """The seeding of k-means++: values drawn with a chance that grows as their squared distance to those drawn.

    As in TFMOT only the seeding; `ExactKMeans` has the lower error.

    Args:
        seed: of the random numbers.

    Reference: Arthur and Vassilvitskii, 2007, "k-means++: The Advantages of Careful Seeding".
    """

    seed: int = 0

    def __post_init__(self):
        _check_seed(self.seed)

    def centroids(self, values: np.ndarray, count: int) -> np.ndarray:
        """Seeds, fewer if there are fewer different values."""
        different = np.unique(values).astype("float64")
        if len(different) <= count:
            return different
        generator = np.random.default_rng(self.seed)
        values = values.astype("float64")
        chosen = values[generator.integers(len(values), size=1)]
        distances = (values - chosen[0]) ** 2
        while len(chosen) < count:
            # One by one; after hundreds, doubling their number, so that time does not grow with their square.
            draws = 1 if len(chosen) < _DRAWN_ONE_BY_ONE else min(len(chosen), count - len(chosen))
            shares = np.cumsum(distances)
            positions = np.searchsorted(shares, generator.random(draws) * shares[-1], side="right")
            drawn = np.unique(values[np.minimum(positions, len(values) - 1)])
            chosen = np.append(chosen, drawn)
            closest = drawn[0] if draws == 1 else drawn[nearest(values, drawn)]
            np.minimum(distances, (values - closest) ** 2, out=distances)
        return chosen


CentroidInitialization.KMEANS = ExactKMeans()
CentroidInitialization.LINEAR = Linear()
CentroidInitialization.RANDOM = Random()
CentroidInitialization.DENSITY_BASED = DensityBased()
CentroidInitialization.KMEANS_PLUS_PLUS = KMeansPlusPlus()
