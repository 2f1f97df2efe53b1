"""Which option each layer takes, so that the sum of what they lose is least and the sum of their sizes fits."""

import dataclasses
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np


@dataclasses.dataclass(frozen=True)
class Option:
    """One way to store a layer.

    Args:
        size: bytes that it takes.
        loss: what the model loses if this layer alone is stored so, at least 0.
        choice: whatever it stands for.
    """

    size: float
    loss: float
    choice: Any = None


@dataclasses.dataclass(frozen=True)
class Allocation:
    """The option that each layer takes.

    Attributes:
        chosen: tuple of positions in the lists of options.
        size: sum of the sizes.
        loss: sum of the losses.
        fits: whether the size is within what was asked.
    """

    chosen: tuple[int, ...]
    size: float
    loss: float
    fits: bool


def undominated(options: Iterable[Option]) -> list[Option]:
    """The options that no other beats in both size and loss, smallest first."""
    kept = []
    for option in sorted(options, key=lambda each: (each.loss, each.size)):
        if not kept or option.size < kept[-1].size:
            kept.append(option)
    return kept[::-1]


def allocate(layers: Sequence[Sequence[Option]], size: float) -> Allocation:
    """Chooses one option for each layer: least sum of losses, sum of sizes at most `size`.

    A multiple-choice knapsack problem, solved as an integer programme (`scipy.optimize.milp`). Where even the smallest
    options do not fit, they are chosen, and `fits` is `False`.

    Args:
        layers: a list of options for each layer, which are `undominated`.
        size: bytes for all of them.

    Returns:
        An `Allocation`.

    Raises:
        ValueError: if there is no layer, or one has no options.

    Example:

    ```python
    allocate([[Option(10, 0.5), Option(40, 0.0)], [Option(20, 0.1), Option(80, 0.0)]], 60)
    ```
    """
    if not layers or not all(layers):
        raise ValueError("Each layer needs at least one option, and there must be a layer.")
    smallest = [min(range(len(options)), key=lambda place, of=options: of[place].size) for options in layers]
    if sum(options[place].size for options, place in zip(layers, smallest, strict=True)) > size:
        return _made(layers, smallest, False)
    from scipy.optimize import Bounds, LinearConstraint, milp

    counts = [len(options) for options in layers]
    sizes = np.array([option.size for options in layers for option in options])
    losses = np.array([option.loss for options in layers for option in options])
    costs = losses / max(losses.max(), 1e-30)  # numbers near 1 suit the solver's tolerances
    one_each = np.zeros((len(layers), len(sizes)))
    for row, (start, count) in enumerate(zip(np.cumsum([0, *counts[:-1]]), counts, strict=True)):
        one_each[row, start : start + count] = 1
    solved = milp(
        costs,
        integrality=np.ones(len(sizes)),
        bounds=Bounds(0, 1),
        constraints=[LinearConstraint(one_each, 1, 1), LinearConstraint(sizes[None] / size, 0, 1)],
        options={"time_limit": 10.0, "mip_rel_gap": 0.0},
    )
    if solved.x is None:  # only a limit of time without any solution comes to this
        return _made(layers, smallest, True)
    taken, start, chosen = solved.x, 0, []
    for count in counts:
        chosen.append(int(np.argmax(taken[start : start + count])))
        start += count
    return _made(layers, chosen, True)


def _made(layers, chosen, fits):
    taken = [options[place] for options, place in zip(layers, chosen, strict=True)]
    return Allocation(
        tuple(chosen), float(sum(each.size for each in taken)), float(sum(each.loss for each in taken)), fits
    )
