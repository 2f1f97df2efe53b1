"""Arrays of any backend."""

import keras
import numpy as np


def to_numpy(structure):
    """The structure, with NumPy arrays in place of tensors, arrays of other libraries, and lists of numbers."""
    return keras.tree.map_structure(_leaf_to_numpy, structure)


def _leaf_to_numpy(leaf):
    return np.asarray(keras.ops.convert_to_numpy(leaf) if keras.ops.is_tensor(leaf) else leaf)
