"""Keras classes without a public name that the toolkit relies on, and helpers around Keras's private state.

What else is private and used: a layer's `_flatten_layers`, `_tracker`, `_losses`, `_path` in `layers/`, and
`CallbackList.set_model`, which `layers/_updates.py` extends. A new Keras release is checked against these.
"""

import contextlib
import sys

import keras
from keras.src.backend.common.stateless_scope import in_stateless_scope
from keras.src.backend.common.variables import AutocastScope
from keras.src.layers.rnn.conv_lstm import ConvLSTMCell
from keras.src.models.functional import Functional
from keras.src.models.sequential import Sequential

__all__ = [
    "AutocastScope",
    "ConvLSTMCell",
    "Functional",
    "Sequential",
    "compiled_call",
    "forget_compilation",
    "forget_torch_parameters",
    "is_eager",
    "is_graph_model",
    "no_gradients",
    "own_name",
    "sublayers",
]


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


def sublayers(layer):
    """The direct sub-layers that Keras tracks for `layer`, in tracking order."""
    return list(layer._layers)


def forget_compilation(layer):
    """Makes a model that was changed in place uncompiled: its compiled functions compute what it was before."""
    for model in layer._flatten_layers():
        if hasattr(model, "train_function"):
            model.train_function = model.test_function = model.predict_function = None
            model.compiled = False


def forget_torch_parameters(root):
    """Makes layers on PyTorch list their parameters anew: models keep lists that hold those of their layers."""
    for layer in root._flatten_layers():
        for owner in (layer, getattr(layer, "_functional", None)):
            if "_torch_params" in getattr(owner, "_modules", {}):
                owner._track_variables()


def is_eager():
    """Whether the values of variables can be read now: not while a function is traced or compiled."""
    if in_stateless_scope():
        return False
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        return tf.executing_eagerly()
    return True


def no_gradients():
    """Context in which PyTorch does not keep what gradients would need."""
    if keras.backend.backend() != "torch":
        return contextlib.nullcontext()
    import torch

    return torch.no_grad()


def compiled_call(model):
    """A function from inputs to the model's outputs in inference, compiled at its first call.

    It reads the variables anew at each call. PyTorch runs it as it is.
    """
    backend = keras.backend.backend()
    if backend == "tensorflow":
        import tensorflow as tf

        return tf.function(lambda inputs: model(inputs, training=False), autograph=False)
    if backend == "jax":
        import jax

        call = jax.jit(lambda *state_and_inputs: model.stateless_call(*state_and_inputs, training=False)[0])
        return lambda inputs: call(
            [variable.value for variable in model.trainable_variables],
            [variable.value for variable in model.non_trainable_variables],
            inputs,
        )
    return lambda inputs: model(inputs, training=False)
