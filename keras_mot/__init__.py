"""keras-mot, the Keras Model Optimization Toolkit: smaller and faster Keras 3 models on three backends."""

import importlib
from typing import TYPE_CHECKING

from keras_mot._command_line import is_command_line
from keras_mot._version import __version__

if not is_command_line():  # which imports the rest when it knows that there is work to do
    from keras_mot._rooms import (
        Config,
        clustering,
        experimental,
        graph,
        layers,
        low_rank,
        quantization,
        sparsity,
        targets,
        transforms,
        update_step,
    )

if TYPE_CHECKING:
    from keras_mot import analysis, export, recipes
    from keras_mot.recipes import compress

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

# Half of all modules, which no saved model needs: imported when they are first used.
_ON_FIRST_USE = {
    "analysis": "keras_mot.analysis",
    "compress": "keras_mot.recipes",
    "export": "keras_mot.export",
    "recipes": "keras_mot.recipes",
}


def __getattr__(name):
    if name not in _ON_FIRST_USE:
        raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
    room = importlib.import_module(_ON_FIRST_USE[name])
    value = room if room.__name__ == f"{__name__}.{name}" else getattr(room, name)
    globals()[name] = value
    return value


def __dir__():
    return sorted({*globals(), *__all__})
