"""What the tests of clustering count."""

import keras
import numpy as np


def distinct(model, name="kernel"):
    """How many different values each weight of that name has, in order."""
    values = [keras.ops.convert_to_numpy(variable) for variable in model.variables if variable.name == name]
    return [len(np.unique(value)) for value in values]
