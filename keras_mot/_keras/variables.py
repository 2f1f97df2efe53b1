"""The variables that layers hold, and what is set on these and follows from it."""

import contextlib
import functools
import threading

import keras

from keras_mot._keras.layers import flatten_layers


def own_variables(layer):
    """The variables that a layer itself holds, as a pair of lists: created to be trained, and as other state."""
    return list(layer._trainable_variables), list(layer._non_trainable_variables)


_OPERATORS = [
    f"__{side}{name}__"
    for name in ("add", "sub", "mul", "truediv", "floordiv", "mod", "pow", "matmul")
    for side in ("", "r")
]


_OPEN, _WITHIN, _OPEN_LOCK = {}, [], threading.Lock()


@contextlib.contextmanager
def symbolic_operands():
    """Context in which `variable * tensor` is an operation of `keras.ops` if the tensor is symbolic.

    Keras leaves it to the backend, which knows no symbolic tensors.
    """
    owner = next(each for each in keras.Variable.__mro__ if "__mul__" in vars(each))
    with _OPEN_LOCK:  # several threads may be within, and nothing else than the first and the last changes the class
        if not _OPEN:
            _OPEN.update({name: vars(owner)[name] for name in _OPERATORS if name in vars(owner)})
            for name, method in _OPEN.items():
                setattr(owner, name, _left_to_symbolic(method))
        _WITHIN.append(owner)
    try:
        yield
    finally:
        with _OPEN_LOCK:
            _WITHIN.pop()
            if not _WITHIN:
                for name, method in _OPEN.items():
                    setattr(owner, name, method)
                _OPEN.clear()


def _left_to_symbolic(method):
    def operator(self, other):
        return NotImplemented if isinstance(other, keras.KerasTensor) else method(self, other)

    return operator


@contextlib.contextmanager
def nothing_frozen(layer):
    """Context in which `layer.trainable_weights` lists what it would if nothing in the layer were frozen."""
    parts = [part for each in flatten_layers(layer) for part in (each, *each._trainable_variables)]
    flags = [part._trainable for part in parts]
    try:
        for part in parts:
            part._trainable = True
        yield
    finally:
        for part, flag in zip(parts, flags, strict=True):
            part._trainable = flag


def own_flag(part):
    """What was set as `trainable` on a variable, whatever `train_only_while` makes of it, or on a layer itself."""
    return part._trainable


def set_own_flag(layer, flag):
    """Sets `trainable` on a layer itself, and not on what is within it."""
    layer._trainable = flag


def set_path(variable, path):
    """Gives a variable another path."""
    variable._path = path


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


def copy_of_variable(variable, value):
    """A variable of its own with another one's name, path, flags, penalty and constraint, and the given value."""
    result = keras.Variable(
        value,
        trainable=variable._trainable,
        dtype=variable.dtype,
        autocast=variable._autocast,
        aggregation=variable.aggregation,
        name=variable.name,
    )
    result.regularizer, result.constraint = variable.regularizer, variable.constraint
    set_path(result, variable.path)
    return result


def raw_variables(layer):
    """Dictionary of the backend's own variables that a layer holds as attributes, and Keras knows nothing of, by name.

    On TensorFlow `tf.Variable`s; on PyTorch parameters and buffers; JAX has none.
    """
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        return {name: value for name, value in vars(layer).items() if isinstance(value, tf.Variable)}
    groups = [vars(layer).get(group, {}) for group in ("_parameters", "_buffers")]
    return {name: value for group in groups for name, value in group.items() if value is not None}


def assign_raw(variable, value):
    """Assigns to a variable of the backend's own the value of another."""
    if keras.backend.backend() == "tensorflow":
        variable.assign(value)
    else:
        variable.data.copy_(value.data)


def forget_torch_parameters(root):
    """Makes layers on PyTorch list their parameters anew: models keep lists that hold those of their layers."""
    for layer in flatten_layers(root):
        for owner in (layer, getattr(layer, "_functional", None)):
            if "_torch_params" in getattr(owner, "_modules", {}):
                owner._track_variables()
