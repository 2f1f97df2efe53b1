"""What counts as a number where a setting is one: Python's own and NumPy's scalars, and no truth values."""

import numbers
from typing import Any

import numpy as np


def is_whole(value: Any) -> bool:
    """Whether a setting is an integer, of Python or NumPy; `True` and `False` are none."""
    return isinstance(value, numbers.Integral) and not isinstance(value, bool | np.bool_)


def is_number(value: Any) -> bool:
    """Whether a setting is an integer or a real number, of Python or NumPy; `True` and `False` are none."""
    return isinstance(value, numbers.Real) and not isinstance(value, bool | np.bool_)
