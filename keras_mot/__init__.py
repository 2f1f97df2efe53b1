"""keras-mot, the Keras Model Optimization Toolkit: smaller and faster Keras 3 models on three backends."""

import sys

from keras_mot import analysis, export, layers, sparsity, transforms
from keras_mot._config import Config
from keras_mot._version import __version__

# TFMOT's users write `tfmot.sparsity.keras.prune_low_magnitude`: there, each room is an alias of itself.
sparsity.keras = sparsity
sys.modules[f"{__name__}.sparsity.keras"] = sparsity

__all__ = ["Config", "__version__", "analysis", "export", "layers", "sparsity", "transforms"]
