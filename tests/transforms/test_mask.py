"""The mask by itself, against NumPy."""

import keras
import numpy as np
import pytest
from keras import ops

from keras_mot.transforms import Mask


def make(shape, kept):
    mask = Mask(name="m")
    mask.build(shape)
    mask.assign(kept)
    return mask


def test_it_zeroes_what_is_masked_even_if_not_finite():
    kept = np.array([[True, False, True], [False, True, True]])
    weight = np.array([[1.0, np.nan, -3.0], [np.inf, 5.0, 0.0]], "float32")
    result = ops.convert_to_numpy(make((2, 3), kept).call(ops.convert_to_tensor(weight)))
    np.testing.assert_array_equal(result, [[1, 0, -3], [0, 5, 0]])


def test_it_keeps_one_byte_per_weight():
    mask = make((7, 5), np.ones((7, 5)))
    assert ops.convert_to_numpy(mask.mask).nbytes == 35
    assert [variable.path for variable in mask.trainable_variables] == []


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_it_keeps_the_dtype(dtype):
    weight = ops.ones((2, 2), dtype)
    assert keras.backend.standardize_dtype(make((2, 2), np.eye(2)).call(weight).dtype) == dtype


def test_zeros_counts():
    assert make((3, 3), np.eye(3)).zeros() == 6
