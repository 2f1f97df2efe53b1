"""keras-mot, the Keras Model Optimization Toolkit: smaller and faster Keras 3 models on three backends."""

from keras_mot._command_line import is_command_line
from keras_mot._version import __version__

if not is_command_line():  # which imports the rest when it knows that there is work to do
    from keras_mot._rooms import (
        Config,
        analysis,
        clustering,
        compress,
        experimental,
        export,
        graph,
        layers,
        low_rank,
        quantization,
        recipes,
        sparsity,
        targets,
        transforms,
        update_step,
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
    "low_rank",
    "quantization",
    "recipes",
    "sparsity",
    "targets",
    "transforms",
    "update_step",
]
