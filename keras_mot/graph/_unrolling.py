"""Recurrent layers with a cell of one's own, as calls of that cell, one for each timestep."""

from typing import Any

import keras
import numpy as np
from keras import layers, ops

from keras_mot.graph.functional import is_a

_LONGEST = 256


def is_unrollable(operation: Any, opens: Any) -> bool:
    """Whether a layer is an `RNN` of one cell that may be taken apart, and keeps no state between batches.

    Args:
        operation: a layer or operation.
        opens: function from a layer to whether it may be taken apart.
    """
    return is_a(operation, layers.RNN) and not operation.stateful and opens(operation.cell)


def timesteps_of(layer: keras.layers.RNN, args: tuple, kwargs: dict) -> list | None:
    """The inputs of the timesteps in the order of the computation; `None` for a call that is not unrolled."""
    given = {name for name, value in kwargs.items() if value is not None} - {"training", "initial_state"}
    tensors = [each for each in args if isinstance(each, keras.KerasTensor)]
    if given or len(args) != 1 or len(tensors) != 1 or len(tensors[0].shape) < 3:
        return None
    count = tensors[0].shape[1]
    if count is None or count > _LONGEST or not _starts_at_zero(layer.cell):
        return None
    order = reversed(range(count)) if layer.go_backwards else range(count)
    return [tensors[0][:, number] for number in order]


def _starts_at_zero(cell):
    if not all(isinstance(size, int) for size in keras.tree.flatten(cell.state_size)):
        return False
    start = getattr(cell, "get_initial_state", None)
    states = [] if start is None else keras.tree.flatten(start(batch_size=1))
    return not any(np.any(ops.convert_to_numpy(state)) for state in states)


def first_states(layer: keras.layers.RNN, first: keras.KerasTensor, given: Any) -> list:
    """The states before the first timestep: those given, or zeros for as many samples as `first` has."""
    if given is not None:
        return keras.tree.flatten(given)
    zero = ops.reshape(first, (-1, int(np.prod(first.shape[1:]))))[:, :1] * 0.0
    return [ops.repeat(zero, size, axis=1) for size in keras.tree.flatten(layer.cell.state_size)]


def result_of(layer: keras.layers.RNN, outputs: list, states: Any) -> Any:
    """What the layer returns, from the outputs of all timesteps and the last states."""
    result = ops.stack(outputs, axis=1) if layer.return_sequences else outputs[-1]
    return (result, *keras.tree.flatten(states)) if layer.return_state else result
