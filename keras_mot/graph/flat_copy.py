"""Flat copies of models that are going to be changed for good, and what every function that makes one says of it."""

import contextlib
from collections.abc import Mapping

import keras

from keras_mot._keras import forgetting_calls, sublayers
from keras_mot._messages import describe
from keras_mot.graph.opening import open_model
from keras_mot.graph.origins import Origins, copy_with_origins
from keras_mot.graph.rewrite import everything_of, flatten_with_origins
from keras_mot.layers import transformed_weights
from keras_mot.layers.finding import require_built

_TOLD = 6  # reasons


def flat_and_origins(model: keras.Model) -> tuple[keras.Model, Origins]:
    """A flat copy of a model, without layers that do nothing but call others, and the `Origins` of its operations."""
    with forgetting_calls(everything_of(model)):
        opened = open_model(model, _holds_variables)
        return flatten_with_origins(opened.model, opened.names)


def _holds_variables(layer):
    """Whether a layer has variables of its own, which would become constants if it were taken apart."""
    within = {id(variable) for part in sublayers(layer) for variable in part.variables}
    return any(id(variable) not in within for variable in layer.variables)


def check_plain(model: keras.Model, function: str) -> None:
    """Refuses what is no built Keras model without transforms.

    Raises:
        TypeError: if it is no Keras model.
        ValueError: if it is not built, or carries transforms.
    """
    if not isinstance(model, keras.Model):
        raise TypeError(f"`{function}` expects a Keras model; received {describe(model)}.")
    require_built(model, function)
    if transformed_weights(model):
        raise ValueError(
            f"'{model.name}' carries weight transforms: strip it first, as by `keras_mot.sparsity.strip_pruning`."
        )


def reasons_text(reasons: Mapping[str, str]) -> str:
    """Names of layers with reasons, those of one reason together, and of many the first."""
    names = {}
    for name, reason in reasons.items():
        names.setdefault(reason, []).append(f"'{name}'")
    texts = [f"{', '.join(found)} ({reason})" for reason, found in names.items()]
    left = sum(map(len, list(names.values())[_TOLD:]))
    return "; ".join(texts[:_TOLD]) + (f"; and {left} more layers, for such reasons" if left else "")


@contextlib.contextmanager
def without_random_numbers(*found: keras.layers.Layer):
    """Lets layers be built with zeros: JAX compiles its generators of random numbers anew for each shape."""
    initializers = [
        (layer, name, value)
        for layer in found
        for name, value in vars(layer).items()
        if name.endswith("_initializer") and value is not None
    ]
    for layer, name, _ in initializers:
        setattr(layer, name, keras.initializers.Zeros())
    try:
        yield
    finally:
        for layer, name, value in initializers:
            setattr(layer, name, value)


def apart(model: keras.Model) -> keras.Model:
    """A copy of a flat model, whose layers remember no other graph that they were a part of."""
    with without_random_numbers(*model.layers):
        copy, origins = copy_with_origins(model)
    for layer in copy.layers:
        for name, value in vars(origins.of(layer)).items():
            if name.endswith("_initializer") and value is not None:
                setattr(layer, name, value)
    return copy
