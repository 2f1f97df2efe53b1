"""How the values of a weight came to be where they are.

Breaking a layer down puts its weights elsewhere: the kernel of a separable convolution into two layers, the columns of
that of a GRU into several, in another order. A mask, and which entry of a palette stands for each value, go the same
way. So what puts the values of one variable into another does it by a function of arrays, which says it for these, too.
"""

import dataclasses
from collections.abc import Callable

import keras
import numpy as np


def unmoved(values):
    """The move of values that stay where they are."""
    return values


@dataclasses.dataclass(frozen=True, eq=False)
class Move:
    """Where the values of a variable were taken from.

    Args:
        source: the variable.
        function: function from an array of the shape of `source` to one of the shape that they have now, which selects,
            reorders and reshapes, and computes nothing.
    """

    source: keras.Variable
    function: Callable[[np.ndarray], np.ndarray] = unmoved

    def after(self, earlier: "Move") -> "Move":
        """The earlier move and then this one, as one."""
        return Move(earlier.source, lambda values: self.function(earlier.function(values)))
