"""Arrays of any backend."""

import keras
import numpy as np


def to_numpy(structure):
    """The structure, with NumPy arrays in place of tensors, arrays of other libraries, and lists of numbers."""
    return keras.tree.map_structure(_leaf_to_numpy, structure)


def _leaf_to_numpy(leaf):
    return np.asarray(keras.ops.convert_to_numpy(leaf) if keras.ops.is_tensor(leaf) else leaf)


def numpy_value(tensor):
    """A tensor or variable as a NumPy array to read: without a copy where it lies in the host's memory."""
    if isinstance(tensor, keras.Variable):
        tensor = tensor.value
    try:
        return _numpy_views[keras.backend.backend()](tensor)
    except (TypeError, AttributeError, BufferError, RuntimeError, ValueError):
        return np.asarray(keras.ops.convert_to_numpy(tensor))  # on another device, or of a dtype that NumPy lacks


def float_value(weight):
    """The value of a Keras variable as a NumPy array; bfloat16, which NumPy lacks, as float32."""
    if keras.backend.standardize_dtype(weight.dtype) == "bfloat16":
        return keras.ops.convert_to_numpy(keras.ops.cast(weight, "float32"))
    return keras.ops.convert_to_numpy(weight)


def _tensorflow_view(tensor):
    import tensorflow as tf

    return np.asarray(memoryview(tf.convert_to_tensor(tensor)))


_numpy_views = {
    "tensorflow": _tensorflow_view,
    "jax": np.asarray,
    "torch": lambda tensor: tensor.detach().numpy(),
}
