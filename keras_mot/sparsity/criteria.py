"""Pruning criteria: what scores a weight. The weights with the lowest scores are pruned."""

import abc
import dataclasses

import keras
import numpy as np

from keras_mot._config import Config, EqualByConfig
from keras_mot._messages import describe


class Criterion(EqualByConfig, abc.ABC):
    """Base class of criteria; a user's own is a frozen dataclass that implements `scores`.

    Example:

    ```python
    @keras.saving.register_keras_serializable()
    @dataclasses.dataclass(frozen=True)
    class SignedMagnitude(keras_mot.Config, keras_mot.sparsity.Criterion):
        def scores(self, weight: np.ndarray, path: str, step: int) -> np.ndarray:
            return np.maximum(weight, 0)  # prunes negative weights first
    ```
    """

    signed = False
    """Whether scores carry a sign to be ignored, which saves `Magnitude` a copy of the weight."""

    @abc.abstractmethod
    def scores(self, weight: np.ndarray, path: str, step: int) -> np.ndarray:
        """Scores the weights of one tensor.

        Args:
            weight: NumPy array; must not be changed.
            path: string, the path of the weight.
            step: integer, training steps that have ended.

        Returns:
            Array of the shape of `weight`, finite and not negative; high scores are kept.
        """


@keras.saving.register_keras_serializable("keras_mot")
@dataclasses.dataclass(frozen=True)
class Magnitude(Config, Criterion):
    """The absolute value of the weight (Han et al., 2015, arXiv:1506.02626)."""

    signed = True

    def scores(self, weight: np.ndarray, path: str, step: int) -> np.ndarray:
        """The weights themselves, whose sign is ignored."""
        return np.asarray(weight, "float32")


@keras.saving.register_keras_serializable("keras_mot")
@dataclasses.dataclass(frozen=True)
class Random(Config, Criterion):
    """The same random order at every step: the baseline that a criterion has to beat.

    Args:
        seed: integer; equal seeds give equal masks.
    """

    seed: int = 0

    def __post_init__(self):
        if isinstance(self.seed, bool) or not hasattr(self.seed, "__index__") or self.seed < 0:
            raise ValueError(f"`seed` should be an integer >= 0; received {describe(self.seed)}.")

    def scores(self, weight: np.ndarray, path: str, step: int) -> np.ndarray:
        """Uniform random numbers that depend on the seed and the path of the weight alone."""
        generator = np.random.default_rng([self.seed, *path.encode()])
        return generator.random(np.shape(weight), "float32")
