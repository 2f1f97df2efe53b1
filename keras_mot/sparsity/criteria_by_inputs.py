"""Criteria that go by the inputs of a layer: what its outputs lose without a weight."""

import dataclasses

import keras
import numpy as np

from keras_mot._config import Config
from keras_mot._keras import flatten_layers
from keras_mot.layers import find_weights
from keras_mot.second_order import matrices_of
from keras_mot.sparsity.criteria import InformedCriterion
from keras_mot.sparsity.evidence import WeightEvidence


@keras.saving.register_keras_serializable("keras_mot")
@dataclasses.dataclass(frozen=True)
class Wanda(InformedCriterion, Config):
    """The weight times the root mean square of its input: what the outputs lose if the others stay.

    Reference: Sun et al., 2024, "A Simple and Effective Pruning Approach for Large Language Models" (arXiv:2306.11695).
    """

    needs = ("input_square",)

    def scores_from(self, evidence: WeightEvidence) -> np.ndarray:
        """|w| sqrt(mean x²)."""
        return np.abs(evidence.weight) * np.sqrt(evidence.input_square)


@keras.saving.register_keras_serializable("keras_mot")
@dataclasses.dataclass(frozen=True)
class OptimalBrainSurgeon(InformedCriterion, Config):
    """What the outputs of the layer lose without the weight if the others make up for it, as `refit` lets them.

    Reference: Hassibi and Stork, 1993, "Second Order Derivatives for Network Pruning: Optimal Brain Surgeon"; Frantar
    and Alistarh, 2023, "SparseGPT: Massive Language Models Can Be Accurately Pruned in One-Shot" (arXiv:2301.00774).
    """

    needs = ("inverse_moment",)

    def scores_from(self, evidence: WeightEvidence) -> np.ndarray:
        """w² / [H⁻¹]jj."""
        return np.square(evidence.weight) / evidence.inverse_moment


def layers_of_unknown_inputs(model: keras.layers.Layer) -> list[keras.layers.Layer]:
    """The layers with weights of which nobody knows what they are multiplied by: no such criterion can score them.

    Args:
        model: a built model.
    """
    known = {id(each.variable) for layer in flatten_layers(model) for each in matrices_of(layer)}
    unknown = [weight.owner for weight in find_weights(model)[0] if id(weight.variable) not in known]
    return list({id(layer): layer for layer in unknown}.values())
