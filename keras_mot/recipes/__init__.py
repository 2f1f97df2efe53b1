"""Recipes: pipelines of pruning, clustering, quantization and fine-tuning, declared once and run by `compress`."""

from keras_mot.recipes._stage import Stage
from keras_mot.recipes.channel_stages import PruneChannels
from keras_mot.recipes.compress import compress
from keras_mot.recipes.fine_tuning import FineTune
from keras_mot.recipes.recipe import PRESETS, Recipe, find_recipe
from keras_mot.recipes.recommending import Recommendation, recommend
from keras_mot.recipes.result import CompressionResult, StageResult
from keras_mot.recipes.searching.budget import Budget
from keras_mot.recipes.searching.executors import Executor, Processes, Ray
from keras_mot.recipes.searching.result import SearchResult, Trial
from keras_mot.recipes.searching.search import search
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
    "Budget",
    "Cluster",
    "CompressionResult",
    "Executor",
    "Factorize",
    "FineTune",
    "PostTraining",
    "Processes",
    "Prune",
    "PruneChannels",
    "QuantizeAware",
    "Ray",
    "Recipe",
    "RemoveChannels",
    "SearchResult",
    "Stage",
    "StageResult",
    "StoreWeights",
    "Trial",
    "Tune",
    "compress",
    "recommend",
    "search",
]
