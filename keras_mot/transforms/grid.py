"""The numbers that integers stand for: one formula for their parameters, and one for rounding to them.

Both are written once for NumPy and for `keras.ops`, which have functions of the same names: `array` is one of the two
modules. All is computed in float32, as runtimes do.
"""

import dataclasses
from typing import Any

import numpy as np

LEAST_SCALE = 1e-30
"""The scale of zeros alone, for which any will do. A tiny one, runtimes refuse."""
_ZERO, _HALF, _ONE, _LEAST = (np.float32(value) for value in (0.0, 0.5, 1.0, LEAST_SCALE))
# Scales of blocks have the precision of bfloat16, which XNNPACK computes with, and are numbers of float16, which files
# hold: eight binary digits, from 2 ** -17 on.
_SHORTENING = np.float32(2**16 + 1)
_LEAST_OF_BLOCKS, _LARGEST_OF_BLOCKS = np.float32(2.0**-17), np.float32(2.0**15)


@dataclasses.dataclass(frozen=True)
class QuantizationParameters:
    """How integers stand for real numbers: real = scale * (integer - zero_point).

    Args:
        scale: the distance of two neighbouring numbers.
        zero_point: the integer that stands for 0.
        bits: bits of a signed integer.

    Example:

    ```python
    keras_mot.quantization.QuantizationParameters(0.5, -128, 8).range  # (0.0, 127.5)
    ```
    """

    scale: float
    zero_point: int
    bits: int

    @property
    def range(self):
        """The least and the greatest number."""
        low, high = (-(2 ** (self.bits - 1)), 2 ** (self.bits - 1) - 1)
        return tuple(self.scale * (integer - self.zero_point) for integer in (low, high))


@dataclasses.dataclass(frozen=True)
class Grid:
    """Signed integers of some bits that stand for equally spaced numbers, 0 among them.

    Args:
        bits: bits of an integer.
        symmetric: whether the integer 0 stands for 0; otherwise that is the zero point, whatever the range needs.
        narrow: whether the lowest integer is left out, so that there are as many below 0 as above.
    """

    bits: int = 8
    symmetric: bool = True
    narrow: bool = True

    @property
    def lowest(self) -> int:
        """The lowest integer: -127 of 8 bits if narrow, -128 otherwise."""
        return -(2 ** (self.bits - 1)) + self.narrow

    @property
    def highest(self) -> int:
        """The highest integer: 127 of 8 bits."""
        return 2 ** (self.bits - 1) - 1

    @property
    def steps(self) -> int:
        """How many steps there are between the lowest and the highest integer."""
        return self.highest - self.lowest

    def clipping_range(self, low, high, limits=None, array: Any = np):
        """The range that is left of one, with 0 in it, and not empty.

        Args:
            low: least number, a float32 scalar of `array`.
            high: greatest number.
            limits: (least, greatest) number that it may have, float32 scalars, or `None`.
            array: `numpy` or `keras.ops`.

        Returns:
            The least and the greatest number; NaN, where one of them is. An end that is 0 gets no gradient.
        """
        low, high = array.where(low >= 0, _ZERO, low), array.where(high <= 0, _ZERO, high)
        if limits is not None:
            low, high = array.maximum(low, limits[0]), array.minimum(high, limits[1])
        if self.symmetric:
            high = array.maximum(-low, high)
            high = array.where(high <= _LEAST, _ONE, high)
            return -high, high
        return low, array.where(high - low > _LEAST, high, low + _ONE)

    def scale_and_zero(self, low, high, array: Any = np):
        """The scale of a clipping range, and how many steps 0 lies above the lowest integer.

        Args:
            low: least number, as of `clipping_range`.
            high: greatest number.
            array: `numpy` or `keras.ops`.
        """
        scale = (high - low) / np.float32(self.steps)
        return scale, array.clip(array.floor(-low / scale + _HALF), 0, self.steps)

    def parameters(self, low: float, high: float, limits: tuple[float, float] | None = None) -> QuantizationParameters:
        """The quantization parameters that a range comes to.

        Args:
            low: least number.
            high: greatest number.
            limits: (least, greatest) number that the range may have, or `None`.
        """
        limits = None if limits is None else tuple(map(np.float32, limits))
        scale, zero = self.scale_and_zero(*self.clipping_range(np.float32(low), np.float32(high), limits))
        return QuantizationParameters(float(scale), self.lowest + int(zero), self.bits)

    def scale_of(self, reach, array: Any = np, highest=None):
        """The scale of symmetric integers whose highest stands for `reach`, a float32 array or scalar of at least 0.

        Args:
            reach: of `array`.
            array: `numpy` or `keras.ops`.
            highest: the highest integer, if that is a tensor.
        """
        return array.maximum(reach / (self.highest if highest is None else highest), LEAST_SCALE)

    def integers(self, ratio, array: Any = np):
        """The nearest integers to numbers that were divided by their scale; floats of whole numbers.

        Args:
            ratio: array of numbers, the zero point added if there is one.
            array: `numpy` or `keras.ops`.
        """
        return array.clip(array.round(ratio), self.lowest, self.highest)


def short_scale(scale, array: Any = np):
    """The nearest scales that both float16 and bfloat16 hold exactly, as scales of blocks are stored and computed with.

    Args:
        scale: float32 array of `array`.
        array: `numpy` or `keras.ops`.
    """
    scale = array.minimum(array.maximum(scale, _LEAST_OF_BLOCKS), _LARGEST_OF_BLOCKS)
    large = scale * _SHORTENING  # Dekker, 1971: the upper digits of a number, without a conversion
    return large - (large - scale)


def in_blocks(shape: tuple[int, int], axis: int, size: int) -> tuple[int, ...]:
    """The shape of a matrix in which the numbers of a block have an axis of their own, behind that of the blocks.

    Args:
        shape: of the matrix.
        axis: along which blocks lie, 0 or 1.
        size: numbers of a block.
    """
    return (*shape[:axis], shape[axis] // size, size, *shape[axis + 1 :])


def with_scales_for_zeros(scale: np.ndarray) -> np.ndarray:
    """The scales of slices; zeros alone get the smallest of the others, of which their biases are multiples."""
    known = scale > 10 * LEAST_SCALE
    return np.where(known, scale, scale[known].min() if known.any() else 1.0).astype("float32")


def least_squares_reach(weight: np.ndarray, limit: int, reduced: tuple[int, ...]) -> np.ndarray:
    """The share of the largest magnitude for which rounding to `limit` steps has the least squared error.

    Args:
        weight: float array.
        limit: the largest integer.
        reduced: the axes that share a scale.

    Returns:
        float32 array with length 1 at the `reduced` axes.
    """
    weight = np.asarray(weight, "float32")
    largest = np.maximum(np.abs(weight).max(axis=reduced, keepdims=True), LEAST_SCALE)
    best, reach = np.full(largest.shape, np.inf), np.ones(largest.shape, "float32")
    for share in np.linspace(1.0, 0.3, 29, dtype="float32"):
        scale = largest * share / limit
        error = (np.clip(np.round(weight / scale), -limit, limit) * scale - weight) ** 2
        error = error.sum(axis=reduced, keepdims=True, dtype="float64")
        reach, best = np.where(error < best, share, reach), np.minimum(error, best)
    return reach
