"""Batch normalization that moves in front of a concatenation."""

import keras
import numpy as np
from keras import layers

from keras_mot.graph.batch_norm_parts import move_before_concatenations


def test_parts_take_no_name_that_another_layer_has(rng):
    """Keras numbers its layers as one would number the parts: "batch_normalization_1" is the next layer's name."""
    inputs = keras.Input((6,))
    x = layers.Concatenate()([layers.Dense(4)(inputs), layers.Dense(3)(inputs)])
    x = layers.ReLU(name="relu")(layers.BatchNormalization(name="batch_normalization")(x))
    x = layers.ReLU(name="relu_1")(layers.BatchNormalization(name="batch_normalization_1")(layers.Dense(5)(x)))
    model = keras.Model(inputs, x)
    for layer in model.layers:
        if isinstance(layer, layers.BatchNormalization):
            layer.moving_mean.assign(rng.normal(size=layer.moving_mean.shape))
    moved, _ = move_before_concatenations(model)
    assert sum(isinstance(layer, layers.BatchNormalization) for layer in moved.layers) == 3
    data = rng.normal(size=(8, 6)).astype("float32")
    np.testing.assert_allclose(moved.predict(data, verbose=0), model.predict(data, verbose=0), rtol=1e-5, atol=1e-6)
