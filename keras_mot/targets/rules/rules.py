"""What accelerators publish of the files that they take: `Rules`, tables of limits."""

import dataclasses
from collections.abc import Mapping

Limit = tuple
"""The name of a limit (a function in `keras_mot/analysis/_limits.py`), and its arguments."""


@dataclasses.dataclass(frozen=True)
class Rules:
    """The published rules of a target.

    Args:
        name: of the target.
        title: what it is called in reports.
        source: the document that the rules are from, and which version of it.
        types: types of the tensors that operators compute with, such as "INT8".
        demands: limits of all operators.
        operators: the operators that map, with the limits of each beside `demands`.
        exceptions: by the names of limits, the operators that `demands` with these names do not hold for.
        open_sizes: how many of the first axes of inputs may have an open size.
        batch: the size of the first axis of inputs, or `None` for any.
        in_one_part: whether what comes behind the first operator that does not map runs on the CPU, too.
        levels: (lowest, highest) level of the interface, where limits depend on it, or `None`.
    """

    name: str
    title: str
    source: str
    types: frozenset[str]
    operators: Mapping[str, tuple[Limit, ...]]
    demands: tuple[Limit, ...] = ()
    exceptions: Mapping[str, frozenset[str]] = dataclasses.field(default_factory=dict)
    open_sizes: int = 1
    batch: int | None = None
    in_one_part: bool = False
    levels: tuple[int, int] | None = None

    def limits(self, operator: str) -> tuple[Limit, ...]:
        """All limits of an operator that maps."""
        demands = (each for each in self.demands if operator not in self.exceptions.get(each[0], ()))
        return (*demands, *self.operators[operator])
