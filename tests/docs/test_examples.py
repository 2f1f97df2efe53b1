"""The example scripts run, those that train for long on little. They are the same on every backend, and run on one."""

import pathlib
import runpy

import pytest

from keras_mot._packages import is_installed

EXAMPLES = sorted((pathlib.Path(__file__).resolve().parents[2] / "examples").glob("*.py"))
NEEDED = {"translation": ("num2words", "babel", "sacrebleu")}
"""Packages of the extra `examples` that a script imports."""


@pytest.fixture
def few_steps():
    """Functions are run as they are: for the few steps of a quick form, compiling them takes most of the time."""
    import tensorflow as tf

    tf.config.run_functions_eagerly(True)
    yield
    tf.config.run_functions_eagerly(False)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_example_runs(path, backend, tmp_path, monkeypatch, capsys, request):
    if backend != "tensorflow":
        pytest.skip("the examples are tested on TensorFlow")
    if missing := [name for name in NEEDED.get(path.stem, ()) if not is_installed(name)]:
        pytest.skip(f"the extra `examples` is not installed: {', '.join(missing)}")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("KERAS_MOT_DATA", raising=False)
    quick = "--quick" in path.read_text()
    if quick:
        request.getfixturevalue("few_steps")
    monkeypatch.setattr("sys.argv", [str(path), *(["--quick"] if quick else [])])
    runpy.run_path(str(path), run_name="__main__")
    assert capsys.readouterr().out.strip()
