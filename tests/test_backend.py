"""Which backend `import keras_mot` takes when nobody says so, and what it says when there is none."""

import json
import os
import subprocess
import sys

import pytest

from keras_mot import _backend

HIDE = """
from importlib.machinery import PathFinder

plain = PathFinder.find_spec
PathFinder.find_spec = lambda name, *rest: None if name.split(".")[0] in {hidden} else plain(name, *rest)
import keras_mot, keras, sys
print("backend", keras.backend.backend())
print("at once", [name for name in {later} if name in sys.modules])
assert keras_mot.compress is keras_mot.recipes.compress
"""
LATER = ["keras_mot.analysis", "keras_mot.export", "keras_mot.recipes", "yaml"]


def import_without(*hidden, home, **environment):
    """Imports keras_mot in a process in which packages are missing."""
    inherited = {key: value for key, value in os.environ.items() if key != "KERAS_BACKEND"}
    return subprocess.run(
        [sys.executable, "-c", HIDE.format(hidden=set(hidden), later=LATER)],
        env={**inherited, "KERAS_HOME": str(home), "PYTHONPATH": os.pathsep.join(sys.path), **environment},
        capture_output=True,
        text=True,
    )


@pytest.fixture
def choose(monkeypatch, tmp_path):
    """`choose_backend` in a process that has not imported Keras; returns the environment variable afterwards."""

    def choose(*installed, asked=None, configured=None):
        monkeypatch.delitem(sys.modules, "keras", raising=False)
        monkeypatch.setenv("KERAS_HOME", str(tmp_path))
        if asked is None:
            monkeypatch.delenv("KERAS_BACKEND", raising=False)
        else:
            monkeypatch.setenv("KERAS_BACKEND", asked)
        if configured is not None:
            (tmp_path / "keras.json").write_text(configured)
        monkeypatch.setattr(_backend, "is_installed", lambda module: module in installed)
        _backend.choose_backend()
        return os.environ.get("KERAS_BACKEND")

    return choose


def test_the_only_backend_is_taken(backend, tmp_path):
    others = {"tensorflow", "jax", "torch"} - {backend}
    result = import_without(*others, home=tmp_path)
    assert result.returncode == 0, result.stderr
    assert f"backend {backend}" in result.stdout
    assert "at once []" in result.stdout  # half of all modules is imported when it is first used


def test_no_backend_is_a_message(tmp_path):
    result = import_without("tensorflow", "jax", "torch", home=tmp_path)
    assert result.returncode == 1
    assert "Keras needs a backend, and none is installed" in result.stderr
    assert "pip install jax" in result.stderr


@pytest.mark.parametrize("only", ["jax", "torch"])
def test_default_is_missing(choose, only):
    assert choose(only) == only


@pytest.mark.parametrize("configured", ['{"backend": "jax"}', json.dumps({"floatx": "float32"}), "not JSON", "[]"])
def test_configuration_is_followed_where_it_can_be(choose, configured):
    assert choose("torch", configured=configured) == "torch"


def test_what_is_installed_is_left_to_keras(choose):
    assert choose("tensorflow", "torch") is None
    assert choose("jax", "torch", configured='{"backend": "jax"}') is None
    assert choose("tensorflow", "jax", asked="jax") == "jax"
    assert choose("tensorflow", asked="numpy") == "numpy"


def test_two_to_choose_from(choose):
    with pytest.raises(ImportError, match=r"Set the environment variable KERAS_BACKEND to one that is: jax or torch"):
        choose("jax", "torch")


def test_asked_for_and_missing(choose):
    with pytest.raises(ImportError, match=r"KERAS_BACKEND is 'torch', which is not installed.*\(jax\).*install torch"):
        choose("jax", asked="torch")


def test_keras_is_there_already(monkeypatch):
    monkeypatch.delenv("KERAS_BACKEND", raising=False)
    monkeypatch.setattr(_backend, "is_installed", lambda module: False)
    _backend.choose_backend()
    assert "KERAS_BACKEND" not in os.environ


def test_a_folder_is_no_package(monkeypatch, tmp_path):
    from keras_mot._packages import is_installed

    (tmp_path / "folder_beside_the_script").mkdir()
    (tmp_path / "module_beside_the_script.py").write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    assert not is_installed("folder_beside_the_script")
    assert is_installed("module_beside_the_script")
