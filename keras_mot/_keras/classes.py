"""Classes of Keras without a public name, and which class is Keras's own."""

import functools
import importlib
import sys

import keras
from keras.src.layers.rnn.conv_lstm import ConvLSTMCell
from keras.src.models.functional import Functional
from keras.src.models.sequential import Sequential

__all__ = ["ConvLSTMCell", "Functional", "Sequential", "is_graph_model", "operation_class", "own_name"]


def is_graph_model(layer):
    """Whether `layer` is a plain Sequential or Functional model, whose layers its config lists one by one.

    A user's subclass of either counts only if it is itself rebuilt from the list of its layers.
    """
    if not isinstance(layer, (Functional, Sequential)):
        return False
    return getattr(type(layer).get_config, "__module__", "").startswith("keras.src.models")


def own_name(kind):
    """The name of one of Keras's own classes of layers or operations; `None` for others, whatever their names."""
    module = kind.__module__
    if not module.startswith(("keras.src.layers.", "keras.src.ops.")):
        return None
    return kind.__name__ if getattr(sys.modules[module], kind.__name__, None) is kind else None


@functools.cache
def operation_class(name):
    """Keras's own class of operations of `keras.ops` by its name, such as "Add"; `None` if this release has none."""
    for room in ("numpy", "nn", "core", "math", "image"):
        module = importlib.import_module(f"keras.src.ops.{room}")
        found = getattr(module, name, None)
        if isinstance(found, type) and issubclass(found, keras.Operation) and found.__module__ == module.__name__:
            return found
    return None
