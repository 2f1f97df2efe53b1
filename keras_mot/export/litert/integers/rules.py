"""Which LiteRT operators have integer kernels, and what those demand (the LiteRT 8-bit specification)."""

import dataclasses
import math

import numpy as np

# Operators that only move numbers: the result has the scale of the input.
_MOVING = (
    "RESHAPE",
    "TRANSPOSE",
    "SQUEEZE",
    "EXPAND_DIMS",
    "PAD",
    "PADV2",
    "SLICE",
    "STRIDED_SLICE",
    "SPLIT",
    "SPLIT_V",
    "UNPACK",
    "TILE",
    "MAX_POOL_2D",
    "AVERAGE_POOL_2D",
    "RESIZE_NEAREST_NEIGHBOR",
    "RESIZE_BILINEAR",
    "REDUCE_MAX",
    "REDUCE_MIN",
    "SPACE_TO_BATCH_ND",
    "BATCH_TO_SPACE_ND",
    "MIRROR_PAD",
    "REVERSE_V2",
    "BROADCAST_TO",
    "GATHER",
    "GATHER_ND",
)
# Operators that read integers, and return what is neither rounded nor in floats: positions, or truth.
COMPARISONS = ("GREATER", "GREATER_EQUAL", "LESS", "LESS_EQUAL", "EQUAL", "NOT_EQUAL")
_READING = COMPARISONS
_READING_8_BITS = ("ARG_MAX", "ARG_MIN")
_MOVING_8_BITS = ("SPACE_TO_DEPTH", "DEPTH_TO_SPACE")
AVERAGING = ("AVERAGE_POOL_2D", "RESIZE_BILINEAR")
"""Those of them that compute means of numbers, and round these to the numbers of the input."""

# Operators of several inputs that must all have the scale of the result.
_UNIFYING = ("CONCATENATION", "MAXIMUM", "MINIMUM", "PACK", "SELECT", "SELECT_V2")
CUTTING = ("MAXIMUM", "MINIMUM")
"""Those of them that cut off what is below or above a constant."""
CUT = {"RELU_N1_TO_1": (-1.0, 1.0), "RELU_0_TO_1": (0.0, 1.0)}
"""Operators that cut off at two numbers: in integers others do it, a hundred times as fast."""

# Operators that compute with scales of each input and of the result.
_COMPUTING = (
    *("ADD", "SUB", "MUL", "MEAN", "ABS", "BATCH_MATMUL"),
    *("RELU", "RELU6", "LEAKY_RELU", "EXP"),
)
# The reference kernel for sums of 16 bits computes something else.
_COMPUTING_8_BITS = ("SUM", "SQUARED_DIFFERENCE", "ELU", "GELU", "HARD_SWISH", "PRELU", "LOG")
FUSIBLE = ("RELU", "RELU6")
"""Activations that kernels compute by cutting off, where they are fused."""
# Operators whose result has a scale and a zero point that the kernel prescribes, by bits.
_PRESCRIBED = {
    "LOGISTIC": {8: (1 / 256, -128), 16: (1 / 32768, 0)},
    "SOFTMAX": {8: (1 / 256, -128), 16: (1 / 32768, 0)},
    "TANH": {8: (1 / 128, 0), 16: (1 / 32768, 0)},
    "LOG_SOFTMAX": {8: (16 / 256, 127)},
}
# Operators with weights: the positions of the activation, the weight and the bias, and the weight's channel axis.
WEIGHTED = {
    "CONV_2D": (0, 1, 2, 0),
    "DEPTHWISE_CONV_2D": (0, 1, 2, 3),
    "FULLY_CONNECTED": (0, 1, 2, 0),
    "TRANSPOSE_CONV": (2, 1, 3, 0),
}
INT4_WEIGHTS = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED")
"""Operators whose kernels read weights of 4 bits."""

# The lowest version of an operator that has the kernel, for activations of 8 and of 16 bits; 2 and 3 otherwise.
_VERSIONS = {
    "CONV_2D": (3, 4),
    "DEPTHWISE_CONV_2D": (3, 5),
    "FULLY_CONNECTED": (4, 7),
    "TRANSPOSE_CONV": (2, 4),
    "ADD": (2, 3),
    "SUB": (2, 5),
    "MUL": (2, 4),
    "RESHAPE": (1, 1),
    "EXPAND_DIMS": (1, 1),
    "SPACE_TO_DEPTH": (1, 1),
    "DEPTH_TO_SPACE": (1, 1),
    "SQUEEZE": (1, 1),
    "TILE": (2, 2),
    "LOGISTIC": (2, 3),
    "RESIZE_BILINEAR": (2, 3),
    "STRIDED_SLICE": (2, 4),
    "QUANTIZE": (1, 2),
    "DEQUANTIZE": (2, 3),
    "PRELU": (1, 1),
    "ELU": (1, 1),
    "GELU": (2, 2),
    "HARD_SWISH": (1, 1),
    "LEAKY_RELU": (2, 2),
    "RELU6": (2, 2),
    "EXP": (2, 2),
    "LOG": (2, 2),
    "LOG_SOFTMAX": (2, 2),
    "ARG_MAX": (2, 2),
    "ARG_MIN": (2, 2),
    **dict.fromkeys(COMPARISONS, (2, 2)),
    "SELECT": (1, 1),
    "SELECT_V2": (1, 1),
}


LOOP = "a recurrent layer computes in integers with a fixed number of timesteps, 256 at most, and without kept state"
"""Why a loop is in floats."""


@dataclasses.dataclass(frozen=True)
class IntegerRule:
    """How an operator computes in integers.

    Attributes:
        kind: "moving", "unifying", "computing", "weighted", "cutting" or "reading".
        roles: of a weighted operator, the positions of activation, weight and bias, and the weight's channel axis.
    """

    kind: str
    roles: tuple[int, int, int, int] | None = None


def rule_for(operator, bits):
    """The `IntegerRule` of a LiteRT operator for activations of 8 or 16 bits, or `None`."""
    if operator in WEIGHTED:
        return IntegerRule("weighted", WEIGHTED[operator])
    if operator in _MOVING or (bits == 8 and operator in _MOVING_8_BITS):
        return IntegerRule("moving")
    if operator in _UNIFYING:
        return IntegerRule("unifying")
    if operator in CUT:
        return IntegerRule("cutting")
    if operator in _READING or (bits == 8 and operator in _READING_8_BITS):
        return IntegerRule("reading")
    if operator in _COMPUTING or bits in _PRESCRIBED.get(operator, ()) or (bits == 8 and operator in _COMPUTING_8_BITS):
        return IntegerRule("computing")
    return None


def version_of(operator, bits):
    """The version of the operator that has the integer kernel."""
    return _VERSIONS.get(operator, (2, 3))[bits == 16]


def has_result(operator, parameters):
    """Whether an operator's kernel gives results in numbers of these `QuantizationParameters`."""
    if operator not in _PRESCRIBED:
        return True
    scale, zero_point = _PRESCRIBED[operator][parameters.bits]
    return parameters.zero_point == zero_point and math.isclose(parameters.scale, scale, rel_tol=1e-5)


def cuts_off(operator, bound, parameters):
    """Whether integers of these parameters end where MAXIMUM or MINIMUM with a constant cuts off, or before."""
    low, high = parameters.range
    half = parameters.scale / 2
    return bool((bound < low + half).all() if operator == "MAXIMUM" else (bound > high - half).all())


def compared(operator, values, parameters, first):
    """The integers that a comparison of integers of these parameters with constants is one with.

    Args:
        operator: name of the comparison.
        values: the constants.
        parameters: of what is compared with them.
        first: whether the constants are its first input.

    Returns:
        An array of integers, or `None` if there are none by which all comparisons come out as with the constants.
    """
    ratio = values.astype("float64") / np.float32(parameters.scale)
    nearest = np.round(ratio)
    exact = np.abs(ratio - nearest) < 1e-4
    if operator in ("EQUAL", "NOT_EQUAL"):
        integers = nearest if exact.all() else np.full(values.shape, np.inf)
    else:  # x > 0.3 and x >= 1 are the same of integers
        downwards = (operator in ("GREATER", "LESS_EQUAL")) != first
        integers = np.where(exact, nearest, np.floor(ratio) if downwards else np.ceil(ratio))
    integers = integers + parameters.zero_point
    reach = 2 ** (parameters.bits - 1)
    return integers if ((integers >= -reach) & (integers < reach)).all() else None
