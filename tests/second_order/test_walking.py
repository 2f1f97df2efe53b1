"""Models that are run step by step."""

import weakref

import keras
import numpy as np
from keras import layers, ops

from keras_mot.second_order import freeing


def test_results_are_freed_once_they_were_read():
    """Structure and values are those of the model; each result is gone when the next operation but one runs."""
    alive, made = [], []

    class Watched(layers.Layer):
        def call(self, inputs):
            alive.append(sum(each() is not None for each in made))
            result = inputs + 1.0
            made.append(weakref.ref(result))
            return result

    first = x = keras.Input((4,))
    chain = [Watched() for _ in range(5)]
    for layer in chain:
        x = layer(x)
    model = keras.Model({"a": first}, {"last": x, "twice": [x * 2.0]})
    made.clear()
    alive.clear()
    inputs = np.arange(8, dtype="float32").reshape(2, 4)
    result = freeing(model)({"a": inputs})
    assert alive == [0, 1, 1, 1, 1]
    np.testing.assert_array_equal(ops.convert_to_numpy(result["last"]), inputs + 5)
    np.testing.assert_array_equal(ops.convert_to_numpy(result["twice"][0]), 2 * inputs + 10)
