import pathlib
import warnings

import keras
import numpy as np
import pytest

import keras_mot
from keras_mot._warnings import warn
from keras_mot.low_rank import FixedRank, factorize
from keras_mot.sparsity import prune_at_once


def lines_of(run):
    """The files and lines that are named by what a function warns of."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        run()
    return [(item.filename, item.lineno) for item in caught]


def test_the_line_of_the_user_is_named():
    run = lambda: warn("mind this")  # noqa: E731
    assert lines_of(run) == [(__file__, run.__code__.co_firstlineno)]


def test_a_filter_counts_each_line_once():
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default")
        for _ in range(3):
            warn("mind this, once")
    assert len(caught) == 1


def test_errors_can_be_made_of_warnings():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(UserWarning, match="mind this"):
            warn("mind this")


def model_of(units):
    keras.utils.set_random_seed(0)
    return keras.Sequential([keras.layers.Input((6,)), keras.layers.Dense(units), keras.layers.Dense(2)])


def test_however_deep_the_warning_is():
    few = np.zeros((1, 6), "float32")
    for run in (lambda: factorize(model_of(4), FixedRank(4)), lambda: prune_at_once(model_of(8), few, 0.9)):
        lines = lines_of(run)
        assert (__file__, run.__code__.co_firstlineno) in lines
        assert not any(pathlib.Path(keras_mot.__file__).parent in pathlib.Path(name).parents for name, _ in lines)
