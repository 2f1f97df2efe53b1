"""Inputs that a model is looked at with, in batches."""

import math
from typing import Any

import keras

from keras_mot.data.arrays import part, sample_count
from keras_mot.data.inputs import checked_inputs, fixed_batch_size, labelled_batches
from keras_mot.graph.model_graph import Graph

_KEPT, _TENSORS = 1 << 30, 4  # bytes, and how many activations are in memory at a time: two of each model
_FEWEST = 128


def input_batches(model: keras.Model, data: Any, batch_size: int, samples: int) -> list[Any]:
    """The first samples of data as batches of inputs, checked, in the structure of a model's inputs.

    Args:
        model: a functional model.
        data: inputs as arrays, a tuple of arrays of inputs and of labels, or an iterable of batches of either.
        batch_size: how many samples of arrays make a batch.
        samples: how many samples to take, at most.

    Raises:
        TypeError: if `data` is no data.
        ValueError: if there are none, or they do not fit the model.
    """
    prescribed = fixed_batch_size(model)
    _, pairs = labelled_batches(model, data, prescribed or batch_size, "calibration_data")
    taken, count = [], 0
    for number, (inputs, _) in enumerate(pairs):
        inputs = checked_inputs(model, inputs, f"batch {number} of `calibration_data`")
        if prescribed is None and count + sample_count(inputs) > samples:
            inputs = part(inputs, slice(samples - count))
        taken.append(inputs)
        count += sample_count(inputs)
        if count >= samples:
            break
    if not taken:
        raise ValueError("`calibration_data` is empty: some hundred typical inputs are needed.")
    return taken


def affordable(model: keras.Model, samples: int) -> int:
    """How many samples can be walked through a model, side by side with another one, in about a gigabyte.

    Args:
        model: a functional model.
        samples: how many are wanted.
    """
    shapes = [tensor.shape[1:] for call in Graph(model).calls for tensor in call.outputs]
    largest = max((math.prod(size or 1 for size in shape) for shape in shapes), default=1)
    return min(samples, max(_FEWEST, _KEPT // (4 * _TENSORS * largest)))
