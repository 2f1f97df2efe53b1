"""A model, run over data step by step, so that each layer's inputs are seen when those before it have been changed.

What flows between two steps is kept for all batches, so that each operation runs once, or twice where it is looked at.
"""

import contextlib
import dataclasses
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import keras
from keras import ops

from keras_mot._keras import flatten_layers, no_gradients, output_structure, takes_training
from keras_mot.graph.functional import as_functional
from keras_mot.graph.model_graph import Graph


@dataclasses.dataclass(frozen=True, eq=False)
class Stop:
    """A place in a graph where a layer is looked at.

    Attributes:
        layer: the layer, which one of the graph's operations is or holds.
        first: the number of the first call of an operation with it.
        last: the number of the last one.
    """

    layer: keras.layers.Layer
    first: int
    last: int


class Walk:
    """A functional model on its way through data.

    Args:
        model: a functional model; models and layers nested in its operations are run as they are.
        batches: list of inputs as the model takes them.
        around: function that returns a context in which operations are called.
    """

    def __init__(
        self,
        model: keras.Model,
        batches: Sequence[Any],
        around: Callable[[], contextlib.AbstractContextManager] = contextlib.nullcontext,
    ):
        functional = as_functional(model)
        self.graph = Graph(model)
        self._around = around
        self._at = 0  # the next call
        self._last_use = _last_uses(self.graph)
        self._kept = [
            {
                id(tensor): ops.convert_to_tensor(leaf, tensor.dtype)
                for tensor, leaf in zip(functional.inputs, keras.tree.flatten(batch), strict=True)
            }
            for batch in batches
        ]

    def stops(self, layers: Sequence[keras.layers.Layer]) -> list[Stop]:
        """Where some layers are called, in the order of the graph; those that are not called are left out."""
        wanted, found = {id(layer): layer for layer in layers}, {}
        for number, call in enumerate(self.graph.calls):
            inner = flatten_layers(call.operation) if isinstance(call.operation, keras.layers.Layer) else ()
            for layer in inner:
                if id(layer) in wanted:
                    before = found.get(id(layer))
                    found[id(layer)] = Stop(layer, number if before is None else before.first, number)
        return sorted(found.values(), key=lambda stop: stop.first)

    def go_to(self, number: int) -> None:
        """Runs all batches up to, but without, the call of this number."""
        if number <= self._at:
            return
        for values in self._kept:
            self._run(values, self._at, number)
            for key in [key for key in values if self._last_use[key] < number]:
                del values[key]
        self._at = number

    def look(self, stop: Stop, see: Callable[..., None]) -> Iterator[None]:
        """Runs each batch through the calls of a layer, and shows its arguments.

        Args:
            stop: of the layer. The walk should be at its first call.
            see: function that is called with the arguments of each call of the layer.

        Yields:
            After each batch.
        """
        for values in self._kept:
            # Copied: what is computed here is computed again once the layer has changed.
            with shown_calls({stop.layer: see}):
                self._run(dict(values), stop.first, stop.last + 1)
            yield

    def outputs(self) -> list[list]:
        """Runs to the end: the outputs of the model, a list of tensors for each batch."""
        self.go_to(len(self.graph.calls))
        return [[values[id(tensor)] for tensor in self.graph.outputs] for values in self._kept]

    def _run(self, values, start, end):
        with no_gradients(), self._around():
            for call in self.graph.calls[start:end]:
                run_call(call, values)


def freeing(model: keras.Model) -> Callable[[Any], Any]:
    """A function of inputs that runs a functional model in inference, and keeps no result longer than it is read.

    Called as a whole, a model keeps all results until the last one is there.

    Args:
        model: a functional model that takes all of its inputs.
    """
    functional, graph = as_functional(model), Graph(model)
    over = {}
    for key, last in _last_uses(graph).items():
        over.setdefault(last, []).append(key)

    def run(inputs):
        leaves = zip(functional.inputs, keras.tree.flatten(inputs), strict=True)
        values = {id(tensor): ops.convert_to_tensor(leaf, tensor.dtype) for tensor, leaf in leaves}
        for number, call in enumerate(graph.calls):
            run_call(call, values)
            for key in over.get(number, ()):
                values.pop(key, None)
        return keras.tree.map_structure(lambda tensor: values[id(tensor)], output_structure(functional))

    return run


def largest_cut(model: keras.Model) -> int:
    """How many bytes a sample takes at most of what flows between two operations of a functional model.

    Axes of open length count as 1.
    """
    graph = Graph(model)
    sizes = {id(tensor): _bytes_of(tensor) for tensor in graph.inputs}
    last_use = _last_uses(graph)
    largest = sum(sizes.values())
    for number, call in enumerate(graph.calls):
        sizes |= {id(tensor): _bytes_of(tensor) for tensor in call.outputs}
        sizes = {key: size for key, size in sizes.items() if last_use[key] > number}
        largest = max(largest, sum(sizes.values()))
    return largest


def _bytes_of(tensor):
    return math.prod(length or 1 for length in tensor.shape[1:]) * (8 if "64" in str(tensor.dtype) else 4)


def _last_uses(graph):
    """Dictionary from the id of a tensor to the number of the last call that reads it, or beyond if it is returned."""
    last = {id(tensor): -1 for tensor in graph.inputs}
    for number, call in enumerate(graph.calls):
        last |= {id(tensor): number for tensor in (*call.inputs, *call.outputs)}
    return last | {id(tensor): len(graph.calls) for tensor in graph.outputs}


def run_call(call: Any, values: dict[int, Any]) -> None:
    """Calls an operation in inference, and notes its outputs.

    Args:
        call: a `Call` of a graph.
        values: dictionary from ids of symbolic tensors to tensors.
    """

    def filled(argument):
        return values[id(argument)] if isinstance(argument, keras.KerasTensor) else argument

    args, kwargs = keras.tree.map_structure(filled, (call.args, dict(call.kwargs)))
    if takes_training(call.operation):
        kwargs["training"] = False
    outputs = keras.tree.flatten(call.operation(*args, **kwargs))
    values.update((id(tensor), output) for tensor, output in zip(call.outputs, outputs, strict=True))


@contextlib.contextmanager
def shown_calls(watchers: dict[keras.layers.Layer, Callable[..., None]]):
    """Context in which functions see the arguments of each call of some layers, wherever these are called from.

    Args:
        watchers: dictionary from a layer to a function that is called with its arguments.
    """
    before = [(layer, vars(layer).get("call")) for layer in watchers]
    for layer, see in watchers.items():
        vars(layer)["call"] = _showing(layer.call, see)  # past what tracks attributes
    try:
        yield
    finally:
        for layer, call in before:
            del vars(layer)["call"]
            if call is not None:
                vars(layer)["call"] = call


def _showing(call, see):
    def shown(*args, **kwargs):
        see(*args, **kwargs)
        return call(*args, **kwargs)

    return shown


@contextlib.contextmanager
def unrolled(model: keras.Model):
    """Context in which recurrent layers run their timesteps one by one, so that their cells' inputs can be seen."""
    changed = []
    for layer in flatten_layers(model):
        if isinstance(layer, keras.layers.RNN):
            for name, value in (("unroll", True), ("use_cudnn", False)):
                if hasattr(layer, name):
                    changed.append((layer, name, getattr(layer, name)))
                    setattr(layer, name, value)
    try:
        yield
    finally:
        for layer, name, value in changed:
            setattr(layer, name, value)
