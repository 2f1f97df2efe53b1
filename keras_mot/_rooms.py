"""What `import keras_mot` gives at once: the rooms that saved models need, under TFMOT's names too."""

# ruff: noqa: E402 (what follows the choice of the backend imports Keras)
from keras_mot._backend import choose_backend

choose_backend()

from keras_mot import (
    clustering,
    graph,
    layers,
    low_rank,
    quantization,
    sparsity,
    targets,
    transforms,
)
from keras_mot._config import Config
from keras_mot.layers import update_step
from keras_mot.tfmot.modules import install

# Under TFMOT's paths, such as `sparsity.keras.prune_low_magnitude`, its scripts find what they name.
experimental = install()

__all__ = [
    "Config",
    "clustering",
    "experimental",
    "graph",
    "layers",
    "low_rank",
    "quantization",
    "sparsity",
    "targets",
    "transforms",
    "update_step",
]
