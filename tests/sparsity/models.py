"""Small models and data for the tests of pruning."""

import keras
import numpy as np
from keras import layers


def classifier():
    """Dense layers and batch normalization: 12 features, 3 classes."""
    return keras.Sequential(
        [
            layers.Input((12,)),
            layers.Dense(20, activation="relu", name="first"),
            layers.BatchNormalization(name="norm"),
            layers.Dense(16, activation="relu", name="second"),
            layers.Dense(3, name="head"),
        ]
    )


def batches(steps=8, size=16):
    """Features and labels for `steps` batches of `size`."""
    generator = np.random.default_rng(3)
    return generator.standard_normal((steps * size, 12)).astype("float32"), generator.integers(0, 3, steps * size)


def compiled(model, **settings):
    """The model, ready to train."""
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(1e-3), loss, metrics=["accuracy"], **settings)
    return model


def zeros(model, names=("kernel",)):
    """How many entries are zero in each weight of one of the names, in order."""
    values = [keras.ops.convert_to_numpy(variable) for variable in model.variables if variable.name in names]
    return [int(value.size - np.count_nonzero(value)) for value in values]
