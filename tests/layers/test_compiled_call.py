"""Models that are called compiled, one after the other, with batches of any size."""

import keras
import numpy as np
import pytest

from keras_mot._keras import compiled_call


@keras.saving.register_keras_serializable("test_compiled_call")
class Counted(keras.layers.Layer):
    """Counts how often its code runs in Python."""

    runs = 0

    def call(self, inputs):
        Counted.runs += 1
        return 2 * inputs


def test_batches_of_other_sizes_are_traced_together(backend):
    if backend != "tensorflow":
        pytest.skip("the others do not warn of retracing")
    model = keras.Sequential([keras.Input((3,)), Counted()])
    call, Counted.runs = compiled_call(model), 0
    for size in (8, 5, 3, 1, 9):
        x = np.ones((size, 3), "float32")
        np.testing.assert_array_equal(call(x), 2 * x)
    assert Counted.runs == 2
