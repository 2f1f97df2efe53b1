"""Techniques on one layer after the other, as a `clone_function` applies them: most have nothing for them."""

from collections.abc import Callable
from typing import Any

import keras

from keras_mot.layers.copying import copy_model
from keras_mot.layers.technique import NothingToDoError


def applied_to_each(function: Callable, target: Any, *args: Any, **kwargs: Any) -> Any:
    """What `function(target, ...)` returns; a copy of a layer that has nothing for it.

    Layers outside Keras that have weights are an error all the same: that these are left alone may be a mistake.
    """
    try:
        return function(target, *args, **kwargs)
    except NothingToDoError:
        if not isinstance(target, keras.layers.Layer) or isinstance(target, keras.Model):
            raise
        if target.weights and not type(target).__module__.startswith("keras."):
            raise
        return copy_model(target)
