"""Which channels of a model belong together, and which are constant wherever they are used.

Channels that are joined, by adding two branches or by multiplying them, are one group: what is done to one is done to
all. A channel is constant if its value does not depend on the input, as where all weights of a filter are zero.
"""

import dataclasses
from typing import Any

import keras
import numpy as np

from keras_mot.graph.channel_rules import channel_axis, channel_rule
from keras_mot.graph.channel_slots import Channels, Slots
from keras_mot.graph.model_graph import Graph


@dataclasses.dataclass(frozen=True, eq=False)
class ChannelPlan:
    """The channels before and behind an operation that is known to keep channels apart, or to make some.

    Attributes:
        inputs: the `Channels` of its first input.
        outputs: those of its output.
    """

    inputs: Channels
    outputs: Channels


class ChannelGroups:
    """The channels of each tensor of a flat model: which belong together, which are constant, which can go.

    Channels of the model's inputs and outputs, and those that an operation without a rule reads or makes, stay. So do
    those that a layer with a kernel reads, but for constants that its bias can take over, once `keep_read` is called.

    Args:
        model: a functional model without nested models.
        exact: whether a constant must be one at the border, too. One that is not zero is none for a padded convolution,
            which sees zeros beyond the border. Transposed convolutions see them in any case.

    Attributes:
        makers: dictionary from each layer that makes channels to these, as `Channels`; from attention, to its heads.
        blocked: dictionary from layers to how many constants they read that are none at the border.
    """

    def __init__(self, model: keras.Model, exact: bool = True):
        self.exact = exact
        self.graph = Graph(model)
        self.slots = Slots()
        self.makers, self.blocked = {}, {}
        self._known = {}  # id of a tensor -> its channels
        self._plans = {}  # id of an operation -> its plan
        self._read = []  # slots of what layers read, and can take over by no bias
        for tensor in self.graph.inputs:
            self._known[id(tensor)] = Channels.unknown(tensor)
        for call in self.graph.calls:
            self._visit(call)
        for tensor in self.graph.outputs:
            self.slots.keep(self.of(tensor).slots, "the model returns them")

    def of(self, tensor: keras.KerasTensor) -> Channels:
        """The channels of a tensor of the model."""
        return self._known[id(tensor)]

    def plan(self, operation: Any) -> ChannelPlan | None:
        """The channels before and behind an operation (in its last call), or `None` if it has no rule."""
        return self._plans.get(id(operation))

    def groups(self) -> list[list[tuple[keras.layers.Layer, int]]]:
        """The groups of channels that do not have to stay: of each, the (layer, number of the channel) that make it."""
        found = {}
        for layer, channels in self.makers.items():
            for number, slot in enumerate(channels.slots):
                found.setdefault(self.slots.root(slot), []).append((layer, number))
        return [group for slot, group in found.items() if self.slots.reason(slot) is None]

    def keep_read(self) -> None:
        """Lets all channels stay that a layer reads, but for constants that its bias can take over."""
        for slots, reason in self._read:
            self.slots.keep(slots, reason)

    # For the rules

    def make(self, layer: keras.layers.Layer, constants: np.ndarray, axis: int = -1) -> Channels:
        """New channels, which a layer makes."""
        self.makers[layer] = Channels(self.slots.new(len(constants)), np.asarray(constants, "float64"), axis)
        return self.makers[layer]

    def note_read(self, slots: np.ndarray, layer: Any) -> None:
        """Notes that a layer reads channels that its bias cannot take over."""
        self._read.append((slots, f"'{layer.name}' reads them"))

    def that_stay(self, tensor: keras.KerasTensor, layer: Any, why: str) -> Channels:
        """Channels behind a layer that stay, and of which nothing is known."""
        return Channels.that_stay(self.slots, tensor, f"'{layer.name}' {why}")

    def _visit(self, call):
        known = [self.of(tensor) for tensor in call.inputs]
        rule, result = channel_rule(self.graph, call.operation), None
        kind = type(call.operation).__name__
        reason = f"'{call.operation.name}' ({kind}) needs them all: it looks at them together, or has no rule"
        if rule is not None and len(call.outputs) == 1 and len(call.outputs[0].shape) > 1:
            axis = channel_axis(call, known)
            for number, channels in enumerate(known):
                if channels.axis != axis:
                    self.slots.keep(channels.slots, reason)
                    known[number] = Channels.unknown(call.inputs[number], axis)
            result = rule(self, call, known)
        if result is not None:
            self._known[id(call.outputs[0])] = result = result.of_axis(result.axis, len(call.outputs[0].shape))
            self._plans[id(call.operation)] = ChannelPlan(known[0], result)
            return
        for channels in known:
            self.slots.keep(channels.slots, reason)
        for tensor in call.outputs:
            reason = f"they are joined with those of '{call.operation.name}' ({kind}), which has no rule"
            self._known[id(tensor)] = Channels.that_stay(self.slots, tensor, reason)
