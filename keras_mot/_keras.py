"""Keras classes without a public name that the toolkit relies on, and helpers around Keras's private state.

What else is private and used: a layer's `_flatten_layers`, `_tracker`, `_losses`, `_path` in `layers/`, and
`CallbackList.set_model`, which `layers/updates.py` extends, as `layers/_refusals.py` does `Model.load_weights` and
`Model.quantize`. A new Keras release is checked against these, by `make smoke` among others.
"""

import contextlib
import contextvars
import functools
import math
import sys

import keras
from keras.src.backend.common.masking import get_keras_mask, set_keras_mask
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
    "applied_gradients",
    "bounded_weights",
    "call_of",
    "calls_anywhere",
    "calls_by_depth",
    "compiled_call",
    "finish_callbacks",
    "flatten_layers",
    "forget_compilation",
    "forget_torch_parameters",
    "functional_of",
    "get_keras_mask",
    "install_output_names",
    "is_eager",
    "is_graph_model",
    "metric_direction",
    "no_gradients",
    "nothing_frozen",
    "own_flag",
    "own_name",
    "own_variables",
    "producer_of",
    "run_graph",
    "set_keras_mask",
    "sublayers",
    "train_only_while",
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


def flatten_layers(layer):
    """A layer or model, and all layers and models within it, each once."""
    return layer._flatten_layers()


def producer_of(tensor):
    """The layer or operation that a symbolic tensor is a result of."""
    return tensor._keras_history.operation


def call_of(tensor):
    """The call (node) that a symbolic tensor is a result of."""
    history = tensor._keras_history
    return history.operation._inbound_nodes[history.node_index]


def calls_anywhere(operation):
    """All calls (nodes) of a layer or operation on symbolic tensors, in whatever graphs they are."""
    return list(operation._inbound_nodes)


def functional_of(sequential):
    """The functional model that a sequential one computes with."""
    return sequential._functional


def calls_by_depth(functional):
    """The calls (nodes) of a functional model, inputs among them, in the order in which they run."""
    by_depth = functional._nodes_by_depth
    return [node for depth in sorted(by_depth, reverse=True) for node in by_depth[depth]]


def run_graph(functional, inputs, call):
    """The outputs of a functional model on other inputs, where `call(operation)` gives what is called for each."""
    return functional._run_through_graph(inputs, operation_fn=call)


def sublayers(layer):
    """The direct sub-layers that Keras tracks for `layer`, in tracking order."""
    return list(layer._layers)


def own_variables(layer):
    """The variables that a layer itself holds, as a pair of lists: created to be trained, and as other state."""
    return list(layer._trainable_variables), list(layer._non_trainable_variables)


@contextlib.contextmanager
def nothing_frozen(layer):
    """Context in which `layer.trainable_weights` lists what it would if nothing in the layer were frozen."""
    parts = [part for each in layer._flatten_layers() for part in (each, *each._trainable_variables)]
    flags = [part._trainable for part in parts]
    try:
        for part in parts:
            part._trainable = True
        yield
    finally:
        for part, flag in zip(parts, flags, strict=True):
            part._trainable = flag


def train_only_while(variable, condition):
    """Makes a variable trainable only while `condition()` is true, whatever is set on it.

    What a transform learns goes on being trained otherwise when the weight that it works on is frozen: Keras's
    `layer.trainable = False` reaches no transform that is attached later, and setting it on a variable, or on a cell
    whose weights are transformed by the layer around it, reaches none at all.

    Args:
        variable: a variable; its own flag stays what it is.
        condition: function without arguments, asked whenever `variable.trainable` is read.
    """
    variable._trained_while = condition
    variable.__class__ = _following(type(variable))
    variable.trainable = own_flag(variable)


def own_flag(variable):
    """What was set as `variable.trainable`, whatever `train_only_while` makes of it."""
    return variable._trainable


@functools.cache
def _following(plain_class):
    def trainable(self):
        return self._trainable and self._trained_while()

    def set_trainable(self, value):
        self._trainable = bool(value)
        # Native loops go by this flag, which is that of now: freeze before parameters are given to an optimizer.
        if keras.backend.backend() == "torch" and self._value is not None:
            self._value.requires_grad = self.trainable

    members = {"trainable": property(trainable, set_trainable), "__module__": plain_class.__module__}
    return type(plain_class.__name__, (plain_class,), members)


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


def applied_gradients(model):
    """How often the optimizer of a model has been given gradients; `None` if it has no counter, or skips some steps.

    In the middle of JAX's epoch the variables are empty: the number is then taken from the trainer's state.
    """
    optimizer = getattr(model, "optimizer", None)
    counter = getattr(optimizer, "_iterations", None)
    if counter is None or hasattr(optimizer, "inner_optimizer"):
        return None
    state = getattr(model, "_jax_state", None)
    if state and not model._jax_state_synced:
        values = zip(optimizer.variables, state["optimizer_variables"], strict=True)
        return next((int(value) for variable, value in values if variable is counter), None)
    return int(keras.ops.convert_to_numpy(counter))


def finish_callbacks(callback_list):
    """Waits for the callbacks that a `CallbackList` has sent to threads of its own."""
    if callback_list is not None and callback_list._futures:
        callback_list._flush_futures()


def is_eager():
    """Whether the values of variables can be read now: not while a function is traced or compiled."""
    if in_stateless_scope():
        return False
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        return tf.executing_eagerly()
    return True


def metric_direction(metric):
    """Whether more of a Keras metric is better (`True`) or less (`False`); `None` if Keras does not know."""
    return {"up": True, "down": False}.get(getattr(metric, "_direction", None))


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

        # Batches of other sizes are traced together, without TensorFlow's warnings of retracing.
        return tf.function(lambda inputs: model(inputs, training=False), autograph=False, reduce_retracing=True)
    if backend == "jax":
        import jax

        call = jax.jit(lambda *state_and_inputs: model.stateless_call(*state_and_inputs, training=False)[0])
        return lambda inputs: call(
            [variable.value for variable in model.trainable_variables],
            [variable.value for variable in model.non_trainable_variables],
            inputs,
        )
    return lambda inputs: model(inputs, training=False)


_VALUES_LEFT = contextvars.ContextVar("values_left", default=None)


@contextlib.contextmanager
def bounded_weights(most):
    """Within the block, layers that together make more than `most` values raise a ValueError.

    A configuration of a few bytes can ask for weights that no memory holds; they would be made before the file's own
    weights are looked at. Layers of other threads are not counted.
    """
    _install_bound()
    token = _VALUES_LEFT.set([most])
    try:
        yield
    finally:
        _VALUES_LEFT.reset(token)


@functools.cache
def _install_bound():
    """Makes `Layer.add_weight` ask for the bound, once for all."""
    add_weight = keras.layers.Layer.add_weight

    @functools.wraps(add_weight)
    def bounded(self, shape=None, *args, **kwargs):
        left = _VALUES_LEFT.get()
        if left is not None:
            left[0] -= math.prod(() if shape is None else (shape,) if isinstance(shape, int) else shape)
            if left[0] < 0:
                raise ValueError(
                    f"its configuration asks for more weights than the file holds ('{self.path}': {shape})."
                )
        return add_weight(self, shape, *args, **kwargs)

    keras.layers.Layer.add_weight = bounded


@functools.cache
def install_output_names():
    """Makes functional models call an output after its operation's `output_name`, where it has one, once for all."""
    initialize = Functional.__init__

    @functools.wraps(initialize)
    def named(self, inputs, outputs, name=None, **kwargs):  # Keras compares the arguments with those of subclasses
        initialize(self, inputs, outputs, name=name, **kwargs)
        names = [getattr(producer_of(tensor), "output_name", None) for tensor in self.outputs]
        if any(names):
            self.output_names = [new or old for new, old in zip(names, self.output_names, strict=True)]

    Functional.__init__ = named
