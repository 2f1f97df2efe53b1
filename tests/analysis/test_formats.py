"""A format of another runtime is one entry: its files are measured and reported like others."""

import dataclasses
import pathlib
import sys
import types

import numpy as np
import pytest

from keras_mot import _formats
from keras_mot.analysis import measure, sparsity
from keras_mot.recipes.run_folder import is_file_of_a_stage

KERNEL = np.array([[1.0, 0.0], [0.0, 2.0], [3.0, -1.0]], "float32")


@dataclasses.dataclass(frozen=True)
class MatrixExport:
    path: pathlib.Path
    bytes: int
    input_names: tuple = ("x",)
    output_names: tuple = ("y",)

    def run(self, inputs):
        return inputs @ KERNEL


class Runner:
    """The runtime of a file that holds one matrix."""

    batch_size, inputs = None, ()

    def __init__(self, path, num_threads, input_names):
        self._kernel = _matrix(path)

    def run(self, x):
        return {"y": x @ self._kernel}

    def set_inputs(self, x):
        self._x = x

    def invoke(self):
        self.run(self._x)

    def timed_invoke(self):
        self.invoke()
        return 0.002


def _matrix(path):
    return np.frombuffer(pathlib.Path(path).read_bytes()[6:], "float32").reshape(3, 2)


@pytest.fixture
def path(monkeypatch, tmp_path):
    module = types.ModuleType("matrix_format")
    module.runner, module.recognizes = Runner, lambda content: content.startswith(b"MATRIX")
    module.parameters = lambda path: [
        types.SimpleNamespace(name="kernel", values=_matrix(path), dtype="float32", zero_point=0, sparse_encoding=False)
    ]
    monkeypatch.setitem(sys.modules, "matrix_format", module)
    format = _formats.Format("matrix", "Matrix Runtime", ".mtx", (), (), "matrix_format")
    monkeypatch.setitem(_formats.FORMATS, "matrix", format)
    path = tmp_path / "model.mtx"
    path.write_bytes(b"MATRIX" + KERNEL.tobytes())
    return path


def test_files_and_results_of_exports_are_measured(path):
    x = np.random.default_rng(0).standard_normal((20, 3)).astype("float32")
    labels = (x @ KERNEL).argmax(-1)
    labels[:5] = 1 - labels[:5]
    report = measure({"file": path, "export": MatrixExport(path, 30)}, data=(x, labels), progress=False)
    for row in report:
        assert (row.kind, row.bytes, row.metric) == ("matrix", 6 + 24, 0.75)
        assert row.latency_ms == pytest.approx(2.0)
    assert "one sample, 1 thread, Matrix Runtime." in str(report)
    assert sparsity(path) == pytest.approx(2 / 6)


def test_a_run_knows_its_files_by_the_suffixes_of_formats(path):
    assert is_file_of_a_stage("01-prune.mtx")
    assert is_file_of_a_stage("00-float.tflite")
    assert not is_file_of_a_stage("01-prune.npz")


def test_what_is_missing_is_told(monkeypatch):
    format = dataclasses.replace(_formats.DEFAULT, written_with=("no_such_package",))
    with pytest.raises(ImportError, match="'no_such_package' is needed for LiteRT files, and is not installed"):
        format.check_written()


def test_names():
    assert _formats.format_of_name("a/b.tflite") is _formats.DEFAULT
    assert _formats.format_of_name("a/b.keras") is None
