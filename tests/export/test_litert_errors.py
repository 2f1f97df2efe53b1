"""Exports that must fail: with a clear error, before work where possible, and without touching any file."""

import os
import subprocess
import sys
import tempfile

import export_custom_layers
import keras
import numpy as np
import pytest

from keras_mot.export import ExportVerificationError, export_litert
from keras_mot.export.dependencies import require
from keras_mot.export.litert.judging import RULES
from keras_mot.export.litert.verification import _compare_output

on_tensorflow = keras.backend.backend() == "tensorflow"
only_tensorflow = pytest.mark.skipif(not on_tensorflow, reason="the conversion is the same on every backend")
not_tensorflow = pytest.mark.skipif(on_tensorflow, reason="converts in this process")


@pytest.fixture
def no_conversion(monkeypatch):
    """Makes any attempt to convert a failure: the error must come before."""

    def refuse(*arguments):
        raise AssertionError("a conversion was started")

    engines = dict.fromkeys(("tensorflow", "tensorflow-subprocess"), refuse)
    monkeypatch.setattr("keras_mot.export.litert.exporting._ENGINES", engines)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"weights": "int3"}, ValueError, "`weights` must be one of"),
        ({"sparse_encoding": "yes"}, ValueError, "`sparse_encoding` must be 'auto', True or False"),
        ({"batch_size": 0}, ValueError, "`batch_size` must be 1 or more"),
        ({"batch_size": 1.5}, TypeError, "`batch_size` must be an integer"),
        ({"verify": "no"}, TypeError, "`verify` must be True or False"),
        ({"tolerance": "small"}, TypeError, "`tolerance` must be a number"),
        ({"tolerance": -1.0}, ValueError, "`tolerance` must be greater than 0"),
        ({"input_signature": 3}, ValueError, "must have a shape and a dtype"),
        ({"verification_data": np.zeros((3, 5))}, ValueError, r"Expected: \(batch, 6\)"),
        ({"verification_data": np.zeros((0, 6))}, ValueError, "one or more"),
        ({"verification_data": np.full((2, 6), np.nan)}, ValueError, "NaN"),
        ({"verification_data": [np.zeros((2, 6))] * 2}, ValueError, r"Expected 1 array\(s\)"),
    ],
)
def test_wrong_options(options, error, message, small_model, tmp_path, no_conversion):
    with pytest.raises(error, match=message):
        export_litert(small_model, tmp_path / "model.tflite", **options)
    assert not any(tmp_path.iterdir())


def test_wrong_paths(small_model, tmp_path, no_conversion, monkeypatch):
    with pytest.raises(ValueError, match="does not exist"):
        export_litert(small_model, tmp_path / "missing" / "model.tflite")
    with pytest.raises(ValueError, match="is a folder; name a file"):
        export_litert(small_model, tmp_path)
    with pytest.raises(TypeError, match="`path` must be the path"):
        export_litert(small_model, 3)
    with pytest.raises(ValueError, match="is too long for the file system"):
        export_litert(small_model, tmp_path / ("n" * 300))
    with pytest.raises(ValueError, match=r"is a device; name a file, such as 'small\.tflite'"):
        export_litert(small_model, os.devnull)
    assert not os.path.isfile(os.devnull)

    def refuse(**arguments):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(tempfile, "TemporaryFile", refuse)
    with pytest.raises(ValueError, match="cannot be written to: Read-only file system"):
        export_litert(small_model, tmp_path / "model.tflite")


@pytest.mark.parametrize("name", ["mine.keras", "mine.h5", "mine.onnx", "data.npz", "recipe.yaml", "train.py"])
def test_files_of_other_formats_stay(name, small_model, tmp_path, no_conversion):
    (tmp_path / name).write_text("precious")
    with pytest.raises(ValueError, match=r"has the suffix of .*; expected \.tflite or \.lite, such as '.*\.tflite'"):
        export_litert(small_model, tmp_path / name)
    assert (tmp_path / name).read_text() == "precious"


def test_not_a_model(tmp_path, no_conversion):
    with pytest.raises(TypeError, match=r"must be a keras\.Model.*Received: str"):
        export_litert("model.keras", tmp_path / "model.tflite")


def test_unbuilt_model(tmp_path, no_conversion):
    model = keras.Sequential([keras.layers.Dense(2)], name="fresh")
    with pytest.raises(ValueError, match="'fresh' is not built"):
        export_litert(model, tmp_path / "model.tflite")


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_weights_that_are_not_finite(value, small_model, tmp_path, no_conversion):
    kernel = small_model.layers[0].kernel
    values = np.array(keras.ops.convert_to_numpy(kernel))
    values[0, :2] = value
    kernel.assign(values)
    with pytest.raises(ValueError, match=r"'.*first/kernel' holds 2 value"):
        export_litert(small_model, tmp_path / "model.tflite")


def test_layer_that_still_carries_transforms(small_model, tmp_path, no_conversion, monkeypatch):
    layer = small_model.layers[0]
    layer.__class__ = type("Transformed", (keras.layers.Dense,), {"_keras_mot_transformed": True})
    with pytest.raises(ValueError, match=r"'.*first' still carries weight transforms. Strip the model"):
        export_litert(small_model, tmp_path / "model.tflite")


def test_half_precision_variables(tmp_path, no_conversion):
    model = keras.Sequential([keras.Input((6,)), keras.layers.Dense(2, dtype="float16", name="half")])
    with pytest.raises(ValueError, match=r"'.*half' stores its weights as float16"):
        export_litert(model, tmp_path / "model.tflite")


@pytest.mark.parametrize(
    ("missing", "message"),
    [
        (["tensorflow"], r"'tensorflow' is needed.* not installed.*pip install tensorflow \(or tensorflow-cpu"),
        (["ai_edge_litert"], r"'ai_edge_litert' is needed.* not installed.*pip install ai-edge-litert$"),
        (
            ["tensorflow", "ai_edge_litert"],
            r"'tensorflow', 'ai_edge_litert' are needed.*install tensorflow ai-edge-l",
        ),
    ],
)
def test_missing_packages(missing, message, small_model, tmp_path, no_conversion, monkeypatch):
    for package in missing:
        monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ImportError, match=message):
        export_litert(small_model, tmp_path / "model.tflite")


def test_a_package_that_fails_to_import_is_not_called_missing(monkeypatch, tmp_path):
    (tmp_path / "broken_package.py").write_text("import a_module_that_nobody_has")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ImportError, match=r"'broken_package' is needed.*import fails: No module named 'a_module_that"):
        require("broken_package")
    with pytest.raises(ImportError, match="not installed"):
        require("a_module_that_nobody_has.part")


def test_subclassed_model_of_unknown_inputs(tmp_path, no_conversion):
    class Plain(keras.Model):
        def call(self, x):
            return x

    model = Plain(name="plain")
    model.built = True
    with pytest.raises(ValueError, match=r"'plain' are not known.*`input_signature="):
        export_litert(model, tmp_path / "model.tflite")


@only_tensorflow
def test_unsupported_operation_names_it_and_its_layer(tmp_path):
    inputs = keras.Input((4,))
    model = keras.Model(inputs, keras.layers.Lambda(keras.ops.erfinv, name="inverse")(inputs))
    with pytest.raises(ValueError, match=r"Erfinv in '.*inverse.*Erfinv'"):
        export_litert(model, tmp_path / "model.tflite")
    assert not any(tmp_path.iterdir())


@not_tensorflow
def test_error_of_the_child_process_reaches_the_user(tmp_path):
    inputs = keras.Input((4,))
    model = keras.Model(inputs, keras.ops.erfinv(inputs))
    with pytest.raises(ValueError, match="The model uses Erfinv"):
        export_litert(model, tmp_path / "model.tflite")
    assert not any(tmp_path.iterdir())


@not_tensorflow
def test_custom_classes_that_a_child_process_cannot_find(tmp_path, monkeypatch):
    monkeypatch.setattr(subprocess, "run", None)  # no child process may be started

    @keras.saving.register_keras_serializable(package="export_tests")
    class Local(keras.layers.Layer):
        def call(self, x):
            return x

    class Script(keras.layers.Layer):
        __qualname__ = "Script"

        def call(self, x):
            return x

    Script.__module__ = "__main__"
    cases = [
        (Local(name="local"), "local' is of the class '.*Local', which is defined inside a function"),
        (Script(name="script"), "script' is of the class 'Script', which is defined in the main script"),
        (
            export_custom_layers.Unregistered(),
            "'Unregistered', which is not registered",
        ),
    ]
    for layer, message in cases:
        model = keras.Sequential([keras.Input((3,)), layer])
        with pytest.raises(ValueError, match=message + ".*KERAS_BACKEND=tensorflow"):
            export_litert(model, tmp_path / "model.tflite")


class TwoArguments(keras.Model):
    def __init__(self):
        super().__init__(name="pair")
        self.dense = keras.layers.Dense(2)

    def call(self, x, y):
        return self.dense(x) + self.dense(y)


def test_subclassed_model_of_two_arguments(tmp_path, no_conversion):
    model = TwoArguments()
    model(np.zeros((2, 3), "float32"), np.zeros((2, 3), "float32"))
    with pytest.raises(ValueError, match=r"'pair' takes several arguments, \['x', 'y'\]"):
        export_litert(model, tmp_path / "model.tflite")


@only_tensorflow
def test_model_of_one_batch_size_asks_for_it(tmp_path):
    inputs = keras.Input((8,))
    reshape = keras.layers.Lambda(lambda x: keras.ops.reshape(x, (1, 8)), output_shape=(8,))
    model = keras.Model(inputs, reshape(inputs))
    with pytest.raises(ValueError, match=r"cannot be called on the verification data, .*`batch_size` if"):
        export_litert(model, tmp_path / "model.tflite")
    assert export_litert(model, tmp_path / "model.tflite", batch_size=1).max_abs_error == 0


def overwrite(tmp_path):
    old = tmp_path / "model.tflite"
    old.write_bytes(b"old content")
    return old


def assert_untouched(old):
    assert old.read_bytes() == b"old content"
    assert list(old.parent.iterdir()) == [old]


@only_tensorflow
def test_mismatch_leaves_the_old_file(small_model, tmp_path):
    old = overwrite(tmp_path)
    with pytest.raises(ExportVerificationError, match=r"differs from the Keras model's by up to"):
        export_litert(small_model, old, weights="float16", tolerance=1e-9)
    assert_untouched(old)


@only_tensorflow
def test_weights_beyond_float16_are_found(small_model, tmp_path):
    old = overwrite(tmp_path)
    small_model.layers[0].kernel.assign(np.full((6, 4), 1e6))
    with pytest.raises(ExportVerificationError, match="differs from the Keras model's"):
        export_litert(small_model, old, weights="float16")
    assert_untouched(old)


@only_tensorflow
def test_model_whose_outputs_are_not_finite(tmp_path):
    model = keras.Sequential([keras.Input((3,)), keras.layers.Rescaling(1e38), keras.layers.Rescaling(1e38)])
    with pytest.raises(ExportVerificationError, match="of the Keras model is not finite"):
        export_litert(model, tmp_path / "model.tflite")


def test_outputs_of_the_file_that_are_not_finite_or_of_another_shape():
    expected = np.ones((2, 3), "float32")
    received = expected.copy()
    received[1, 1] = np.nan
    with pytest.raises(ExportVerificationError, match="'scores' of the exported file is not finite"):
        _compare_output("scores", received, expected, RULES["float32"], 0.0)
    with pytest.raises(ExportVerificationError, match="'scores' in another shape"):
        _compare_output("scores", received[:1], expected, RULES["float32"], 0.0)
    found = _compare_output("scores", expected + 1e-4, expected, RULES["float32"], 0.0)
    assert found.error == pytest.approx(1e-4, rel=1e-2)


@only_tensorflow
def test_failing_write_leaves_nothing_behind(small_model, tmp_path, monkeypatch):
    old = overwrite(tmp_path)

    def fail(*arguments):
        raise OSError("disk full")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="disk full"):
        export_litert(small_model, old)
    assert_untouched(old)


@only_tensorflow
def test_sparse_encoding_that_cannot_be_fulfilled(small_model, tmp_path):
    with pytest.raises(ValueError, match="`sparse_encoding=True` cannot be fulfilled: no weight has enough"):
        export_litert(small_model, tmp_path / "model.tflite", sparse_encoding=True)
    assert not any(tmp_path.iterdir())
