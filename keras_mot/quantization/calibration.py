"""Calibration: the ranges of activations, from the data that a model will see."""

import abc
import dataclasses
import itertools
import math
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_mot._config import Config, EqualByConfig
from keras_mot._keras import compiled_call, no_gradients
from keras_mot._progress import progress_bar
from keras_mot.graph._functional import nodes_of
from keras_mot.layers.activation_quantizer import ActivationQuantizer, activation_quantizers, intercepted
from keras_mot.quantization._placement import quantizer_of

_BINS = 2048
_SEARCHED_SAMPLES = 256
_SEARCHED_SHARES = (1.0, 0.75, 0.55, 0.4, 0.32, 0.25, 0.2)


class RangeEstimator(EqualByConfig, abc.ABC):
    """Base class: chooses the range of an activation from what was seen of it."""

    @abc.abstractmethod
    def range(self, seen: "SeenValues") -> tuple[float, float]:
        """The least and the greatest number that the integers shall stand for."""

    def get_config(self) -> dict:
        """The constructor's arguments."""
        return {}


class SeenValues:
    """What calibration keeps of an activation: limits of each batch, and a histogram of magnitudes on both sides.

    The histogram has equal bins around zero; when larger values come, its bins are joined in pairs.

    Attributes:
        batches: list of (least, greatest) value of each batch.
        counts: int64 array of shape (2048,): how many values lie in each bin.
        reach: the bins divide [-reach, reach].
    """

    def __init__(self):
        self.batches = []
        self.counts = np.zeros(_BINS, "int64")
        self.reach = 0.0

    def add(self, values: np.ndarray, with_histogram: bool = True, further: bool = False) -> None:
        """Takes in the values of one batch, or `further` ones of the batch before."""
        low, high = float(values.min()), float(values.max())
        before = self.batches.pop() if further else (low, high)
        self.batches.append((min(before[0], low), max(before[1], high)))
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

    @property
    def limits(self) -> tuple[float, float]:
        """The least and the greatest value of all batches."""
        lows, highs = zip(*self.batches, strict=True)
        return min(lows), max(highs)

    @property
    def centers(self) -> np.ndarray:
        """The middle of each bin: float64 array of shape (2048,)."""
        return (np.arange(_BINS) + 0.5) * (2 * self.reach / _BINS) - self.reach


@keras.saving.register_keras_serializable("keras_mot")
@dataclasses.dataclass(frozen=True)
class MinMax(Config, RangeEstimator):
    """From the least to the greatest value."""

    def range(self, seen: SeenValues) -> tuple[float, float]:
        """See `RangeEstimator.range`."""
        return seen.limits


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
            raise ValueError(f"`decay` should be in [0, 1); received {self.decay!r}.")

    def range(self, seen: SeenValues) -> tuple[float, float]:
        """See `RangeEstimator.range`."""
        average = np.array(seen.batches[0])
        for count, limits in enumerate(seen.batches[1:], 2):
            average += max(1.0 / count, 1.0 - self.decay) * (np.array(limits) - average)
        return float(average[0]), float(average[1])


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
            raise ValueError(f"`percent` should be above 50, and 100 at most; received {self.percent!r}.")

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

    Args:
        steps: how many steps an activation has, 255 for 8 bits.
    """

    steps: int = 255

    def range(self, seen: SeenValues) -> tuple[float, float]:
        """See `RangeEstimator.range`."""
        low, high = min(seen.limits[0], 0.0), max(seen.limits[1], 0.0)
        filled = np.flatnonzero(seen.counts)
        centers, counts = seen.centers[filled], seen.counts[filled]
        best, chosen = math.inf, (low, high)
        for share in np.linspace(1.0, 0.4, 61):
            for pair in {(low * share, high * share), (low, high * share), (low * share, high)}:
                error = self._error(centers, counts, *pair)
                if error < best:
                    best, chosen = error, pair
        return chosen

    def _error(self, centers, counts, low, high):
        scale = max((high - low) / self.steps, 1e-30)
        cut = np.where(centers > high, centers - high, np.where(centers < low, low - centers, 0.0))
        inside = np.where(cut > 0, 0.0, scale**2 / 12)
        return float(((cut**2 + inside) * counts).sum())


@dataclasses.dataclass(frozen=True)
class Calibration:
    """How the ranges of activations are found.

    Args:
        data: inputs as arrays, or an iterable of batches of inputs or of (inputs, labels); `None` for no calibration.
        estimator: a `RangeEstimator`, or `None` for `MinMax()` with a search for the ranges of inputs.
        batch_size: how many samples of arrays are run at a time.
        progress: whether to show a progress bar; `None`: on a terminal.
    """

    data: Any
    estimator: RangeEstimator | None
    batch_size: int
    progress: bool | None

    def __post_init__(self):
        if self.estimator is not None and not isinstance(self.estimator, RangeEstimator):
            raise TypeError(
                f"`estimator` should be a `RangeEstimator`, such as `MinMax()`; received {self.estimator!r}."
            )
        if isinstance(self.batch_size, bool) or not isinstance(self.batch_size, int) or self.batch_size < 1:
            raise ValueError(f"`batch_size` should be a positive integer; received {self.batch_size!r}.")

    def run(self, model: keras.Model) -> None:
        """Runs a model on the data, without rounding, and sets the range of each of its activation quantizers.

        Raises:
            TypeError: if `data` is no data.
            ValueError: if there is no batch, its shapes do not fit the model, or it makes an activation NaN or
                infinite.
        """
        _calibrate(model, self.data, self.estimator, self.batch_size, self.progress)


def _calibrate(model, data, estimator, batch_size, progress):
    following = [quantizer for quantizer in activation_quantizers(model) if quantizer.fixed is None]
    seen = {id(quantizer): SeenValues() for quantizer in following}
    histogram = not isinstance(estimator, (type(None), MinMax, MovingAverage))
    count, samples, kept = 0, 0, []

    def watch(quantizer, inputs, averages):
        if quantizer.fixed is not None:
            # What comes after sees these limits: a product with a gate would otherwise get the range of its other
            # factor, so that many results were halves of a step, which runtimes round in different ways.
            return ops.clip(inputs, *quantizer.fixed)
        if id(quantizer) in seen and not averages:
            values = np.asarray(ops.convert_to_numpy(ops.cast(inputs, "float32")))
            if not np.isfinite(values.min()) or not np.isfinite(values.max()):
                raise ValueError(
                    f"Batch {count} of the calibration data (counted from 0) makes the activation at "
                    f"'{quantizer.name}' NaN or infinite. Look at that batch."
                )
            so_far = seen[id(quantizer)]
            so_far.add(values, histogram, further=len(so_far.batches) > count)
        return inputs

    with intercepted(watch), progress_bar(progress) as bar:
        task = bar.add_task("calibrating", total=_count(model, data, batch_size))
        for inputs in _batches(model, data, batch_size):
            _check_inputs(model, inputs, count)
            inputs = keras.tree.pack_sequence_as(model.input, keras.tree.flatten(inputs))
            with no_gradients():
                model(inputs, training=False)
            if samples < _SEARCHED_SAMPLES:
                kept.append(inputs)
            samples += len(keras.tree.flatten(inputs)[0])
            count += 1
            bar.advance(task)
    if not count:
        raise ValueError("The calibration data is empty: a batch of typical inputs is needed.")
    chosen = estimator or MinMax()
    for quantizer in following:
        quantizer.set_range(*chosen.range(seen[id(quantizer)]))
    if estimator is None:
        _search_ranges(model, kept)


def _search_ranges(model, batches):
    """Cuts ranges where that brings the outputs nearer to those of the float model.

    Nobody chose the scales of a model's inputs with 8 bits in mind: features such as MFCCs have rare values that
    would cost all others their resolution. The same holds of what recurrent layers add up before a gate, which
    large values saturate. Each such range is tried at shares of what was seen, on either side, by the squared error
    of the outputs while nothing else is rounded.
    """
    expected = _outputs(compiled_call(model), batches, None)
    for quantizer in _searched(model):
        call = compiled_call(model)
        low, high = (float(ops.convert_to_numpy(value)) for value in (quantizer._low, quantizer._high))
        best, chosen = math.inf, (low, high)
        sides = [[side * share for share in _SEARCHED_SHARES] if side else [side] for side in (low, high)]
        for pair in itertools.product(*sides):
            quantizer.set_range(*pair)
            received = _outputs(call, batches, quantizer)
            error = sum(float(((a - b) ** 2).sum()) for a, b in zip(received, expected, strict=True))
            if error < best * (1 - 1e-6):
                best, chosen = error, pair
        quantizer.set_range(*chosen)


def _searched(model):
    """The quantizers behind inputs, and those of terms of a sum that a gate saturates."""
    inputs = {id(tensor) for tensor in model.inputs}
    found = {}
    for node in nodes_of(model):
        if not isinstance(node.operation, ActivationQuantizer):
            continue
        source = node.arguments.keras_tensors[0]
        summation = source._keras_history.operation
        if id(source) in inputs:
            found[id(node.operation)] = node.operation
        elif node.operation.limits is not None and type(summation).__name__ == "Add":
            terms = summation._inbound_nodes[source._keras_history.node_index].arguments.keras_tensors
            quantizers = [quantizer_of(tensor) for tensor in terms]
            found.update((id(item), item) for item in quantizers if item is not None and item.calls == 1)
    return [quantizer for quantizer in found.values() if quantizer.fixed is None]


def _outputs(call, batches, active):
    """The outputs of a model, called by `call`, in which `active` alone rounds, as float64 arrays."""

    def bypass(quantizer, inputs, averages):
        return quantizer.rounded(inputs, averages) if quantizer is active else inputs

    with intercepted(bypass), no_gradients():
        results = [keras.tree.flatten(call(batch)) for batch in batches]
    return [np.asarray(ops.convert_to_numpy(item), "float64") for batch in results for item in batch]


def _is_arrays(model, data):
    """Whether `data` is an array for each input of the model, and not a list of batches."""
    if len(model.inputs) == 1 and isinstance(data, (list, tuple)):
        return False
    leaves = keras.tree.flatten(data)
    arrays = all(isinstance(leaf, np.ndarray) or ops.is_tensor(leaf) for leaf in leaves)
    return arrays and len(leaves) == len(model.inputs)


def _count(model, data, batch_size):
    if _is_arrays(model, data):
        return -(-len(keras.tree.flatten(data)[0]) // batch_size)
    try:
        return len(data)
    except TypeError:
        return None


def _batches(model, data, batch_size):
    """The batches of inputs in the data, in the structure of the model's inputs."""
    if _is_arrays(model, data):
        for start in range(0, len(keras.tree.flatten(data)[0]), batch_size):
            yield keras.tree.map_structure(lambda leaf: leaf[start : start + batch_size], data)  # noqa: B023
        return
    if isinstance(data, (str, bytes)) or not hasattr(data, "__iter__"):
        raise TypeError(
            f"`calibration_data` should be arrays of inputs, or an iterable of batches; received {type(data).__name__}."
        )
    for batch in data:
        # A pair is inputs and labels, unless the model takes two inputs in such a structure.
        pair = isinstance(batch, (tuple, list)) and len(batch) in (2, 3) and len(model.inputs) != len(batch)
        yield batch[0] if pair else batch


def _check_inputs(model, inputs, count):
    given, expected = keras.tree.flatten(inputs), model.inputs
    shapes = [tuple(getattr(leaf, "shape", ())) for leaf in given]
    fits = len(given) == len(expected) and all(
        len(shape) == len(tensor.shape) and all(b in (None, a) for a, b in zip(shape, tensor.shape, strict=True))
        for shape, tensor in zip(shapes, expected, strict=True)
    )
    if not fits:
        wanted = [tuple(tensor.shape) for tensor in expected]
        raise ValueError(
            f"Batch {count} of the calibration data (counted from 0) does not fit the model's inputs. Expected arrays "
            f"of shapes {wanted}; received {shapes}."
        )
    for leaf in given:
        values = np.asarray(ops.convert_to_numpy(leaf) if ops.is_tensor(leaf) else leaf)
        if values.size == 0:
            raise ValueError(f"Batch {count} of the calibration data (counted from 0) is empty.")
        if np.issubdtype(values.dtype, np.floating) and not np.isfinite(values).all():
            raise ValueError(f"Batch {count} of the calibration data (counted from 0) has NaN or infinite values.")
