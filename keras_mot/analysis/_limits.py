"""The limits that rules of accelerators are made of.

A limit is a function of an `OperatorView` and of the arguments that stand in the rules behind its name. It says in
words what an operator breaks, or returns `None`. Modules `_limits_of_*.py` hold them.
"""

from collections.abc import Callable

from keras_mot.export.litert.operator_view import OperatorView, TensorView

LIMITS = {}
"""Limits by their names in rules."""


def limit(function: Callable) -> Callable:
    """Makes a function known as a limit, by its name."""
    LIMITS[function.__name__] = function
    return function


def violation(limit: tuple, operator: OperatorView, level: int | None = None) -> str | None:
    """What an operator breaks of a limit, in words, or `None`.

    Args:
        limit: its name and arguments. ("since", n) demands a level; ("before", n, ...) is another limit below one.
        operator: the operator.
        level: of the interface.
    """
    name, *arguments = limit
    if name == "since":
        return None if level >= arguments[0] else f"it needs the API level {arguments[0]}; checked for {level}"
    if name == "before":
        below, *other = arguments
        found = violation(tuple(other), operator, level) if level < below else None
        return None if found is None else f"below the API level {below}: {found}"
    return LIMITS[name](operator, *arguments)


def listed(values):
    return " or ".join(map(str, values))


def shown(tensor: TensorView) -> str:
    """The shape of a tensor, in words."""
    return " x ".join("?" if size < 0 else str(size) for size in tensor.shape) or "a scalar"
