"""Low rank: kernels as products of smaller ones, with fewer parameters and fewer products to compute."""

from keras_mot.low_rank.decompositions import (
    Decomposition,
    InputChannels,
    OutputChannels,
    Spatial,
    Tucker,
)
from keras_mot.low_rank.factorize import factorize, plan_factorization
from keras_mot.low_rank.plan import FactorizationPlan, FactorizedLayer
from keras_mot.low_rank.ranks import EnergyShare, FixedRank, ParameterShare, RankRule

__all__ = [
    "Decomposition",
    "EnergyShare",
    "FactorizationPlan",
    "FactorizedLayer",
    "FixedRank",
    "InputChannels",
    "OutputChannels",
    "ParameterShare",
    "RankRule",
    "Spatial",
    "Tucker",
    "factorize",
    "plan_factorization",
]
