"""What `import keras_mot` gives: all rooms, under TFMOT's names too."""

# ruff: noqa: E402 (what follows the choice of the backend imports Keras)
import sys
import types

from keras_mot._backend import choose_backend

choose_backend()

from keras_mot import analysis, clustering, export, graph, layers, quantization, recipes, sparsity, targets, transforms
from keras_mot._config import Config
from keras_mot.layers import update_step
from keras_mot.recipes import compress

# TFMOT's users write `tfmot.sparsity.keras.prune_low_magnitude`: there, each room is an alias of itself.
for _room in (clustering, quantization, sparsity):
    _room.keras = _room
    sys.modules[f"{_room.__name__}.keras"] = _room
# What TFMOT calls experimental, `preserve_sparsity` and `cluster_per_channel`, is a part of the room here.
clustering.experimental = clustering
# And its combinations, `tfmot.experimental.combine`.
experimental = types.ModuleType("keras_mot.experimental", "TFMOT's name of what is a part of the rooms here.")
experimental.combine = quantization
sys.modules["keras_mot.experimental"], sys.modules["keras_mot.experimental.combine"] = experimental, quantization
sys.modules["keras_mot.clustering.experimental"] = sys.modules["keras_mot.clustering.keras.experimental"] = clustering

__all__ = [
    "Config",
    "analysis",
    "clustering",
    "compress",
    "experimental",
    "export",
    "graph",
    "layers",
    "quantization",
    "recipes",
    "sparsity",
    "targets",
    "transforms",
    "update_step",
]
