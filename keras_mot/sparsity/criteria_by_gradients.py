"""Criteria that go by gradients of the loss: what a weight is worth to the task, and where training moves it."""

import dataclasses

import keras
import numpy as np

from keras_mot._config import Config
from keras_mot.sparsity.criteria import InformedCriterion
from keras_mot.sparsity.evidence import WeightEvidence


@keras.saving.register_keras_serializable("keras_mot")
@dataclasses.dataclass(frozen=True)
class Gradient(InformedCriterion, Config):
    """The absolute gradient: which weight would change the loss fastest, in use or not; what `RigL` grows by."""

    needs = ("gradient",)

    def scores_from(self, evidence: WeightEvidence) -> np.ndarray:
        """|g|."""
        return np.abs(evidence.gradient)


@keras.saving.register_keras_serializable("keras_mot")
@dataclasses.dataclass(frozen=True)
class SNIP(InformedCriterion, Config):
    """Connection sensitivity: how the loss changes with a factor at the weight, for networks before training.

    Reference: Lee et al., 2019, "SNIP: Single-shot Network Pruning based on Connection Sensitivity" (arXiv:1810.02340).
    """

    needs = ("gradient",)

    def scores_from(self, evidence: WeightEvidence) -> np.ndarray:
        """|g w|."""
        return np.abs(evidence.gradient * evidence.weight)


@keras.saving.register_keras_serializable("keras_mot")
@dataclasses.dataclass(frozen=True)
class Taylor(InformedCriterion, Config):
    """How the loss changes without the weight: to first order, or by the Fisher information to second order.

    Args:
        second_order: whether the squares of gradients are averaged, the diagonal of the Fisher information.

    Reference: Molchanov et al., 2019, "Importance Estimation for Neural Network Pruning" (arXiv:1906.10771); Theis et
    al., 2018, "Faster gaze prediction with dense networks and Fisher pruning" (arXiv:1801.05787).
    """

    second_order: bool = False

    @property
    def needs(self):
        """The mean of absolute or of squared gradients."""
        return ("squared_gradient",) if self.second_order else ("absolute_gradient",)

    def scores_from(self, evidence: WeightEvidence) -> np.ndarray:
        """|g| |w|, or g² w², means over batches."""
        if self.second_order:
            return evidence.squared_gradient * np.square(evidence.weight)
        return evidence.absolute_gradient * np.abs(evidence.weight)


@keras.saving.register_keras_serializable("keras_mot")
@dataclasses.dataclass(frozen=True)
class Movement(InformedCriterion, Config):
    """Keeps what training moves away from zero, however small it is: for fine-tuning models trained for other tasks.

    Scores grow from update to update, so that a schedule with many updates follows the training.

    Reference: Sanh et al., 2020, "Movement Pruning: Adaptive Sparsity by Fine-Tuning" (arXiv:2005.07683).
    """

    needs = ("movement",)

    def scores_from(self, evidence: WeightEvidence) -> np.ndarray:
        """The sum of -g w over the updates, made positive by a function that keeps the order."""
        return in_order(evidence.movement)


_TINY, _MIDDLE = 1e-18, 128.0


def in_order(values: np.ndarray) -> np.ndarray:
    """Positive numbers in the order of any finite ones: those of magnitude 1e-18 to 1e37 stay apart to five digits."""
    return (_MIDDLE + np.arcsinh(np.asarray(values, "float64") / _TINY)).astype("float32")
