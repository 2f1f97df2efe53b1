"""How the operators are told that an integer file computes in floats: not one by one, where a layer has many."""

import collections
from collections.abc import Iterable

_TOLD = 6  # layers of one reason


def by_layer(float_operators: Iterable[tuple[str, str, str]]) -> list[tuple[str, str, str]]:
    """(operators, layer, reason), one for each layer and reason, of triples of (operator, layer, reason)."""
    found = {}
    for operator, layer, reason in float_operators:
        found.setdefault((layer, reason), []).append(operator)
    return [(_counted(operators), layer, reason) for (layer, reason), operators in found.items()]


def lines(float_operators: Iterable[tuple[str, str, str]]) -> list[str]:
    """A text for each reason: the layers that it holds for, with their operators, of many the first."""
    layers = {}
    for operators, layer, reason in by_layer(float_operators):
        layers.setdefault(reason, []).append(f"{operators} ({layer})")
    return [f"{'; '.join(texts[:_TOLD])}{_more(texts)}: {reason}" for reason, texts in layers.items()]


def _counted(names):
    return ", ".join(f"{count} {name}" if count > 1 else name for name, count in collections.Counter(names).items())


def _more(texts):
    left = len(texts) - _TOLD
    return f"; and in {left} more layer{'s' if left > 1 else ''}" if left > 0 else ""
