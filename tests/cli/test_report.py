"""`keras-mot report`: a run, files side by side, and what is refused before any work."""

import json
import sys

import keras
import numpy as np
import pytest

pytest.importorskip("matplotlib", reason="reports are drawn with Matplotlib, the extra 'plot'")

RECIPE = """\
name: mine
stages:
- post_training: {}
"""


@pytest.fixture(scope="module")
def finished(model, data, tmp_path_factory):
    """The folder of a run."""
    if keras.backend.backend() != "tensorflow":
        pytest.skip("exports through TensorFlow, which is tested elsewhere")
    from keras_mot.cli import main

    folder = tmp_path_factory.mktemp("run")
    (folder / "mine.yaml").write_text(RECIPE)
    arguments = ["--recipe", str(folder / "mine.yaml"), "--data", str(data), "-o", str(folder / "out")]
    assert main(["compress", str(model), *arguments]) == 0
    return folder / "out"


def test_a_run(run, finished, data, tmp_path):
    ended = run("report", finished, "-o", tmp_path / "r.html", "--data", data, "--numbers", tmp_path / "r.json")
    assert ended.code == 0
    assert "times smaller" in ended.out
    assert f"The page: {tmp_path / 'r.html'}" in ended.out
    numbers = json.loads((tmp_path / "r.json").read_text())
    assert numbers["headline"] in (tmp_path / "r.html").read_text(encoding="utf-8")
    assert numbers["ranges"]
    assert numbers["drift"]["tensors"]


def test_files_side_by_side(run, finished, model, data, tmp_path):
    files = [finished / "00-float.tflite", finished / "01-post_training.tflite"]
    arguments = ["--model", finished / "01-post_training.keras", "--data", data, "--latency-runs", "2", "--json"]
    ended = run("report", *files, "-o", tmp_path / "r.html", *arguments)
    assert ended.code == 0
    values = json.loads(ended.out)
    assert [variant["name"] for variant in values["variants"]] == [file.name for file in files]
    assert values["page"] == str(tmp_path / "r.html")
    assert values["samples"] == len(np.load(data)["x_test"])
    assert values["variants"][-1]["metric"] is not None


def test_sensitivities_that_were_computed_before(run, finished, tmp_path):
    row = ["hidden", "sparsity", 0.5, 0.1, 9.0, 0.1, 48, 100, False]
    names = ["layer", "technique", "setting", "loss", "snr_db", "layer_error", "parameters", "bytes_saved", "estimated"]
    found = {"rows": [dict(zip(names, row, strict=True))], "measure": "KL divergence", "samples": 3, "skipped": []}
    (tmp_path / "found.json").write_text(json.dumps(found))
    ended = run("report", finished, "-o", tmp_path / "r.html", "--sensitivity", tmp_path / "found.json", "--json")
    assert ended.code == 0
    assert json.loads(ended.out)["sensitivity"]["rows"][0]["layer"] == "hidden"
    (tmp_path / "found.json").write_text("[]")
    ended = run("report", finished, "-o", tmp_path / "r.html", "--sensitivity", tmp_path / "found.json")
    assert (ended.code, "is not what `keras-mot sensitivity --json` prints" in ended.err) == (2, True)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("{model}", "-o", "{folder}/r.pdf"), "should end in .html"),
        (("{model}", "-o", "{folder}/nowhere/r.html"), "does not exist"),
        (("{folder}/nothing.tflite", "-o", "{folder}/r.html"), "does not exist"),
        (("{data}", "-o", "{folder}/r.html"), "is no folder of a run"),
        (("{folder}", "{model}", "-o", "{folder}/r.html"), "not both"),
        (("{folder}", "-o", "{folder}/r.html", "--metric", "mae"), "A run has its model and its metric"),
        (("{model}", "-o", "{folder}/r.html", "--metric", "mae"), "needs `--data FILE.npz`"),
        (("{folder}", "-o", "{folder}/r.html"), "holds no run"),
        (("{model}", "-o", "{folder}/r.html", "--numbers", "{folder}/r.txt"), "should end in .json"),
    ],
)
def test_what_is_refused(run, model, data, tmp_path, arguments, words):
    names = {"model": model, "data": data, "folder": tmp_path}
    ended = run("report", *(argument.format(**names) for argument in arguments))
    assert (ended.code, words in ended.err) == (2, True), ended.err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("command", ["report", "sensitivity"])
def test_matplotlib_is_looked_for_before_any_work(run, model, data, tmp_path, monkeypatch, command):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    arguments = {"report": ["-o", tmp_path / "r.html"], "sensitivity": ["--data", data, "--plot", tmp_path / "s.svg"]}
    ended = run(command, model, *arguments[command])
    assert (ended.code, "pip install matplotlib" in ended.err) == (1, True), ended.err
    assert list(tmp_path.iterdir()) == []


def test_a_model_alone(run, model, data, tmp_path):
    ended = run("report", model, "-o", tmp_path / "r.html", "--data", data)
    assert ended.code == 0
    assert "there is nothing to compare it with" in ended.out
