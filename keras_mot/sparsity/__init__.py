"""Pruning: schedules, criteria, granularities, and the functions that prune a model while it trains."""

from keras_mot.sparsity.callbacks import PruningSummaries, UpdatePruningStep
from keras_mot.sparsity.channels import remove_pruned_channels
from keras_mot.sparsity.config import PerLayer, PruningConfig, WholeModel
from keras_mot.sparsity.criteria import Criterion, InformedCriterion, Magnitude, Random
from keras_mot.sparsity.criteria_by_gradients import SNIP, Gradient, Movement, Taylor
from keras_mot.sparsity.criteria_by_inputs import OptimalBrainSurgeon, Wanda
from keras_mot.sparsity.evidence import PruningEvidence, WeightEvidence
from keras_mot.sparsity.granularity import Block, Channel, Element, Granularity, NofM
from keras_mot.sparsity.one_shot import prune_at_once
from keras_mot.sparsity.policies import PrunableLayer, PruningPolicy
from keras_mot.sparsity.prune import (
    prune_low_magnitude,
    prune_scope,
    pruning_due,
    strip_pruning,
    update_pruning_step,
)
from keras_mot.sparsity.prune_channels import prune_channels
from keras_mot.sparsity.refitting import refit
from keras_mot.sparsity.regrowth import SET, Regrow, RigL
from keras_mot.sparsity.report import PrunedWeight, PruningReport, pruning_report
from keras_mot.sparsity.schedules import ConstantSparsity, PolynomialDecay, PruningSchedule
from keras_mot.sparsity.xnnpack import PruneForLatencyOnXNNPack

__all__ = [
    "SET",
    "SNIP",
    "Block",
    "Channel",
    "ConstantSparsity",
    "Criterion",
    "Element",
    "Gradient",
    "Granularity",
    "InformedCriterion",
    "Magnitude",
    "Movement",
    "NofM",
    "OptimalBrainSurgeon",
    "PerLayer",
    "PolynomialDecay",
    "PrunableLayer",
    "PruneForLatencyOnXNNPack",
    "PruningConfig",
    "PruningEvidence",
    "PruningPolicy",
    "PruningReport",
    "PruningSchedule",
    "PruningSummaries",
    "Random",
    "Regrow",
    "RigL",
    "Taylor",
    "UpdatePruningStep",
    "Wanda",
    "WeightEvidence",
    "WholeModel",
    "prune_at_once",
    "prune_channels",
    "prune_low_magnitude",
    "prune_scope",
    "pruning_due",
    "pruning_report",
    "refit",
    "remove_pruned_channels",
    "strip_pruning",
    "update_pruning_step",
]
