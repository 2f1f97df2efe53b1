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


def _tensorflow_view(tensor):
    import tensorflow as tf

    return np.asarray(memoryview(tf.convert_to_tensor(tensor)))


_numpy_views = {
    "tensorflow": _tensorflow_view,
    "jax": np.asarray,
    "torch": lambda tensor: tensor.detach().numpy(),
}
