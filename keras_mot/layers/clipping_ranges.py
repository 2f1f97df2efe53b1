"""How the clipping range of an activation comes about: it is given, held, follows the batches, or is trained.

A range that follows does so by the same formula in training and in calibration (`MovingAverage`, `MinMax`).
"""

import dataclasses
from typing import Any, ClassVar

import numpy as np

CUT_OFF = 0.01
"""The share of the values that may lie above a range, and below."""
WORTH = 1.25
"""How much wider a range must be for something to be cut off: less resolution is not worth it."""


@dataclasses.dataclass(frozen=True)
class ClippingRange:
    """Base class: a range that training leaves as it is, once it has been set."""

    follows: ClassVar[bool] = False
    """Whether training moves it by the extremes of each batch."""
    trained: ClassVar[bool] = False
    """Whether training moves it by its gradient."""

    @property
    def settled_after(self) -> float:
        """How many calls a range counts for that was set: the first batch of training moves it no more than others."""
        return 1.0


@dataclasses.dataclass(frozen=True)
class FixedRange(ClippingRange):
    """A range that is given, and that calibration keeps, too.

    Args:
        low: the least number.
        high: the greatest number.
    """

    low: float
    high: float


@dataclasses.dataclass(frozen=True)
class LearnedRange(ClippingRange):
    """A range whose ends are trained."""

    trained: ClassVar[bool] = True


@dataclasses.dataclass(frozen=True)
class AveragedRange(ClippingRange):
    """An exponential moving average of the extremes of batches, which starts with the first.

    Args:
        decay: of the average.
        calls: how often the range is moved in one step. If that is more than once, it follows the extremes of all
            calls: each call shrinks it by as much less.
        of_samples: whether the mean of the samples' extremes takes the place of those of the batch where these are
            rare, see `typical_extremes`.
    """

    decay: float = 0.99
    calls: int = 1
    of_samples: bool = False

    follows: ClassVar[bool] = True

    @property
    def settled_after(self):
        """See `ClippingRange.settled_after`."""
        return self.calls / (1.0 - self.decay)

    def shares(self, batches, array):
        """The shares of the way to the extremes that the ends move, outwards and inwards."""
        outwards = array.maximum(1.0 / (array.floor(batches / self.calls) + 1.0), 1.0 - self.decay)
        return outwards, array.where(batches > 0, outwards / self.calls, 1.0)


@dataclasses.dataclass(frozen=True)
class WideningRange(AveragedRange):
    """All values of all batches."""

    def shares(self, batches, array):
        """See `AveragedRange.shares`."""
        return 1.0, 0.0


def moved(kind: AveragedRange, ends: tuple, extremes: tuple, batches: Any, array: Any = np) -> tuple:
    """The ends of a range once it has followed a batch.

    Args:
        kind: how it follows.
        ends: (low, high), of which the first batch keeps nothing if it is averaged.
        extremes: the least and the greatest value of the batch, or of each channel.
        batches: how many calls it has followed before.
        array: `numpy` or `keras.ops`, whose arrays or scalars these are.
    """
    outwards, inwards = kind.shares(batches, array)
    changes = [(end, value - end, sign) for end, value, sign in zip(ends, extremes, (-1.0, 1.0), strict=True)]
    return tuple(end + array.where(sign * change > 0, outwards, inwards) * change for end, change, sign in changes)


def typical_extremes(samples: Any, array: Any = np) -> tuple:
    """The means of the least and of the greatest values of samples; the extremes of all, where they are nothing rare.

    Where more than a hundredth of the values would be cut off on a side, as in images that are bright all over, its
    extreme of all stays; and both, where less than a fifth of the range would be won.

    Args:
        samples: float array of shape (samples, values).
        array: `numpy` or `keras.ops`, whose array it is.
    """
    least, greatest = array.min(samples), array.max(samples)
    low, high = array.mean(array.min(samples, axis=-1)), array.mean(array.max(samples, axis=-1))
    low = array.where(array.mean(array.where(samples < low, 1.0, 0.0)) > CUT_OFF, least, low)
    high = array.where(array.mean(array.where(samples > high, 1.0, 0.0)) > CUT_OFF, greatest, high)
    worth = greatest - least > WORTH * (high - low)
    return array.where(worth, low, least), array.where(worth, high, greatest)


def range_of(
    decay: float | None, fixed: tuple | None, calls: int, learned: bool, widening: bool, of_samples: bool = False
) -> ClippingRange:
    """The range that the arguments of `ActivationQuantizer` ask for."""
    if fixed is not None:
        return FixedRange(*fixed)
    if learned:
        return LearnedRange()
    if decay is None:
        return ClippingRange()
    return WideningRange(decay, calls) if widening else AveragedRange(decay, calls, of_samples)


def settings_of(kind: ClippingRange) -> dict[str, Any]:
    """The arguments of `ActivationQuantizer` that ask for a range; those that say nothing of it have their defaults."""
    settings = {"decay": 0.99, "fixed": None, "learned": kind.trained, "widening": isinstance(kind, WideningRange)}
    settings["of_samples"] = isinstance(kind, AveragedRange) and kind.of_samples
    if isinstance(kind, FixedRange):
        return {**settings, "fixed": (kind.low, kind.high)}
    return settings if kind.trained else {**settings, "decay": kind.decay if kind.follows else None}
