"""The example scripts run, those that train for long on little. They are the same on every backend, and run on one."""

import pathlib
import runpy

import numpy as np
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


@pytest.fixture(scope="module")
def translation():
    if missing := [name for name in NEEDED["translation"] if not is_installed(name)]:
        pytest.skip(f"the extra `examples` is not installed: {', '.join(missing)}")
    return runpy.run_path(str(next(path for path in EXAMPLES if path.stem == "translation")))


@pytest.mark.backend_independent
@pytest.mark.parametrize(
    ("drawn", "english", "german"),
    [
        (("number", 721, "EUR"), "seven hundred and twenty-one", "siebenhunderteinundzwanzig"),
        (("price", 1205, "CHF"), "twelve Swiss francs five", "zwölf Schweizer Franken fünf"),
        (("date", 0, "EUR"), "Monday, January first, fifteen hundred", "Montag, der erste Januar fünfzehnhundert"),
    ],
    ids=["number", "price", "date"],
)
def test_phrases_in_both_languages(translation, drawn, english, german):
    assert translation["phrase"](*drawn, "en") == english
    assert translation["phrase"](*drawn, "de") == german


@pytest.mark.backend_independent
def test_what_a_perfect_model_translates(translation):
    sources, targets = zip(*translation["pairs"](60), strict=True)
    assert {source[:3] for source in sources} == {"en:", "de:"}
    (source, _), (target, pieces) = translation["encode"](sources), translation["encode"](targets)
    steps, certain = target.shape[1] - 1, np.eye(len(pieces))[target[:, 1:]]
    assert translation["translate"](lambda inputs: certain, source, steps, pieces) == list(targets)
    assert translation["bleu"](lambda inputs: certain, source, targets, steps, pieces) == pytest.approx(100)
    assert translation["bleu"](lambda inputs: certain[::-1], source, targets, steps, pieces) < 20
