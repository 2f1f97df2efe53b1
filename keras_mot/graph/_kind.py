"""What a row of the table of kinds says of an operation."""

import dataclasses
from collections.abc import Callable
from typing import Any

from keras_mot._messages import describe

# Roles.
WEIGHTED = "weighted"  # sums of products with a kernel
MOVES = "moves"  # the same numbers, elsewhere, or fewer of them
PADS = "pads"  # the same numbers, and others beyond a border
PICKS = "picks"  # the largest or smallest of several numbers
JOINS = "joins"  # the numbers of several tensors in one
MERGES = "merges"  # tensors (or a tensor and a constant), element by element
ACTIVATION = "activation"  # a function of each element, or of all channels (softmax)
ELEMENTWISE = "element-wise"  # another function of each element, with weights or without
AVERAGES = "averages"  # means of several numbers
REDUCES = "reduces"  # sums of several numbers
PRODUCTS = "products"  # sums of products of two tensors
LOOKS_UP = "looks up"  # rows of a table
NORMALIZES = "normalizes"
ROLES = (
    *(WEIGHTED, MOVES, PADS, PICKS, JOINS, MERGES, ACTIVATION, ELEMENTWISE),
    *(AVERAGES, REDUCES, PRODUCTS, LOOKS_UP, NORMALIZES),
)

# What integers the result of an operation has whose inputs are integers.
OWN = "own"  # those of a range of its own
SAME = "same"  # those of its input, which it moves
ROUNDED = "rounded"  # those of its input, to which it is rounded


@dataclasses.dataclass(frozen=True)
class Kind:
    """What the operations of a class compute.

    Attributes:
        name: of the computation, such as "conv" or "add"; targets name their kernels so. Layers and operations that
            compute the same have one name, though they may differ in what is known of them.
        role: one of `ROLES`.
        ranges: which integers the result has, if there is a kernel for integers: `OWN`, `SAME` or `ROUNDED`.
        rank: number of the positions' axes (2 for images), or `None` where the computation does not depend on it.
        homogeneous: whether f(s * x) = s * f(x) for every s > 0, for each channel by itself if `channels_stay`.
        channels_stay: whether each channel of the result is made of the same channel of the inputs; after flattening,
            of every n-th.
        keeps_constants: whether a channel that is one constant everywhere becomes that constant everywhere.
        fuses: whether kernels compute an activation that follows in one step with it, see `Target.fused`.
        function: of what merges, the function of two NumPy arrays.
        kernel: of what is weighted, the attribute that holds the kernel; its axes are those of `find_weights`.
        bias: the attribute that holds the bias, where there is one.
        condition: function from an operation to whether it computes as this row says; `None` for all.
        table: whether each number of the result depends on the number at its place in the one input, and on nothing
            else, so that a table of what becomes of each integer computes it.
        steps: function from an operation and the inputs of a call to its outputs, by operations that have kernels: what
            stands for the operation in a quantized model; `None` for what is one step itself. It gets the arguments
            of the call by their places; a call that leaves one out and gives a later one stays in floats.
    """

    name: str
    role: str
    ranges: str = OWN
    rank: int | None = None
    homogeneous: bool = False
    channels_stay: bool = False
    keeps_constants: bool = False
    fuses: bool = False
    function: Callable | None = None
    kernel: str | None = None
    bias: str | None = None
    condition: Callable[[Any], bool] | None = None
    table: bool = False
    steps: Callable | None = None

    def __post_init__(self):
        if self.role not in ROLES:
            raise ValueError(f"`role` should be one of {', '.join(ROLES)}; received {describe(self.role)}.")
        if self.ranges not in (OWN, SAME, ROUNDED):
            raise ValueError(f"`ranges` should be '{OWN}', '{SAME}' or '{ROUNDED}'; received {describe(self.ranges)}.")
        if (self.role == WEIGHTED) != (self.kernel is not None):
            raise ValueError(f"`kernel` belongs to the role '{WEIGHTED}', and to no other; received {self}.")
