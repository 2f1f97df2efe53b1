"""Callables among the arguments of layers: Keras writes some that it cannot read, and others not at all."""

import contextlib
import inspect
import types
import warnings

import keras

from keras_mot._keras import flatten_layers
from keras_mot.layers.duplicating import is_unwritable
from keras_mot.layers.transformed import plain_class


def put_lambdas(config: dict, layer: keras.layers.Layer, is_transformed: bool) -> None:
    """Puts the lambdas among a layer's arguments into its configuration: Keras writes them, but cannot read them."""
    for name, value in config.items():
        argument = layer if is_transformed and name == "layer" else getattr(layer, name, None)
        if is_lambda(argument):
            config[name] = getattr(argument, "_stands_for", argument)
        elif isinstance(argument, keras.layers.Layer) and isinstance(value, dict) and "config" in value:
            transformed = argument is not layer and plain_class(argument) is not type(argument)
            put_lambdas(value["config"], argument, transformed)


@contextlib.contextmanager
def functions_of_callables(layer):
    """Context in which functions stand for other callables that a layer, or one within, was given as arguments.

    Keras writes no `functools.partial`, bound methods and objects with `__call__` into configurations.
    """
    exchanged = []
    try:
        for part in flatten_layers(layer) if isinstance(layer, keras.layers.Layer) else ():
            attributes = vars(part)
            for name in inspect.signature(plain_class(part).__init__).parameters:
                value = attributes.get(name)
                if is_unwritable(value):
                    exchanged.append((attributes, name, value))
                    attributes[name] = _function_of(value)
        with warnings.catch_warnings():
            if exchanged:  # what stands for them are lambdas, which Keras warns of
                warnings.filterwarnings("ignore", message="The object being serialized includes a `lambda`")
            yield
    finally:
        for attributes, name, value in exchanged:
            attributes[name] = value


def _function_of(value):
    # Keras writes it, without a closure; whatever is read from that is no copy, and fails when it is called.
    stand_in = lambda *args, **kwargs: {}["a callable that has no form to save"]  # noqa: E731
    stand_in._stands_for = value
    return stand_in


def is_lambda(value):
    return isinstance(value, types.FunctionType) and value.__name__ == "<lambda>"
