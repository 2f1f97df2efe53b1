"""A read-only view of a functional model: its calls in order, and what makes and reads each tensor."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import keras

from keras_mot._keras import calls_by_depth
from keras_mot.graph.functional import as_functional
from keras_mot.graph.origins import Origins


@dataclasses.dataclass(frozen=True, eq=False)
class Call:
    """One call of a layer or operation in a model.

    Attributes:
        operation: the layer, or operation of `keras.ops`.
        args: its positional arguments: symbolic tensors, structures of them, and constants.
        kwargs: its other arguments.
        inputs: the symbolic tensors among the arguments, in order.
        outputs: the symbolic tensors that it returns, in order.
    """

    operation: Any
    args: tuple
    kwargs: Mapping[str, Any]
    inputs: tuple
    outputs: tuple


class Graph:
    """What calls what in a functional model without nested models. Look-ups go by the objects themselves.

    Nothing here changes a model; `keras_mot.graph.rewrite` makes new ones.

    Args:
        model: a sequential or functional model; a model nested in it is one operation.
        origins: the `Origins` of its operations in the user's model; what is not in it is its own origin.

    Attributes:
        calls: tuple of `Call`, in the order in which they run, without inputs.
        inputs: tuple of the model's symbolic inputs.
        outputs: tuple of its symbolic outputs.

    Raises:
        ValueError: if the model is neither sequential nor functional.
    """

    def __init__(self, model: keras.Model, origins: Origins | None = None):
        functional = as_functional(model)
        if functional is None:
            raise ValueError(
                f"'{model.name}' is a {type(model).__name__}: only sequential and functional models have a graph."
            )
        self._origins = Origins() if origins is None else origins
        self.calls = tuple(_call(node) for node in calls_by_depth(functional) if not node.is_input)
        self.inputs, self.outputs = tuple(functional.inputs), tuple(functional.outputs)
        self._outputs = {id(tensor) for tensor in self.outputs}
        self._producers, self._readers, self._calls = {}, {}, {}
        for call in self.calls:
            self._calls.setdefault(id(call.operation), []).append(call)
            for tensor in call.outputs:
                self._producers[id(tensor)] = call
            for tensor in call.inputs:
                self._readers.setdefault(id(tensor), []).append(call)

    def producer(self, tensor: keras.KerasTensor) -> Call | None:
        """The call that returns a tensor; `None` for an input of the model."""
        return self._producers.get(id(tensor))

    def readers(self, tensor: keras.KerasTensor) -> tuple[Call, ...]:
        """The calls that a tensor is an argument of, once for each time that it is."""
        return tuple(self._readers.get(id(tensor), ()))

    def is_output(self, tensor: keras.KerasTensor) -> bool:
        """Whether the model returns a tensor."""
        return id(tensor) in self._outputs

    def sole_reader(self, tensor: keras.KerasTensor) -> Call | None:
        """The call that alone reads a tensor, which the model does not return; `None` if there are more, or none."""
        readers = self._readers.get(id(tensor), ())
        return readers[0] if len(readers) == 1 and not self.is_output(tensor) else None

    def calls_of(self, operation: Any) -> tuple[Call, ...]:
        """The calls of a layer or operation in this model."""
        return tuple(self._calls.get(id(operation), ()))

    def origin(self, operation: Any) -> Any:
        """The operation of the user's model that this one is, or is a part of."""
        return self._origins.of(operation)


def _call(node):
    arguments = node.arguments
    return Call(
        node.operation,
        tuple(arguments.args),
        dict(arguments.kwargs),
        tuple(arguments.keras_tensors),
        tuple(node.output_tensors),
    )
