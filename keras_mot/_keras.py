"""The few Keras internals that the toolkit relies on, gathered in one place.

Everything else in the package uses Keras's public API. A new Keras release is checked against this file.
"""

from keras.src.backend.common.variables import AutocastScope
from keras.src.models.functional import Functional
from keras.src.models.sequential import Sequential

__all__ = ["AutocastScope", "Functional", "Sequential", "is_graph_model", "sublayers"]


def is_graph_model(layer):
    """Whether `layer` is a plain Sequential or Functional model, whose layers its config lists one by one.

    A user's subclass of either counts only if it is itself rebuilt from the list of its layers.
    """
    if not isinstance(layer, (Functional, Sequential)):
        return False
    return getattr(type(layer).get_config, "__module__", "").startswith("keras.src.models")


def sublayers(layer):
    """The direct sub-layers that Keras tracks for `layer`, in tracking order."""
    return list(layer._layers)
