"""Recipes: pipelines of pruning, clustering, quantization and fine-tuning, declared once and run by `compress`."""

from keras_mot.recipes._stage import Stage
from keras_mot.recipes.channel_stages import PruneChannels
from keras_mot.recipes.compress import compress
from keras_mot.recipes.fine_tuning import FineTune
from keras_mot.recipes.recipe import PRESETS, Recipe, find_recipe
from keras_mot.recipes.result import CompressionResult, StageResult
from keras_mot.recipes.stages import (
    STAGES,
    Cluster,
    Factorize,
    PostTraining,
    Prune,
    QuantizeAware,
    RemoveChannels,
    StoreWeights,
    Tune,
)

__all__ = [
    "PRESETS",
    "STAGES",
    "Cluster",
    "CompressionResult",
    "Factorize",
    "FineTune",
    "PostTraining",
    "Prune",
    "PruneChannels",
    "QuantizeAware",
    "Recipe",
    "RemoveChannels",
    "Stage",
    "StageResult",
    "StoreWeights",
    "Tune",
    "compress",
]
