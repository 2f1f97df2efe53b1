import importlib.metadata
import json
import os
import subprocess
import sys

import pytest

from keras_mot import _installation
from keras_mot._installation import PURPOSES, installation

pytestmark = pytest.mark.backend_independent


def test_every_extra_has_a_purpose():
    extras = importlib.metadata.metadata("keras-mot").get_all("Provides-Extra")
    assert set(PURPOSES) == {"", *extras} - {"examples", "docs", "test", "benchmarks", "all"}


def test_what_is_installed_is_found(run):
    result = run("doctor", "--fast", "--json")
    assert result.code == 0, result.err
    found = json.loads(result.out)
    packages = {each["name"]: each for each in found["packages"]}
    assert packages["keras"]["found"] == importlib.metadata.version("keras")
    assert packages["keras"]["state"] == "ok"
    assert found["problems"] == []
    assert found["backend"] == os.environ.get("KERAS_BACKEND", found["backend"])


def pretend(monkeypatch, **versions):
    """Other versions of some packages; `None` is missing."""
    real = importlib.metadata.version

    def version(name):
        if name.replace("-", "_") in versions:
            found = versions[name.replace("-", "_")]
            if found is None:
                raise importlib.metadata.PackageNotFoundError(name)
            return found
        return real(name)

    monkeypatch.setattr(_installation.importlib.metadata, "version", version)


def test_what_is_missing_comes_with_the_command(monkeypatch, run):
    pretend(monkeypatch, brotli=None)
    result = run("doctor", "--fast")
    assert result.code == 0  # nobody needs it
    assert 'pack: pip install "brotli>=' in result.out


def test_another_version_than_asked_for_is_a_problem(monkeypatch, run):
    pretend(monkeypatch, keras="2.15.0")
    result = run("doctor", "--fast")
    assert result.code == 1
    assert "PROBLEM: keras: version 2.15.0 is outside of" in result.out
    assert result.err == ""


def test_either_name_of_tensorflow_is_right(monkeypatch):
    pretend(monkeypatch, tensorflow_cpu=None, tensorflow="2.20.0", tensorflow_intel=None)
    (found,) = [each for each in installation(load=False).requirements if each.extra == "tensorflow"]
    assert (found.found, found.state) == ("2.20.0", "ok")


def test_no_backend_and_a_backend_that_is_not_there(monkeypatch):
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    pretend(monkeypatch, jax=None)
    (line,) = installation(load=False).problems
    assert "Keras will take the backend 'jax' (KERAS_BACKEND says so), which is missing" in line
    pretend(monkeypatch, jax=None, torch=None, tensorflow_cpu=None, tensorflow=None, tensorflow_intel=None)
    (line,) = installation(load=False).problems
    assert line.startswith("there is no backend: pip install ")


def test_what_does_not_load_is_a_problem(monkeypatch, tmp_path):
    (tmp_path / "brotli.py").write_text("raise RuntimeError('a library is missing')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    (brotli,) = [each for each in _installation._requirements()[0] if each.name == "brotli"]
    assert _installation._loaded(brotli).problem == "does not load: RuntimeError: a library is missing"


def test_packages_of_any_form_load():
    pytest.importorskip("ethosu", reason="the extra `ethos-u` is not installed")
    (vela,) = [each for each in _installation._requirements()[0] if each.name == "ethos-u-vela"]
    assert _installation._loaded(vela).state == "ok"


def test_it_answers_where_the_package_itself_cannot_be_imported():
    code = (
        "import sys; sys.modules['keras'] = None; from keras_mot.cli import main; sys.exit(main(['doctor', '--fast']))"
    )
    script = "import sys; sys.argv = ['keras-mot', 'doctor']; sys.orig_argv = ['keras-mot', 'doctor']; " + code
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    assert "Keras takes the backend" in ended.stdout
