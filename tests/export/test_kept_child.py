"""Exports from JAX and PyTorch share the process that converts with TensorFlow, while it does what a new one would."""

import importlib
import os
import signal
import sys
import time

import keras
import numpy as np
import pytest

from keras_mot.export import LiteRTRunner, export_litert
from keras_mot.export.litert.engines import kept_child

pytestmark = [
    pytest.mark.skipif(keras.backend.backend() == "tensorflow", reason="TensorFlow converts in this process"),
    pytest.mark.skipif(os.name == "nt", reason="signals of POSIX systems"),
]
MODULE = "kept_child_layers"
CUSTOM = """
import keras

@keras.saving.register_keras_serializable("kept_child")
class Times(keras.layers.Layer):
    def call(self, inputs):
        return inputs * {factor}
"""


@keras.saving.register_keras_serializable("kept_child")
class NotOnTensorFlow(keras.layers.Layer):
    def call(self, inputs):
        if keras.backend.backend() == "tensorflow":
            raise ValueError("not here")
        return inputs


def layers_module(folder, factor):
    """A module of a user, written and imported, or imported anew."""
    (folder / f"{MODULE}.py").write_text(CUSTOM.format(factor=factor))
    importlib.invalidate_caches()
    return importlib.reload(sys.modules[MODULE]) if MODULE in sys.modules else importlib.import_module(MODULE)


def exported(path, *more):
    """What the file of a small model computes of ones, and the process that made it."""
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2, kernel_initializer="ones"), *more])
    export_litert(model, path, verify=False)
    (outputs,) = LiteRTRunner(path).run(np.ones((1, 3), "float32")).values()
    return float(outputs[0, 0]), kept_child._kept._process.pid


def test_one_process_makes_several_files_and_a_new_one_goes_on_where_it_was_killed(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    module = layers_module(tmp_path, 2)
    value, first = exported(tmp_path / "first.tflite", module.Times())
    assert value == 6.0
    with pytest.raises(ValueError, match="not here"):
        exported(tmp_path / "bad.tflite", NotOnTensorFlow())
    value, second = exported(tmp_path / "second.tflite")
    assert (second, value) == (first, 3.0)

    # What it has imported, or was started with, may no longer be what holds here.
    assert kept_child._kept.suits([module.Times])
    assert not kept_child._kept.suits([layers_module(tmp_path, 5).Times])
    assert not kept_child._kept.suits([])  # the file of the module has changed
    monkeypatch.setattr(kept_child._kept, "_started", time.time() + 60)
    assert kept_child._kept.suits([])
    with monkeypatch.context() as changed:
        changed.setenv("KERAS_MOT_TEST", "1")
        assert not kept_child._kept.suits([])

    os.kill(second, signal.SIGKILL)
    value, third = exported(tmp_path / "third.tflite", sys.modules[MODULE].Times())
    assert third != second
    assert value == 15.0


def test_a_process_that_ends_without_an_answer_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "executable", "/bin/false")
    monkeypatch.setattr(kept_child, "_kept", None)
    with pytest.raises(RuntimeError, match="ended with status 1"):
        exported(tmp_path / "file.tflite")
    assert kept_child._kept is None
    assert list(tmp_path.iterdir()) == []
