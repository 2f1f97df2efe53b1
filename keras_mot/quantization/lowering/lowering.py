"""Breaks layers down into steps that integer runtimes have a kernel for, without changing what is computed."""

import functools
import re
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import keras
import numpy as np
from keras import ops

from keras_mot._keras import own_flag, producer_of
from keras_mot.graph.angles import is_angle
from keras_mot.graph.arguments import accepts, deciding_arguments
from keras_mot.graph.functional import operations_between
from keras_mot.graph.left_out import chosen_scores, left_out
from keras_mot.graph.logarithms import before_logarithms
from keras_mot.graph.model_graph import Graph
from keras_mot.graph.origins import Origins
from keras_mot.graph.rewrite import operations_of, rewrite
from keras_mot.quantization.lowering.moves import Move, unmoved
from keras_mot.quantization.lowering.table import lowering_of
from keras_mot.targets import LITERT

_NUMBER = re.compile(r"_\d+$")


class Lowered(NamedTuple):
    """A model that was broken down.

    Attributes:
        model: the model.
        origins: the `Origins` of its operations in the model before, or in a layer of that: what a layer within another
            does (a layer of `Bidirectional`, a projection of attention) is made from that.
        joined: dictionary from ids of its operations to keys: results of operations with equal keys shall have one
            range.
        moves: dictionary from id(variable) to a `Move` from a variable of the model before. What is not in it is one of
            these itself, or was computed.
    """

    model: keras.Model
    origins: Origins
    joined: dict[int, Any]
    moves: dict[int, Move]


def lower(
    model: keras.Model,
    selected: Callable[[Any], bool] = lambda operation: True,
    fused: Sequence[str] = LITERT.fused,
    bits: int | None = None,
    fast: bool = True,
    masks: bool = False,
) -> Lowered:
    """The same function as a flat model of layers and operations that have integer kernels, where possible.

    Args:
        model: a flat model.
        selected: function from an operation of `model`, or a layer within one, to whether it shall be broken down.
        fused: names of the activations that kernels compute in one step with what is before them.
        bits: bits of activations, to which arrays of constants are rounded; `None` leaves them as they are.
        fast: whether something may be left in floats that has kernels for integers.
        masks: whether scores of which a mask leaves some out are computed in integers.
    """
    lowering = Lowering(selected, fused, {operation.name for operation in operations_of(model)}, bits, fast, masks)
    graph = Graph(model)
    lowering.angles = {id(call.operation) for call in graph.calls if is_angle(graph, call.operation)}
    lowering.angles |= left_out(graph) | before_logarithms(graph)
    lowering.scores = chosen_scores(graph) if masks else lowering.scores
    return Lowered(rewrite(model, lowering), lowering.origins, lowering.joined, lowering.moves)


class Lowering:
    """Calls an operation on new inputs, or the steps that it consists of; what the functions of the table work with.

    Args:
        selected: as of `lower`.
        fused: as of `lower`.
        names: the names of the model's operations.
        bits: as of `lower`.
        fast: as of `lower`.
        masks: as of `lower`.

    Attributes:
        selected: the function.
        fused: the names.
        bits: of activations, or `None`.
        fast: whether something may be left in floats that has kernels.
        masks: as of `lower`.
        affine: what `affine.py` notes of tensors.
        angles: ids of the operations whose results are angles, or go to logarithms, which stay as they are.
        scores: ids of the operations that put a number in place of minus infinity among scores.
        origins: as of `Lowered`, and so are the others.
    """

    def __init__(
        self,
        selected: Callable[[Any], bool],
        fused: Sequence[str],
        names: set[str],
        bits: int | None = None,
        fast: bool = True,
        masks: bool = False,
    ):
        self.selected, self.fused, self._names, self.bits, self.fast = selected, fused, names, bits, fast
        self.masks = masks
        self.angles = self.scores = frozenset()
        self.affine = {}  # id of a tensor -> what it is by channels, as `affine.py` notes it
        self._made = {}  # (id of a layer, part) -> the layer that stands for that part, wherever it is called
        self._named = Origins()  # what has its name in the model
        self.origins, self.joined, self.moves = Origins(), {}, {}

    def __call__(self, operation: Any, *args: Any, **kwargs: Any) -> Any:
        """The results of an operation of the model."""
        outputs = self.within(operation, *args, **kwargs)
        for step in operations_between((args, kwargs), outputs):
            if step not in self._named:
                self._named.note(step, operation)
                self._name(step, operation)
        return outputs

    def _name(self, step, operation):
        """Gives a step a name that no other operation of the model has; the last may keep that of its operation.

        One that has no name of its own, such as a `split_7` of Keras's, gets that of its operation before it, so that
        names in files lead to layers.
        """
        first = step.name
        if not isinstance(step, keras.layers.Layer) and not first.startswith(operation.name):
            first = f"{operation.name}_{_NUMBER.sub('', first)}"
        name, number = first, 1
        while name in self._names and name != operation.name:
            name, number = f"{first}_{number}", number + 1
        self._names.add(name)
        if name != step.name:
            step.name = name

    def steps(self, operation: Any, *args: Any, **kwargs: Any) -> Any:
        """The results of an operation, by the steps that it consists of if the table has some for it."""
        function = lowering_of(operation)
        if function is not None:
            arguments = deciding_arguments(operation, args, kwargs)
            # What has no parameter there changes the result in a way that the steps do not follow.
            outputs = function(self, operation, **arguments) if accepts(function, arguments) else None
            if outputs is not None:
                return outputs
        return operation(*args, **kwargs)

    def within(self, operation: Any, *args: Any, **kwargs: Any) -> Any:
        """The results of an operation, or of one within it that may have settings of its own."""
        call = functools.partial(self.steps, operation) if self.selected(operation) else operation
        outputs = call(*args, **kwargs)
        self.claim(operation, (args, kwargs), outputs)
        return outputs

    def claim(self, operation: Any, inputs: Any, outputs: Any) -> None:
        """Notes that what was called on the way from the inputs to the outputs was made from an operation.

        What was made from a layer within it, and was noted before, stays that layer's.

        Args:
            operation: an operation, or a layer within one.
            inputs: a structure with symbolic tensors in it.
            outputs: another.
        """
        for step in operations_between(inputs, outputs):
            self.origins.note(step, operation)

    def make(self, layer: Any, part: Any, build: Callable[[], Any]) -> Any:
        """The layer that stands for a part of another, wherever that is called.

        Args:
            layer: the layer, or operation, that is broken down.
            part: which part: anything that can be a key.
            build: function without arguments that makes it, called when it is first asked for.
        """
        key = id(layer), part
        if key not in self._made:
            self._made[key] = (build(), layer)  # the layer is kept, so that its id stays its own
        return self._made[key][0]

    def move(
        self,
        source: keras.Variable,
        target: keras.Variable,
        function: Callable[[np.ndarray], np.ndarray] = unmoved,
    ) -> None:
        """Puts the values of one variable into another; a mask and a palette go the same way.

        Args:
            source: the variable whose values are taken.
            target: the variable that gets them.
            function: as of `Move`.
        """
        target.assign(function(np.array(ops.convert_to_numpy(source))))
        if own_flag(target) != own_flag(source):
            target.trainable = own_flag(source)
        move = Move(source, function)
        self.moves[id(target)] = move.after(self.moves[id(source)]) if id(source) in self.moves else move

    def move_all(self, source: keras.layers.Layer, target: keras.layers.Layer) -> None:
        """Puts the values of all variables of a layer into those of one of the same class and shapes."""
        for old, new in zip(source.variables, target.variables, strict=True):
            self.move(old, new)

    def join(self, key: Any, tensor: keras.KerasTensor) -> None:
        """Demands that a tensor has one range with all others of this key."""
        self.joined[id(producer_of(tensor))] = key
