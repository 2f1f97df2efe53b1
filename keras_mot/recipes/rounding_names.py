"""Roundings of weights by their names, as recipe files and the command line write them."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from keras_mot._messages import describe, nearest
from keras_mot.quantization import GPTQ, AdaRound, Nearest, Rounding

_ROUNDINGS = {"nearest": Nearest, "gptq": GPTQ, "adaround": AdaRound}


def rounding_named(value: Any) -> Rounding | None:
    """A `Rounding`, from what a stage was given: one, `None`, its name, or a dictionary from the name to its settings.

    Args:
        value: `GPTQ(damping=0.1)`, `"gptq"`, or `{"gptq": {"damping": 0.1}}`, for example.

    Raises:
        TypeError: if it is none of these.
        ValueError: if there is no rounding of this name, or it does not take these settings.
    """
    if value is None or isinstance(value, Rounding):
        return value
    name, settings = next(iter(value.items())) if isinstance(value, Mapping) and len(value) == 1 else (value, {})
    if not isinstance(name, str):
        raise TypeError(f"`rounding` should be a `Rounding` or the name of one; received {describe(value)}.")
    if name not in _ROUNDINGS:
        raise ValueError(
            f"There is no rounding '{name}'.{nearest(name, _ROUNDINGS)} Roundings: {', '.join(_ROUNDINGS)}."
        )
    try:
        return _ROUNDINGS[name](**(settings or {}))
    except TypeError as error:
        raise ValueError(f"The rounding '{name}' does not take {describe(settings)}: {error}") from error


def plain_rounding(rounding: Rounding) -> str | dict[str, Any]:
    """What `rounding_named` takes for a rounding, of numbers, truths and texts: for YAML.

    Raises:
        ValueError: if it is one of the user's own, which has no name.
    """
    name = next((name for name, kind in _ROUNDINGS.items() if type(rounding) is kind), None)
    if name is None:
        raise ValueError(f"{rounding!r} has no name in YAML: {', '.join(_ROUNDINGS)} have.")
    settings = dataclasses.asdict(rounding)
    changed = {key: value for key, value in settings.items() if value != getattr(type(rounding)(), key)}
    return {name: changed} if changed else name
