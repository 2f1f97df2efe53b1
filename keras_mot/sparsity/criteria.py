"""Pruning criteria: what scores a weight. The weights with the lowest scores are pruned.

Here are those that look at the weights alone. Others see more: what is there in a `WeightEvidence`.
"""

import abc
import dataclasses
from collections.abc import Callable
from typing import ClassVar

import keras
import numpy as np

from keras_mot._config import Config, EqualByConfig
from keras_mot._messages import describe
from keras_mot.sparsity.evidence import WeightEvidence


class Criterion(EqualByConfig, abc.ABC):
    """Base class of criteria; a user's own is a frozen dataclass that implements `scores`.

    One that needs more than the weight inherits `InformedCriterion`.

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

    needs: ClassVar[tuple[str, ...]] = ()
    """Names of the fields of `WeightEvidence` that come from data, such as `"gradient"`."""

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

    def scores_from(self, evidence: WeightEvidence) -> np.ndarray:
        """Scores one weight by all that is known of it; by default, `scores` of the weight alone."""
        return self.scores(evidence.weight, evidence.path, evidence.step)

    def unit_scores(self, evidence: WeightEvidence, pool: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
        """The scores of what is pruned together.

        Args:
            evidence: of one weight.
            pool: function from an array of scores of weights to those of blocks, channels or groups.
        """
        scores = np.asarray(self.scores_from(evidence))
        if scores.shape != evidence.weight.shape or (not self.signed and scores.size and scores.min() < 0):
            raise ValueError(
                f"{self!r} should score weight '{evidence.path}' with an array of shape {evidence.weight.shape} "
                f"without negative numbers; received shape {scores.shape}, minimum {scores.min()}."
            )
        return pool(scores)


class InformedCriterion(Criterion):
    """Base class of criteria that see more than the weight; a user's own implements `scores_from`.

    `needs` names what has to be computed from data: fields of `WeightEvidence`. The present mask is always there.

    Example:

    ```python
    @keras.saving.register_keras_serializable()
    @dataclasses.dataclass(frozen=True)
    class Fisher(keras_mot.Config, keras_mot.sparsity.InformedCriterion):
        needs = ("squared_gradient",)

        def scores_from(self, evidence: keras_mot.sparsity.WeightEvidence) -> np.ndarray:
            return evidence.weight**2 * evidence.squared_gradient
    ```
    """

    @abc.abstractmethod
    def scores_from(self, evidence: WeightEvidence) -> np.ndarray:
        """Scores one weight: an array of its shape, finite and not negative; high scores are kept."""

    def scores(self, weight: np.ndarray, path: str, step: int) -> np.ndarray:
        """Refuses: the weight alone does not tell.

        Raises:
            TypeError: always.
        """
        raise TypeError(f"{self!r} cannot score '{path}' by its values alone: call `scores_from`.")


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
    """A random order: the baseline that a criterion has to beat.

    Args:
        seed: integer; equal seeds give equal masks.
        anew: whether each step has an order of its own; by default all have the same.
    """

    seed: int = 0
    anew: bool = False

    def __post_init__(self):
        if isinstance(self.seed, bool) or not hasattr(self.seed, "__index__") or self.seed < 0:
            raise ValueError(f"`seed` should be an integer >= 0; received {describe(self.seed)}.")
        if not isinstance(self.anew, bool):
            raise TypeError(f"`anew` should be True or False; received {describe(self.anew)}.")

    def scores(self, weight: np.ndarray, path: str, step: int) -> np.ndarray:
        """Uniform random numbers that depend on the seed and the path of the weight, and with `anew` on the step."""
        generator = np.random.default_rng([self.seed, *([step] if self.anew else []), *path.encode()])
        return generator.random(np.shape(weight), "float32")
