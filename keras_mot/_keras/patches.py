"""Extending what Keras does: the one place where methods of Keras's classes are exchanged.

Each extension is checked when it is made, which is when the package is imported: a Keras in which a method is gone,
takes other arguments or is no longer called would otherwise go on without the extension, and without a word.
"""

import functools
import inspect
from collections.abc import Callable, Sequence

import keras

from keras_mot._warnings import warn

# What has been extended, such as `Model.quantize`, with what is wrong with it, or `None`.
EXTENDED = {}


def extend(
    owner: type,
    name: str,
    make: Callable[[Callable | None], Callable],
    arguments: Sequence[str] = (),
    without: str = "",
    added: bool = False,
    check: Callable[[], str | None] = lambda: None,
) -> bool:
    """Puts a function in the place of a method of one of Keras's classes, once for all.

    Where the method is not what it was written for, nothing is exchanged, and a warning says so.

    Args:
        owner: the class.
        name: of the method.
        make: function from the method, or `None` where there is none, to what takes its place.
        arguments: names of arguments that the method must take.
        without: what does not work without the extension, for the warning.
        added: whether the method may be missing.
        check: function that says in words why the extension has no effect, once it is made; `None` if it has.

    Returns:
        Whether the extension holds.
    """
    plain = getattr(owner, name, None)
    if getattr(plain, "_keras_mot", False):
        return True
    problem = _problem(owner, name, plain, arguments, added)
    if problem is None:
        extended = make(plain)
        extended = extended if plain is None else functools.wraps(plain)(extended)
        extended._keras_mot = True
        setattr(owner, name, extended)
        problem = check()
    EXTENDED[f"{owner.__name__}.{name}"] = problem
    if problem is not None:
        warn(
            f"Keras {keras.__version__} is not as keras-mot expects it: {problem}. So {without}. Use a version of "
            "Keras that the requirements of keras-mot name, or a newer keras-mot."
        )
    return problem is None


def _problem(owner, name, plain, arguments, added):
    if plain is None:
        return None if added else f"`{owner.__name__}.{name}` is missing"
    if not callable(plain):
        return f"`{owner.__name__}.{name}` is no method"
    known = inspect.signature(plain).parameters
    missing = [argument for argument in arguments if argument not in known]
    if missing:
        return f"`{owner.__name__}.{name}` takes no argument `{missing[0]}`, but {list(known)}"
    return None


class _Probe(keras.callbacks.Callback):
    def __init__(self):
        super().__init__()
        self.called = 0

    def on_epoch_begin(self, epoch, logs=None):
        self.called += 1


def callback_list_problem() -> str | None:
    """Why callbacks that `CallbackList.set_model` adds would not be called, in words; `None` if they would be."""
    models, probe = [], _Probe()

    class Observed(keras.callbacks.CallbackList):
        def set_model(self, model):
            models.append(model)
            return super().set_model(model)

    try:
        observed = Observed([_Probe()], model=None)
        observed.callbacks = [probe, *observed.callbacks]
        observed.on_epoch_begin(0)
        called = [callback.called for callback in observed.callbacks]
    except Exception as error:
        return f"`CallbackList` cannot be used as it was ({error})"
    if models != [None]:
        return "`CallbackList` does not call its own `set_model`"
    if called != [1, 1]:
        return "`CallbackList` does not call what is put into its `callbacks`"
    if not (hasattr(observed, "_futures") and hasattr(observed, "_flush_futures")):
        return "`CallbackList` has another way of waiting for its threads"
    return None
