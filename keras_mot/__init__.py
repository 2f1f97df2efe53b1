"""keras-mot, the Keras Model Optimization Toolkit: smaller and faster Keras 3 models on three backends."""

# ruff: noqa: E402 (what follows the choice of the backend imports Keras)
import sys
import types

from keras_mot._backend import choose_backend
from keras_mot._version import __version__

choose_backend()

from keras_mot import analysis, clustering, export, graph, layers, quantization, recipes, sparsity, transforms
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
experimental = types.ModuleType(f"{__name__}.experimental", "TFMOT's name of what is a part of the rooms here.")
experimental.combine = quantization
sys.modules[f"{__name__}.experimental"], sys.modules[f"{__name__}.experimental.combine"] = experimental, quantization
sys.modules[f"{__name__}.clustering.experimental"] = sys.modules[f"{__name__}.clustering.keras.experimental"] = (
    clustering
)

__all__ = [
    "Config",
    "__version__",
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
    "transforms",
    "update_step",
]
