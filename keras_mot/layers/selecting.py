"""Pointing at layers: by the object itself, by class, by predicate, or by a regular expression on the path."""

import re
from collections.abc import Mapping

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


def checked_overrides(overrides):
    """What the user gave as `overrides`: a dictionary from selectors to settings; empty for `None`.

    Raises:
        TypeError: if it is something else.
    """
    if overrides is None:
        return {}
    if not isinstance(overrides, Mapping):
        raise TypeError(
            f"`overrides` should be a dictionary from selectors to settings; received {describe(overrides)}."
        )
    return overrides


def check_selectors_match(selectors, weights):
    """Raises a `ValueError` for a selector that points at no weight: most likely a typing error."""
    paths = sorted({weight.owner.path or weight.owner.name for weight in weights})
    check_each_matches(selectors, matches, weights, paths, "layer with transformable weights")


def check_each_matches(selectors, points_at, things, names, kind="layer"):
    """Raises a `ValueError` for a selector that points at nothing.

    Args:
        selectors: the selectors.
        points_at: function from (selector, thing) to whether the one points at the other.
        things: what they may point at.
        names: of these, for the message.
        kind: what they are called there.
    """
    for selector in selectors:
        if not any(points_at(selector, thing) for thing in things):
            raise ValueError(f"No {kind} matches {selector!r}; there are: {names}.")
