"""Variables that are trained only while what they belong to is."""

import functools
from collections.abc import Callable

import keras


def train_only_while(variable: keras.Variable, condition: Callable[[], bool]) -> None:
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


def own_flag(variable: keras.Variable) -> bool:
    """What was set as `variable.trainable`, whatever the variable follows."""
    return variable._trainable


@functools.cache
def _following(plain_class):
    def trainable(self):
        return self._trainable and self._trained_while()

    def set_trainable(self, value):
        self._trainable = bool(value)
        if keras.backend.backend() == "torch" and self._value is not None:  # native loops go by this flag
            self._value.requires_grad = self.trainable

    members = {"trainable": property(trainable, set_trainable), "__module__": plain_class.__module__}
    return type(plain_class.__name__, (plain_class,), members)
