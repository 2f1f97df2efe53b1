"""The ranges that calibration chooses by default: what suits an activation depends on where it stands.

Squared errors on calibration data follow the few samples with extreme values, which are other ones in data not seen.
So ranges go by what most samples take, and are checked by what share of all values they would cut off.
"""

import dataclasses

import keras
import numpy as np

from keras_mot._config import Config
from keras_mot.graph.kinds import JOINS, SAME, has_role, kind_of
from keras_mot.graph.model_graph import Graph
from keras_mot.layers.activation_quantizer import ActivationQuantizer
from keras_mot.layers.clipping_ranges import CUT_OFF, WORTH
from keras_mot.layers.float_boundary import FloatBoundary
from keras_mot.layers.named_output import NamedOutput
from keras_mot.layers.scores_quantizer import ScoresQuantizer
from keras_mot.quantization.estimators.ranges import MinMax, RangeEstimator

# Extremes of fewer values are nothing rare, and the mean of the samples' extremes would cut off a good part of all.
_MANY = 256
_FEW = 16  # each of so few features matters
_WHOLE = 0.9  # the share of samples that are not cut off, above or below
_FEW_BITS = 8  # with more, there is resolution enough for rare values
_SQUASHING = ("softmax", "sigmoid", "tanh")


@keras.saving.register_keras_serializable("keras_mot")
@dataclasses.dataclass(frozen=True)
class MeanOfSamples(Config, RangeEstimator):
    """From the mean of the samples' least values to that of their greatest, if these are rare: a part of the default.

    Where more than a hundredth of the values would be cut off, it is no rare ones: small images are bright all over, or
    dark.

    Args:
        held: whether training does not widen the range again.
    """

    held: bool = False

    def range(self, seen):
        """See `RangeEstimator.range`."""
        (lows, highs), size = seen.extremes, _group_size(seen)
        return _widened(seen, -mean_of_groups(-lows, size), mean_of_groups(highs, size))


@keras.saving.register_keras_serializable("keras_mot")
@dataclasses.dataclass(frozen=True)
class MostSamples(Config, RangeEstimator):
    """Nine of ten samples are not cut off above, nor below; a part of the default.

    At most a hundredth of all values is cut off on a side, and nothing where less than a fifth of the range is won.
    """

    def range(self, seen):
        """See `RangeEstimator.range`."""
        (lows, highs), size = seen.extremes, _group_size(seen)
        return _widened(seen, -quantile_of_groups(-lows, size, _WHOLE), quantile_of_groups(highs, size, _WHOLE))


def mean_of_groups(greatest: np.ndarray, size: int) -> float:
    """The mean of the greatest numbers of all groups of so many samples, drawn with replacement.

    Args:
        greatest: array of the greatest number of each sample.
        size: samples of a group.
    """
    shares = (np.arange(len(greatest) + 1) / len(greatest)) ** size  # of the groups that lie below each, in order
    return float(np.sort(greatest) @ np.diff(shares))


def quantile_of_groups(greatest: np.ndarray, size: int, share: float) -> float:
    """The number that a share of the greatest numbers of such groups does not exceed."""
    return float(np.quantile(greatest, share ** (1.0 / size)))


def _group_size(seen):
    """How many samples together have many values; all, if it is not known how many a sample has."""
    size = -(-_MANY // seen.size) if seen.size else seen.extremes.shape[1]
    return max(1, min(size, seen.extremes.shape[1]))


def _widened(seen, low, high):
    """A range that cuts off no more than so large a share of the values, and nothing where little is won by it.

    Nor does it cut off anything of a sample's few features.
    """
    if 0 < seen.size <= _FEW:
        return seen.limits
    low, high = min(low, seen.quantile(CUT_OFF)), max(high, seen.quantile(1.0 - CUT_OFF))
    least, greatest = seen.limits
    return (low, high) if greatest - least > WORTH * (high - low) else (least, greatest)


def estimators_by_place(model) -> list[tuple[ActivationQuantizer, RangeEstimator]]:
    """What chooses the range of each quantizer of a model whose range is not fixed, by default.

    - Inputs: nobody chose the scales of features with 8 bits in mind. MFCCs of digital silence lie six times as far
      from 0 as those of any sound.
    - Outputs: the greatest decide, and are what a softmax makes probabilities of, so that nothing is cut off.
    - Steps of recurrent layers: rounding errors add up over the steps, and large values only saturate gates.
    - Nothing is cut off with 16 bits, which have the resolution for rare values, nor of what a mask has left out.
    """
    graph, found = Graph(model), {}
    outputs = _at_outputs(graph)
    for call in graph.calls:
        quantizer = call.operation
        if not isinstance(quantizer, ActivationQuantizer) or quantizer.fixed is not None or id(quantizer) in found:
            continue
        if id(quantizer) in outputs or quantizer.bits > _FEW_BITS or isinstance(quantizer, ScoresQuantizer):
            chosen = MinMax()
        elif graph.producer(call.inputs[0]) is None:
            chosen = MeanOfSamples(held=True)
        elif any(_in_steps(graph, each) for each in graph.calls_of(quantizer)):
            chosen = MeanOfSamples()
        else:
            chosen = MostSamples()
        found[id(quantizer)] = quantizer, chosen
    return list(found.values())


def _in_steps(graph, call):
    """Whether what a quantizer's call rounds is made by an operation that is called more than once."""
    source = graph.producer(call.inputs[0])
    return source is not None and len(graph.calls_of(source.operation)) > 1


def _at_outputs(graph):
    """The ids of the quantizers between which and an output there are but moves, joins and squashing functions."""
    found, ahead = set(), list(graph.outputs)
    while ahead:
        call = graph.producer(ahead.pop())
        if call is None:
            continue
        operation, kind = call.operation, kind_of(call.operation)
        if isinstance(operation, ActivationQuantizer) and operation.fixed is None:
            found.add(id(operation))
            source = graph.producer(call.inputs[0])
            if source is not None and has_role(source.operation, JOINS):
                ahead += source.inputs
        elif isinstance(operation, ActivationQuantizer | FloatBoundary | NamedOutput) or (
            kind is not None and (kind.ranges == SAME or kind.name in _SQUASHING)
        ):
            ahead += call.inputs
    return found
