import ctypes

import keras
import pytest

from keras_mot import _memory


@pytest.mark.parametrize("error", [OSError, AttributeError, TypeError])
def test_where_the_c_library_gives_nothing_back(error, monkeypatch):
    """On Windows there is no handle of the process, and beside glibc no such function."""

    def no_library(name):
        raise error(name)

    model = keras.Sequential([keras.layers.Input((3,)), keras.layers.Dense(2)])
    collected = []
    monkeypatch.setattr(_memory.gc, "collect", lambda: collected.append(1))
    monkeypatch.setattr(ctypes, "CDLL", no_library)
    _memory.free_discarded(model)
    assert not collected  # a small model is not worth the time
    monkeypatch.setattr(_memory, "_LARGE", 0)
    _memory.free_discarded(model)
    assert collected == [1]
