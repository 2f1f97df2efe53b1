"""Reports of results: the same from memory and from the folder; runs that are damaged or not finished."""

import dataclasses
import json
import shutil
import sys

import keras
import numpy as np
import pytest

from keras_mot import compress
from keras_mot.analysis import Sensitivity, SensitivityRow
from keras_mot.recipes import Budget, Cluster, PostTraining, Prune, Recipe, SearchResult, Trial
from keras_mot.recipes.reporting import read_result

pytest.importorskip("matplotlib", reason="reports are drawn with Matplotlib, the extra 'plot'")
pytestmark = [
    pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="exports through TensorFlow, tested elsewhere"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
]
RECIPE = Recipe([Prune(0.5, frequency=1, fine_tune=None), Cluster(4, fine_tune=None), PostTraining()], "short")
FOUND = Sensitivity((SensitivityRow("hidden", "sparsity", 0.5, 0.1, 9.0, 0.1, 48, 100),), "KL divergence", 64)


@pytest.fixture(scope="module")
def data():
    generator = np.random.default_rng(0)
    return generator.normal(size=(64, 6)).astype("float32"), generator.integers(0, 3, 64)


@pytest.fixture(scope="module")
def run(data, tmp_path_factory):
    keras.utils.set_random_seed(0)
    layers = [
        keras.layers.Dense(12, activation="relu", name="hidden"),
        keras.layers.Dense(3, "softmax", name="classes"),
    ]
    model = keras.Sequential([keras.Input((6,)), *layers], name="small")
    folder = tmp_path_factory.mktemp("run")
    return compress(model, RECIPE, data, output_dir=folder, latency_runs=3, progress=False)


@pytest.fixture
def folder(run, tmp_path):
    """A copy of the run's folder, to be damaged."""
    return shutil.copytree(run.output_dir, tmp_path / "copy")


def test_a_report_says_what_the_result_says(run, tmp_path):
    report = run.report(tmp_path / "report.html")
    assert [variant.name for variant in report.variants] == ["float", "prune", "cluster", "post_training"]
    for variant, stage in zip(report.variants, run.stages, strict=True):
        assert (variant.zipped_bytes, variant.metric, variant.file) == (
            stage.zipped_bytes,
            stage.metric,
            stage.artifact.name,
        )
    hidden = report.kernels[0]
    assert (hidden.name, hidden.before.sparsity, hidden.bits) == ("hidden/kernel", 0.0, 8)
    assert hidden.after.sparsity == pytest.approx(0.5, abs=0.02)
    assert hidden.after.unique_values <= 4
    assert len(hidden.histogram.palette) == hidden.after.unique_values
    assert report.ranges  # by the inputs that the result remembers
    assert report.drift.first_beyond(1) is None
    assert "name: short" in next(value for key, value in report.settings.items() if "YAML" in key)
    assert report.settings["Seed"] == "0"
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert report.headline in page
    assert "number_of_clusters: 4" in page


def test_files_for_microcontrollers_have_an_arena_and_no_times(run, tmp_path):
    equal = "max error 0 on 3 samples; 100.00% equal in TFLM"
    last = dataclasses.replace(run.stages[-1], arena_bytes=4096, verification=equal)
    told = dataclasses.replace(run, stages=(*run.stages[:-1], last))
    report = told.report(tmp_path / "report.html")
    assert (report.after.arena_bytes, report.after.latency_ms, report.runtime) == (4096, None, "")
    assert [line for line in report.details if "an arena of 4.1 kB" in line and equal in line]
    assert "for microcontrollers" in report.missing["Time of a sample"]
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert ">Arena<" in page
    assert ">Time of a sample<" not in page
    assert "4,096" in str(told)
    assert "not on the microcontroller" in " ".join(str(told).split())
    assert "microcontroller" not in str(run)


def test_the_folder_tells_the_same(run, folder):
    again = read_result(folder)
    told, expected = again.report(data=run.examples).to_dict(), run.report().to_dict()
    for values in (told, expected):
        del values["settings"]["Folder of the run"]
        values["title"] = ""  # of a model that was loaded
        assert all(row.pop("milliseconds") is not None for row in values["operator_times"])  # taken anew
    assert told == expected
    without = again.report()
    assert without.ranges == ()
    assert "no data were given" in without.missing["Drift"]


def test_a_log_of_an_earlier_version(folder):
    path = folder / "run.json"
    log = json.loads(path.read_text())
    for stage in log["stages"]:
        del stage["float_operators"]
    path.write_text(json.dumps(log))
    assert all(stage.float_operators == () for stage in read_result(folder).stages)
    log["stages"][-1]["float_operators"] = [["ADD", "layer", "why"]]
    path.write_text(json.dumps(log))
    assert read_result(folder).report().in_floats == (("ADD", "layer", "why"),)
    log["stages"][-1]["float_operators"] = [["ADD", 1]]
    path.write_text(json.dumps(log))
    with pytest.raises(ValueError, match="'float_operators' of stage 3"):
        read_result(folder)


def unfinished(folder):
    log = json.loads((folder / "run.json").read_text())
    (folder / "run.json").write_text(json.dumps({**log, "stages": log["stages"][:2]}))


DAMAGES = {
    "is not finished: stage 'cluster' is missing": unfinished,
    "holds no run of `compress` or `search`": lambda folder: (folder / "run.json").unlink(),
    "is damaged, or of no run": lambda folder: (folder / "run.json").write_text("{}"),
    "report.json' cannot be read": lambda folder: (folder / "report.json").write_text("{"),
    "holds no object": lambda folder: (folder / "report.json").write_text("[]"),
    "03-post_training.tflite' is missing": lambda folder: (folder / "03-post_training.tflite").unlink(),
    "search.json' is damaged": lambda folder: (folder / "search.json").write_text('{"trials": 3}'),
    "no name of a trial's folder": lambda folder: (folder / "search.json").write_text(
        json.dumps({"trials": [{"folder": "../../elsewhere", "excess": None}]})
    ),
}


@pytest.mark.parametrize("words", DAMAGES)
def test_a_folder_that_is_damaged(folder, words):
    DAMAGES[words](folder)
    with pytest.raises(ValueError, match=words.replace(".", r"\.")):
        read_result(folder)


def test_files_that_are_gone(run, folder):
    (folder / "03-post_training.tflite").unlink()
    stages = tuple(dataclasses.replace(stage, artifact=folder / stage.artifact.name) for stage in run.stages)
    with pytest.raises(ValueError, match="The files of the run are gone"):
        dataclasses.replace(run, stages=stages).report()


def test_what_is_wrong_is_said_before_any_work(run, tmp_path, monkeypatch):
    with pytest.raises(ValueError, match=r"should end in \.html"):
        run.report(tmp_path / "report.pdf")
    with pytest.raises(TypeError, match="what `sensitivity` returned"):
        run.report(sensitivity="found.json")
    with pytest.raises(TypeError, match="`data` should be arrays"):
        run.report(data="data.npz")
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ImportError, match="pip install matplotlib"):
        run.report(tmp_path / "report.html")
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def searched(run, tmp_path):
    """The folder of a search with two trials, the first of which is the run."""
    folder = tmp_path / "search"
    shutil.copytree(run.output_dir, folder / "trial-0000")
    last = run.stages[-1]
    trials = (
        Trial(0, "pruned", 1e3, 1e3, 1e-3, last.bytes, last.zipped_bytes, 0.1, last.metric, 0.0, 1.0, 0.0),
        Trial(1, "dense", 1e3, 1e3, 1e-3, last.bytes, 2 * last.zipped_bytes, 0.1, 0.9, 0.0, 1.0, 0.0),
        Trial(2, "dense", 1e3, 1e3, 1e-3, failure="lost"),
    )
    trials = tuple(dataclasses.replace(trial, folder=folder / f"trial-{trial.number:04d}") for trial in trials)
    fields = {field.name: getattr(run, field.name) for field in dataclasses.fields(run)}
    fields["output_dir"] = folder / "trial-0000"
    more = {"budget": Budget(zipped=10_000), "trials": trials, "best_trial": trials[0], "seconds": 3.0}
    result = SearchResult(**fields, **more)
    (folder / "search.json").write_text(json.dumps(result.to_dict()))
    (folder / "sensitivity.json").write_text(json.dumps(FOUND.to_dict()))
    return folder, result


def test_a_search_and_all_of_its_trials(searched, run, tmp_path):
    folder, result = searched
    again = read_result(folder)
    assert (again.trials, again.best_trial, again.budget) == (result.trials, result.best_trial, result.budget)
    report = again.report(tmp_path / "search.html", data=run.examples)
    assert [candidate.name for candidate in report.candidates] == ["float", "trial 0", "trial 1"]  # one has no result
    assert [candidate.name for candidate in report.candidates if candidate.chosen] == ["trial 0"]
    assert report.sensitivity == FOUND
    assert report.settings["Budget"] == "at most 10,000 bytes, zipped"
    page = (tmp_path / "search.html").read_text(encoding="utf-8")
    assert "All 3 that were tried" in page
    result.plot(tmp_path / "front.svg")
    assert "dense" in (tmp_path / "front.svg").read_text()


def test_results_show_themselves_in_notebooks(run, searched):
    for result, tables in ((run, 1), (searched[1], 2)):
        shown = result._repr_html_()
        assert shown.count("<table>") == tables
        assert "post_training" in shown
        assert f"{run.stages[-1].zipped_bytes:,}" in shown
