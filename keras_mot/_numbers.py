"""What counts as a number where a setting is one: Python's own and NumPy's scalars, and no truth values."""

import dataclasses
import numbers
from typing import Any

import numpy as np

from keras_mot._messages import describe


def is_whole(value: Any) -> bool:
    """Whether a setting is an integer, of Python or NumPy; `True` and `False` are none."""
    return isinstance(value, numbers.Integral) and not isinstance(value, bool | np.bool_)


def check_whole(name: str, value: Any, least: int = 1) -> int:
    """A setting as an `int`; raises an error that names it if it is not an integer of at least `least`."""
    if not is_whole(value):
        raise TypeError(f"`{name}` should be an integer; received {describe(value)}.")
    if value < least:
        raise ValueError(f"`{name}` should be at least {least}; received {value}.")
    return int(value)


def is_number(value: Any) -> bool:
    """Whether a setting is an integer or a real number, of Python or NumPy; `True` and `False` are none."""
    return isinstance(value, numbers.Real) and not isinstance(value, bool | np.bool_)


def plain(value: Any) -> Any:
    """A scalar of NumPy as Python's own, which JSON has; other values as they are."""
    return value.item() if isinstance(value, np.generic) else value


def make_plain(config: Any) -> None:
    """Replaces the scalars of NumPy among the fields of a frozen dataclass by Python's own."""
    for field in dataclasses.fields(config):
        object.__setattr__(config, field.name, plain(getattr(config, field.name)))
