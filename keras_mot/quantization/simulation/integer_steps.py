"""Which operations of a model compute in integers on a target, and which of them are computed in one step."""

import collections

import keras

from keras_mot.graph.angles import is_angle
from keras_mot.graph.kinds import ACTIVATION, JOINS, OWN, PICKS, SAME, has_role, is_kind, kind_of
from keras_mot.graph.left_out import left_out
from keras_mot.graph.model_graph import Graph
from keras_mot.layers.masked_softmax import MaskedScores


class IntegerSteps:
    """What a target makes of the operations of a flat model.

    Args:
        model: a lowered model.
        target: a `Target`.
        bits: bits of activations.
        selected: function from an operation to whether it shall compute in integers.
        joined: dictionary from ids of operations to keys: results of operations of equal keys have one range.
    """

    def __init__(self, model, target, bits, selected, joined):
        self._target, self._bits = target, bits
        self.selected, self.joined = selected, joined
        self.graph = graph = Graph(model)
        self._left_out = left_out(graph)
        self._readers = collections.defaultdict(list)  # id of an operation -> the operations that read its results
        self._together = collections.defaultdict(list)  # id of an operation -> those in one step with it, before it
        self._fused = set()  # ids of operations whose result is rounded by what reads it, computed in one step
        self._ends = set()  # ids of operations that make outputs of the model
        for call in graph.calls:
            for tensor in call.outputs:
                self._readers[id(call.operation)] += [reader.operation for reader in graph.readers(tensor)]
                if graph.is_output(tensor):
                    self._ends.add(id(call.operation))
            once = len(graph.calls_of(call.operation)) == len(call.outputs) == 1
            reader = graph.sole_reader(call.outputs[0]) if once else None
            if reader is not None and self._fuses(call.operation, reader.operation):
                self._fused.add(id(call.operation))
                self._together[id(reader.operation)].append(call.operation)

    def ranges(self, operation):
        """`OWN`, `SAME` or `ROUNDED`: which integers its results have; `None` for what computes in floats."""
        if self.is_left_out(operation) or self.is_angle(operation):
            return None
        if self.selected(operation) and self._target.has_kernel(operation, self._bits):
            return kind_of(operation).ranges
        return None

    def is_left_out(self, operation):
        """Whether it is a softmax of scores of which a number leaves some out, or what puts that number there."""
        return id(operation) in self._left_out

    def is_angle(self, operation):
        """Whether its result is an angle."""
        return is_angle(self.graph, operation)

    def fixed_range(self, operation):
        """The (least, greatest) number that the target demands for the results of an operation, or `None`."""
        kind = kind_of(operation)
        return None if kind is None else self._target.fixed_ranges[self._bits].get(kind.name)

    def _fuses(self, operation, reader):
        """Whether an operation and the only one that reads it are computed in one step, and rounded once."""
        if self.ranges(operation) != OWN or self.fixed_range(operation) is not None or self.ranges(reader) is None:
            return False
        if has_role(reader, JOINS) or isinstance(reader, MaskedScores):
            return True
        if picks_per_channel(reader) or is_kind(reader, "clip"):
            return id(operation) not in self.joined
        plain = getattr(operation, "activation", keras.activations.linear) is keras.activations.linear
        return kind_of(operation).fuses and plain and is_fused_activation(reader, self._target)

    def is_fused(self, operation):
        """Whether the result is rounded by what reads it."""
        return id(operation) in self._fused

    def together(self, operation):
        """The operations before this one that are computed in one step with it."""
        return tuple(self._together[id(operation)])

    def is_end(self, operation):
        """Whether a result is an output of the model."""
        return id(operation) in self._ends

    def leads_to_integers(self, operation):
        """Whether what reads the result, moved on or not, computes in integers."""
        for reader in self._readers[id(operation)]:
            ranges = self.ranges(reader)
            if ranges is not None and (ranges != SAME or self.leads_to_integers(reader)):
                return True
        return False

    def saturation(self, operation, passed=()):
        """The magnitude beyond which all that reads the result, or parts of it, saturates, or `None`."""
        reaches = []
        for reader in self._readers[id(operation)]:
            kind = kind_of(reader)
            if kind is not None and kind.ranges == SAME and kind.role != JOINS and id(reader) not in passed:
                reaches.append(self.saturation(reader, (*passed, id(reader))))  # an LSTM's gates are parts of one sum
                continue
            known = kind is not None and kind.role == ACTIVATION and self.ranges(reader) is not None
            reaches.append(self._target.saturation[self._bits].get(kind.name) if known else None)
        return None if not reaches or None in reaches or self.is_end(operation) else max(reaches)


def picks_per_channel(operation):
    """Whether an operation takes the largest of neighbouring numbers: rounding these first, or the result, is the same.

    After it, there are fewer to round.
    """
    kind = kind_of(operation)
    if kind is None or kind.role != PICKS or not kind.channels_stay:
        return False
    return kind.rank in (None, 1, 2) and getattr(operation, "data_format", "channels_last") == "channels_last"


def is_fused_activation(operation, target):
    """Whether an operation is an activation that kernels of the target compute in one step with what is before it."""
    kind = kind_of(operation)
    return kind is not None and kind.role == ACTIVATION and kind.name in target.fused
