"""Range estimators: which range an activation gets, from what calibration has seen of it."""

import abc
import dataclasses
import math
from typing import Any

import keras
import numpy as np

from keras_mot._config import Config, EqualByConfig
from keras_mot._messages import describe
from keras_mot.layers.clipping_ranges import AveragedRange, moved

_BINS = 2048
_OF_A_SAMPLE = 64  # values that are kept of a sample, or up to twice as many
_MOST_VALUES = 2**16


class RangeEstimator(EqualByConfig, abc.ABC):
    """Base class: chooses the range of an activation from what was seen of it."""

    @abc.abstractmethod
    def range(self, seen: "SeenValues") -> tuple[float, float]:
        """The least and the greatest number that the integers shall stand for."""


class SeenValues:
    """What calibration keeps of an activation: extremes of each sample, limits of each batch, and some of the values.

    Args:
        steps: how many steps the integers of this activation have between the ends of its range: 255 for 8 bits.

    Attributes:
        batches: list of (least, greatest) value of each batch.
        size: how many values there are in a sample.
        counts: int64 array of shape (2048,): how many values lie in each bin of a histogram with equal bins around
            zero. When larger values come, bins are joined in pairs.
        reach: the bins divide [-reach, reach].
    """

    def __init__(self, steps: int = 255):
        self.steps = steps
        self.batches = []
        self.size = 0
        self._extremes = []
        self._values, self._kept, self._share = [], 0, 1.0
        self._generator = np.random.default_rng(0)
        self.counts = np.zeros(_BINS, "int64")
        self.reach = 0.0

    def add(
        self, values: np.ndarray, with_histogram: bool = True, further: bool = False, samples: int | None = None
    ) -> None:
        """Takes in the values of one batch.

        Args:
            values: float array of any shape.
            with_histogram: whether `counts` shall be kept.
            further: whether the values are further ones of the batch before: those of the next step of a recurrent
                layer, or of another layer that has the same range.
            samples: how many samples there are, if the first axis does not count them.

        Raises:
            ValueError: if a value is NaN or infinite.
        """
        rows = rows_of(values, samples, np)
        self.note(np.stack([rows.min(axis=1), rows.max(axis=1)]), some_of(rows), rows.shape[1], further)
        low, high = self.limits
        if not with_histogram:
            return
        largest = max(abs(low), abs(high))
        if not self.reach:
            self.reach = largest * 1.0001 or 0.0
        if not self.reach:
            return
        while largest > self.reach:
            pairs = self.counts.reshape(-1, 2).sum(axis=1)
            self.counts = np.pad(pairs, _BINS // 4)
            self.reach *= 2
        positions = ((values.reshape(-1) + self.reach) * (_BINS / (2 * self.reach))).astype("int64")
        self.counts += np.bincount(np.clip(positions, 0, _BINS - 1), minlength=_BINS)

    def note(self, extremes: np.ndarray, values: np.ndarray, size: int, further: bool = False) -> None:
        """The same, where extremes are known already.

        Args:
            extremes: float array of shape (2, samples): the least and the greatest value of each sample.
            values: float array of some of the values, chosen without regard to their size.
            size: how many values there are in a sample; 0, if that is not known.
            further: as of `add`.

        Raises:
            ValueError: if a value is NaN or infinite.
        """
        extremes = np.asarray(extremes, "float64")
        if not np.isfinite(extremes).all():
            raise ValueError("A value is NaN or infinite.")
        low, high = float(extremes[0].min()), float(extremes[1].max())
        before = self.batches.pop() if further else (low, high)
        self.batches.append((min(before[0], low), max(before[1], high)))
        if further and self._extremes[-1].shape == extremes.shape:
            lows, highs = self._extremes.pop()
            extremes = np.stack([np.minimum(lows, extremes[0]), np.maximum(highs, extremes[1])])
        self._extremes.append(extremes)
        if len(self.batches) == 1:  # of all calls together; samples of other batches have as many
            self.size += size
        self._keep(values.reshape(-1))

    def _keep(self, values):
        """Keeps values up to a number; then ever fewer of what comes, and of what is there, at random."""
        if self._share < 1:
            values = values[self._generator.random(values.size) < self._share]
        self._values.append(np.asarray(values, "float32"))
        self._kept += values.size
        if self._kept > _MOST_VALUES:
            kept = np.concatenate(self._values)
            kept = kept[self._generator.random(kept.size) < 0.5]
            self._values, self._kept, self._share = [kept], kept.size, self._share / 2

    @property
    def extremes(self) -> np.ndarray:
        """The least and the greatest value of each sample: float64 array of shape (2, samples)."""
        return np.concatenate(self._extremes, axis=1)

    def quantile(self, share: float) -> float:
        """The number below which a share of the values lies, about."""
        return float(np.quantile(np.concatenate(self._values), share))

    @property
    def mean_limits(self) -> np.ndarray:
        """The mean of the least and of the greatest values of all samples: float64 array of shape (2,)."""
        return self.extremes.mean(axis=1)

    @property
    def limits(self) -> tuple[float, float]:
        """The least and the greatest value of all batches."""
        lows, highs = zip(*self.batches, strict=True)
        return min(lows), max(highs)

    @property
    def centers(self) -> np.ndarray:
        """The middle of each bin: float64 array of shape (2048,)."""
        return (np.arange(_BINS) + 0.5) * (2 * self.reach / _BINS) - self.reach


def rows_of(values: Any, samples: int | None, array: Any) -> Any:
    """The values of each sample in a row: shape (samples, values of a sample).

    Args:
        values: array or tensor.
        samples: how many samples there are, if the first axis does not count them, but their windows or steps, too.
            What that cannot be divided among them is the same for all, such as a constant, and makes one row.
        array: `numpy` or `keras.ops`.
    """
    first = values.shape[0] if len(values.shape) else 1
    count = first if samples is None else samples if first and first % samples == 0 else 1
    return array.reshape(values, (count, -1))


def some_of(rows: Any) -> Any:
    """Some dozen values of each row, at equal distances that are no multiple of the length of any axis."""
    length = rows.shape[1]
    if length is None:
        return rows[:, :_OF_A_SAMPLE]
    distance = max(1, length // _OF_A_SAMPLE)
    while math.gcd(distance, length) > 1:
        distance += 1
    return rows[:, ::distance]


@keras.saving.register_keras_serializable("keras_mot")
@dataclasses.dataclass(frozen=True)
class MinMax(Config, RangeEstimator):
    """From the least to the greatest value."""

    def range(self, seen: SeenValues) -> tuple[float, float]:
        """See `RangeEstimator.range`."""
        return seen.limits


@keras.saving.register_keras_serializable("keras_mot")
@dataclasses.dataclass(frozen=True)
class MeanMinMax(Config, RangeEstimator):
    """From the mean of the samples' least values to the mean of their greatest.

    About half of the samples have values that are cut off, so it suits activations with rare large ones, and not
    outputs whose largest values matter. Others call it the mean of per-sample statistics (NNCF), or a moving average
    sample by sample (LiteRT Quantizer).
    """

    def range(self, seen: SeenValues) -> tuple[float, float]:
        """See `RangeEstimator.range`."""
        return tuple(seen.mean_limits)


@keras.saving.register_keras_serializable("keras_mot")
@dataclasses.dataclass(frozen=True)
class MovingAverage(Config, RangeEstimator):
    """The moving average of the batches' limits, as in quantization-aware training.

    Args:
        decay: of the average, from 0 to below 1.
    """

    decay: float = 0.9

    def __post_init__(self):
        if not 0 <= self.decay < 1:
            raise ValueError(f"`decay` should be in [0, 1); received {describe(self.decay)}.")

    def range(self, seen: SeenValues) -> tuple[float, float]:
        """See `RangeEstimator.range`."""
        low, high = ends = (0.0, 0.0)
        for count, limits in enumerate(seen.batches):
            low, high = ends = moved(AveragedRange(self.decay), ends, limits, count)
        return float(low), float(high)


@keras.saving.register_keras_serializable("keras_mot")
@dataclasses.dataclass(frozen=True)
class Percentile(Config, RangeEstimator):
    """The range that leaves out a small share of the values on either side.

    Args:
        percent: of the values that lie within the range, from 50 to 100.
    """

    percent: float = 99.99

    def __post_init__(self):
        if not 50 < self.percent <= 100:
            raise ValueError(f"`percent` should be above 50, and 100 at most; received {describe(self.percent)}.")

    def range(self, seen: SeenValues) -> tuple[float, float]:
        """See `RangeEstimator.range`."""
        low, high = seen.limits
        if not seen.reach:
            return low, high
        shares = np.cumsum(seen.counts) / max(seen.counts.sum(), 1)
        outside = (1 - self.percent / 100) / 2
        width = 2 * seen.reach / _BINS
        first, last = np.searchsorted(shares, outside), np.searchsorted(shares, 1 - outside)
        return max(low, first * width - seen.reach), min(high, (last + 1) * width - seen.reach)


@keras.saving.register_keras_serializable("keras_mot")
@dataclasses.dataclass(frozen=True)
class LeastSquares(Config, RangeEstimator):
    """The range for which rounding and cutting off have the least mean squared error together.

    Both sides are searched, from the limits inwards (as in Nagel et al., 2021, "A White Paper on Neural Network
    Quantization", arXiv:2106.08295, section 3.1).
    """

    def range(self, seen: SeenValues) -> tuple[float, float]:
        """See `RangeEstimator.range`."""
        filled = np.flatnonzero(seen.counts)
        centers, counts = seen.centers[filled], seen.counts[filled]
        return _narrowed(seen, 0.4, lambda low, high: _squared_error(centers, counts, low, high, seen.steps))


@keras.saving.register_keras_serializable("keras_mot")
@dataclasses.dataclass(frozen=True)
class Entropy(Config, RangeEstimator):
    """The range for which the distribution of the rounded values says least wrong about that of the values.

    The Kullback-Leibler divergence is taken between histograms, as in NVIDIA's TensorRT (Migacz, 2017, "8-bit inference
    with TensorRT", GPU Technology Conference); other than there, both sides are searched. Values of exactly 0, which
    a ReLU leaves many of, are no reason to cut: 0 is one of the numbers that integers stand for. The histogram has
    2048 bins, so that 16 bits keep all that was seen.
    """

    def range(self, seen: SeenValues) -> tuple[float, float]:
        """See `RangeEstimator.range`."""
        if not seen.reach or seen.steps >= _BINS:
            return seen.limits
        counts = seen.counts.astype("float64")
        middle = _BINS // 2
        counts[middle] = min(counts[middle], max(counts[middle - 1], counts[middle + 1]))

        def divergence(low, high):
            first, last = (int((side + seen.reach) * (_BINS / (2 * seen.reach))) for side in (low, high))
            return _divergence(counts, first, min(last, _BINS - 1) + 1, seen.steps + 1)

        return _narrowed(seen, 0.1, divergence)


def _narrowed(seen, least, cost):
    """The range of least cost among those that reach from all that was seen inwards to the share `least` of it."""
    low, high = min(seen.limits[0], 0.0), max(seen.limits[1], 0.0)
    best, chosen = math.inf, (low, high)
    for share in np.linspace(1.0, least, 61):
        for pair in {(low * share, high * share), (low, high * share), (low * share, high)}:
            error = cost(*pair)
            if error < best:
                best, chosen = error, pair
    return chosen


def _squared_error(centers, counts, low, high, steps):
    scale = max((high - low) / steps, 1e-30)
    cut = np.where(centers > high, centers - high, np.where(centers < low, low - centers, 0.0))
    inside = np.where(cut > 0, 0.0, scale**2 / 12)
    return float(((cut**2 + inside) * counts).sum())


def _divergence(counts, first, last, levels):
    """The divergence of the histogram, cut off to bins `first` to before `last`, from its form with fewer levels."""
    inside = counts[first:last]
    expected = inside.copy()
    expected[0] += counts[:first].sum()
    expected[-1] += counts[last:].sum()
    level = np.arange(len(inside)) * levels // len(inside)
    filled = inside > 0
    shares = np.bincount(level, inside) / np.maximum(np.bincount(level, filled), 1)
    rounded = np.where(filled, shares[level], 0.0)
    if not rounded.any():
        return math.inf
    expected, rounded = expected / expected.sum(), rounded / rounded.sum()
    used = expected > 0
    return float((expected[used] * np.log(expected[used] / np.maximum(rounded[used], 1e-12))).sum())
