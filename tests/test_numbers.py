"""Settings take NumPy's scalars as they take Python's numbers, and no truth values."""

import dataclasses
import json

import keras
import numpy as np
import pytest

from keras_mot._numbers import is_number, is_whole
from keras_mot.low_rank import FixedRank
from keras_mot.quantization import Calibration
from keras_mot.recipes import Budget, Cluster, FineTune
from keras_mot.recipes._checks import check_seed

pytestmark = pytest.mark.backend_independent
WHOLE = (3, np.int8(3), np.uint64(3))
REAL = (0.5, np.float16(0.5), np.float64(0.5))
NEITHER = (True, np.True_, "3", None, np.array([3]), 3j)


@pytest.mark.parametrize("value", [*WHOLE, *REAL, *NEITHER], ids=repr)
def test_what_is_a_number(value):
    kinds = [type(each) for each in WHOLE]
    assert is_whole(value) == (type(value) in kinds)
    assert is_number(value) == (type(value) in [*kinds, *(type(each) for each in REAL)])


@pytest.mark.parametrize(
    ("make", "value"),
    [
        (FixedRank, np.int64(3)),
        (lambda value: Budget(bytes=value), np.uint32(3)),
        (lambda value: Budget(drop=value), np.float32(0.5)),
        (lambda value: FineTune(epochs=value), np.int16(3)),
        (Cluster, np.int64(16)),
    ],
)
def test_objects_with_numpy_scalars_are_those_with_numbers(make, value):
    made, plain = make(value), make(value.item())
    assert made == plain
    assert json.dumps(keras.saving.serialize_keras_object(made)) == json.dumps(
        keras.saving.serialize_keras_object(plain)
    )


def test_seeds_and_sizes():
    assert type(check_seed(np.uint32(2**32 - 1))) is int
    with pytest.raises(ValueError, match="2\\*\\*32"):
        check_seed(np.True_)
    assert Calibration(np.zeros((4, 2), "float32"), batch_size=np.int64(2)).batch_size == 2


def test_what_is_written_as_json_holds_numbers_of_python():
    for made in (Budget(bytes=np.uint32(3), drop=np.float32(0.5)), FineTune(np.int16(3), np.float32(0.5))):
        assert json.loads(json.dumps(dataclasses.asdict(made))) == dataclasses.asdict(made)
