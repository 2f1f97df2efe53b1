"""Functions of each element that no kernel computes: as tables of what becomes of each integer.

A file has a table as three operators: the integers as positions (CAST, ADD), and what is there in a constant (GATHER).
"""

import keras
import numpy as np
from keras import ops

from keras_mot.graph.model_graph import Graph
from keras_mot.graph.output_names import with_output_names
from keras_mot.graph.rewrite import rewrite
from keras_mot.layers.table_mark import TableMark
from keras_mot.quantization.simulation.placement import quantizer_of
from keras_mot.targets import Target
from keras_mot.transforms.grid import QuantizationParameters


def with_table_marks(model: keras.Model, target: Target) -> tuple[keras.Model, list[np.ndarray]]:
    """A quantized model with marks in place of the operations that tables compute, and what these compute.

    Args:
        model: a quantized model; the new one shares its layers.
        target: the `Target` that it was made for.

    Returns:
        The model, and for each number of a mark the results for all integers of its input, in their order, as floats.
    """
    tables, numbers = [], {}
    for call in Graph(model).calls:
        quantizer = quantizer_of(call.inputs[0]) if len(call.inputs) == 1 and len(call.outputs) == 1 else None
        if quantizer is None or not target.has_table(call.operation, quantizer.bits):
            continue
        parameters = quantizer.parameters()
        key = id(call.operation), parameters
        if key not in numbers:
            numbers[key] = len(tables)
            tables.append(_results(call, parameters))
    if not tables:
        return model, tables

    def marked(operation, *args, **kwargs):
        tensors = [part for part in keras.tree.flatten((args, kwargs)) if keras.utils.is_keras_tensor(part)]
        quantizer = quantizer_of(tensors[0]) if len(tensors) == 1 else None
        number = None if quantizer is None else numbers.get((id(operation), quantizer.parameters()))
        if number is None:
            return operation(*args, **kwargs)
        return TableMark(number, name=f"{operation.name}_table_{number}", dtype="float32")(tensors[0])

    return with_output_names(rewrite(model, marked), list(model.output_names)), tables


def _results(call, parameters):
    """What an operation makes of each integer of these parameters."""
    integers = np.arange(-(2 ** (parameters.bits - 1)), 2 ** (parameters.bits - 1))
    values = np.float32(parameters.scale) * (integers - parameters.zero_point).astype("float32")
    values = ops.convert_to_tensor(values[None])

    def given(part):
        return values if keras.utils.is_keras_tensor(part) else part

    args, kwargs = keras.tree.map_structure(given, (call.args, call.kwargs))
    return ops.convert_to_numpy(call.operation(*args, **kwargs)).astype("float32").reshape(-1)


def integers_of(results: np.ndarray, parameters: QuantizationParameters) -> np.ndarray:
    """The integers that results are rounded to; of what is no number, that of 0."""
    low, high = (np.float32(end) for end in parameters.range)
    cut = np.clip(np.nan_to_num(results, nan=0.0, posinf=high, neginf=low), low, high)
    lowest = -(2 ** (parameters.bits - 1))
    steps = np.floor((cut - low) * np.float32(1.0 / parameters.scale) + np.float32(0.5))
    return np.clip(steps + lowest, lowest, -lowest - 1).astype(f"int{parameters.bits}")
