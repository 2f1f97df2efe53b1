"""The site of the documentation is built, with every link and every public name in it."""

import json
import pathlib
import subprocess
import sys

import pytest

import keras_mot
from keras_mot._packages import is_installed

pytestmark = pytest.mark.backend_independent

ROOT = pathlib.Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    if not all(map(is_installed, ("mkdocs", "material", "mkdocstrings"))):
        pytest.skip("the extra `docs` is not installed")
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "-f", ROOT / "mkdocs.yml", "-d", folder]
    ended = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return folder


def test_every_public_name_has_its_place(site):
    rooms = [name for name in keras_mot.__all__ if (ROOT / "keras_mot" / name / "__init__.py").is_file()]
    assert len(rooms) > 8
    missing = []
    for room in rooms:
        page = (site / "reference" / room / "index.html").read_text()
        for name in getattr(keras_mot, room).__all__:
            if not any(f'id="keras_mot.{room}.{each}"' in page for each in (name, f"{name}.{name}")):
                missing.append(f"{room}.{name}")
    assert not missing


def test_pages_from_elsewhere(site):
    assert "Keras Model Optimization Toolkit" in (site / "index.html").read_text()
    for path in (ROOT / "examples").glob("*.py"):
        assert path.name in (site / "examples" / "index.html").read_text()
        assert json.loads((site / "notebooks" / f"{path.stem}.ipynb").read_text())["nbformat"] == 4


def test_no_page_asks_for_anything_elsewhere(site):
    for path in site.rglob("*.html"):
        text = path.read_text()
        assert 'src="http' not in text, path
        assert 'rel="stylesheet" href="http' not in text, path
