"""How long a runtime takes in integers and in floats: a `Costs`, and the `Cost` of one kind of operation."""

import dataclasses
import math
from collections.abc import Mapping

from keras_mot._messages import describe
from keras_mot._numbers import is_number


@dataclasses.dataclass(frozen=True)
class Cost:
    """The time that operations of a kind take, in nanoseconds on the machine that it was measured on.

    Only the relation of all these times counts.

    Args:
        floats: for each element of the result in floats; of products of two tensors, for each multiplication.
        integers: the same in integers.
    """

    floats: float
    integers: float

    def __post_init__(self):
        for field in ("floats", "integers"):
            value = getattr(self, field)
            if not is_number(value) or not 0 <= value < math.inf:
                raise ValueError(f"`{field}` should be a time of at least 0; received {describe(value)}.")

    @property
    def ratio(self) -> float:
        """How many times as long as in floats it takes in integers."""
        return self.integers / self.floats if self.floats else math.inf


@dataclasses.dataclass(frozen=True)
class Costs:
    """What a runtime gains or loses by computing in integers.

    Args:
        kinds: by the names of kinds of operations (`keras_mot.graph.kinds.Kind.name`), their `Cost`. Those that are
            not in it take as long in integers as in floats.
        table: the `Cost` of a function of each element that is a table in the file.
        crossing: nanoseconds for each element that goes from floats to integers, or back.
        conversion: nanoseconds for each tensor that does, however small.

    Example:

    ```python
    costs = Costs({"softmax": Cost(0.25, 1.0), "matmul": Cost(0.01, 0.035)}, crossing=0.05, conversion=200.0)
    ```
    """

    kinds: Mapping[str, Cost]
    table: Cost = Cost(0.0, 0.0)
    crossing: float = 0.0
    conversion: float = 0.0

    def __post_init__(self):
        for name, cost in self.kinds.items():
            if not isinstance(cost, Cost):
                raise TypeError(f"`kinds['{name}']` should be a `Cost`; received {describe(cost)}.")
        if not isinstance(self.table, Cost):
            raise TypeError(f"`table` should be a `Cost`; received {describe(self.table)}.")
        for field in ("crossing", "conversion"):
            if not 0 <= getattr(self, field) < math.inf:
                raise ValueError(
                    f"`{field}` should be a time of at least 0; received {describe(getattr(self, field))}."
                )

    def of(self, name: str | None) -> Cost:
        """The cost of a kind; of an unknown one, none."""
        return self.kinds.get(name, Cost(0.0, 0.0))

    def prefers_floats(self, cost: Cost) -> bool:
        """Whether an operation of a cost is faster in floats, even where all around it computes in integers."""
        return cost.integers > cost.floats + 2.0 * self.crossing
