"""Pointing at layers: by the object itself, by class, by predicate, or by a regular expression on the path."""

import re

import keras

from keras_mot._messages import describe


def matches(selector, weight):
    """Whether `selector` points at a weight: at its layer, or at a layer or model around it.

    Args:
        selector: a layer; a layer class; a function from a layer to a bool; or a regular expression (string or
            compiled) that is searched in the layer's path and name.
        weight: a `FoundWeight`.

    Raises:
        TypeError: if the selector is none of these.
    """
    layers = dict.fromkeys([*weight.lineage, weight.host, weight.owner])
    return any(matches_layer(selector, layer) for layer in layers)


def matches_layer(selector, layer):
    """Whether `selector`, as of `matches`, points at this very layer."""
    if isinstance(selector, keras.layers.Layer):
        return selector is layer
    if isinstance(selector, type) and issubclass(selector, keras.layers.Layer):
        return isinstance(layer, selector)
    if isinstance(selector, str | re.Pattern):
        try:
            return any(re.search(selector, text) for text in (layer.path or "", layer.name))
        except re.error as error:
            raise ValueError(f"The selector {selector!r} is not a regular expression: {error}.") from error
    if callable(selector):
        try:
            return bool(selector(layer))
        except AttributeError as error:
            raise ValueError(
                f"The selector failed on layer '{layer.path or layer.name}' ({type(layer).__name__}): {error}. It is "
                "asked about every layer and the models around them: begin it with an `isinstance` test."
            ) from error
    raise TypeError(
        "A selector should be a layer, a layer class, a function from a layer to a bool, or a regular expression "
        f"on the layer's path; received {describe(selector)}."
    )


def check_selectors_match(selectors, weights):
    """Raises a `ValueError` for a selector that points at no weight: most likely a typing error."""
    for selector in selectors:
        if not any(matches(selector, weight) for weight in weights):
            paths = sorted({weight.owner.path or weight.owner.name for weight in weights})
            raise ValueError(f"No layer with transformable weights matches {selector!r}; there are: {paths}.")
