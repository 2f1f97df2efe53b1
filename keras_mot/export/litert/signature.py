"""What goes into a model and how it is packed: the model's signature, independent of the backend."""

import dataclasses

import keras
import numpy as np

from keras_mot._messages import describe
from keras_mot.data.naming import input_name, leaf_names, unique_names
from keras_mot.graph.tracing import input_specs


@dataclasses.dataclass(frozen=True)
class InputTensor:
    """One input of a model: its name in the exported file, its shape (`None` where open) and its dtype."""

    name: str
    shape: tuple
    dtype: str


@dataclasses.dataclass(frozen=True)
class Signature:
    """The inputs of a model in the order that flattening gives, and the structure its `call` expects.

    `arguments` holds one structure for each positional argument of `call`; its leaves are the positions of
    the flat inputs.
    """

    inputs: tuple
    arguments: tuple

    def call(self, model, tensors):
        """Calls `model` in inference mode on the flat `tensors`."""
        return model(*self.packed(tensors), training=False)

    def packed(self, tensors):
        """The flat `tensors` as the positional arguments of the model's `call`."""
        return keras.tree.map_structure(lambda position: tensors[position], list(self.arguments))

    def flatten(self, data):
        """Flattens user data, given in the model's own input structure, into a list of NumPy arrays."""
        if len(self.arguments) == 1 and isinstance(data, dict):
            data = self._select_by_name(data)
        leaves = [np.asarray(leaf) for leaf in keras.tree.flatten(data)]
        if len(leaves) != len(self.inputs):
            raise ValueError(
                f"The data does not match the inputs of the model. Expected {len(self.inputs)} array(s), for "
                f"{[tensor.name for tensor in self.inputs]}. Received: {len(leaves)}. Pass the arrays in the "
                f"structure that the model is called with."
            )
        return leaves

    def _select_by_name(self, data):
        """A model of a single tensor or a list of tensors may be fed by a dictionary of input names."""
        names = [tensor.name for tensor in self.inputs]
        if isinstance(self.arguments[0], dict):
            return data
        if set(data) == set(names):
            return [data[name] for name in names]
        return data

    @property
    def fixed_batch_size(self):
        """The batch size that the model itself prescribes, or None."""
        sizes = {tensor.shape[0] for tensor in self.inputs if tensor.shape}
        sizes.discard(None)
        return sizes.pop() if sizes else None


def read_signature(model, input_signature=None):
    """Reads the inputs of a built model, from the model or from what the user states."""
    if input_signature is not None:
        return _from_structures([input_signature], names=None)
    if getattr(model, "inputs", None):
        names = [input_name(tensor) for tensor in model.inputs]
        structure = model.inputs[0] if len(model.inputs) == 1 else list(model.inputs)
        if isinstance(model, keras.Model) and not isinstance(model, keras.Sequential):
            structure = model.input
        if isinstance(structure, dict):  # its keys are what the user feeds the model by
            names = None
        return _from_structures([structure], names)
    return _from_structures(input_specs(model), names=None)


def _from_structures(structures, names):
    flat = keras.tree.flatten(structures)
    for leaf in flat:
        if getattr(leaf, "shape", None) is None or getattr(leaf, "dtype", None) is None:
            raise ValueError(
                f"Every leaf of `input_signature` must have a shape and a dtype, as `keras.InputSpec(shape="
                f"(None, 28, 28, 1), dtype='float32')` has. Received: {describe(leaf)}."
            )
    keys = [path for path in leaf_names(structures)] if names is None else names
    names = unique_names(keys)
    inputs = tuple(
        InputTensor(name, tuple(leaf.shape), keras.backend.standardize_dtype(leaf.dtype))
        for name, leaf in zip(names, flat, strict=True)
    )
    positions = keras.tree.pack_sequence_as(structures, list(range(len(flat))))
    return Signature(inputs, tuple(positions))


def check_inputs(signature, arrays):
    """Checks flat input arrays against the signature: shapes, equal batch, something in it, finite."""
    for tensor, array in zip(signature.inputs, arrays, strict=True):
        expected = tensor.shape[1:]
        if array.ndim != len(tensor.shape) or any(
            size not in (None, given) for size, given in zip(expected, array.shape[1:], strict=True)
        ):
            raise ValueError(
                f"The data for input '{tensor.name}' has another shape than the model's input. Expected: "
                f"(batch, {', '.join(str(size) for size in expected)}). Received: {array.shape}."
            )
        if array.dtype.kind in "OSUMm" and tensor.dtype != "string":
            raise ValueError(
                f"The data for input '{tensor.name}' should be numbers of type {tensor.dtype}. Received: {array.dtype}."
            )
        if np.issubdtype(array.dtype, np.floating) and not np.isfinite(array).all():
            raise ValueError(
                f"The data for input '{tensor.name}' holds NaN or infinite values. Remove them: nothing can "
                f"be compared on such samples."
            )
    counts = sorted({len(array) for array in arrays})
    if len(counts) != 1 or counts[0] == 0:
        raise ValueError(f"All inputs must hold the same number of samples, one or more. Received: {counts} samples.")
    fixed = signature.fixed_batch_size
    if fixed is not None and counts[0] % fixed:
        raise ValueError(
            f"The model prescribes a batch size of {fixed}. Expected a multiple of {fixed} samples. "
            f"Received: {counts[0]}."
        )
    return [array.astype(tensor.dtype) for tensor, array in zip(signature.inputs, arrays, strict=True)]
