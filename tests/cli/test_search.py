"""`keras-mot search`: what it finds and says, and what it refuses."""

import json

import pytest

from keras_mot.cli._options import size
from keras_mot.cli.search import _duration
from tests.quantization.test_coverage import only_tensorflow


@only_tensorflow
def test_a_budget_that_is_met_and_one_that_is_not(run, model, data, tmp_path):
    folder = tmp_path / "found"
    options = ("search", model, "--data", data, "--epochs", 0, "--families", "dense,bits", "-o", folder)
    result = run(*options, "--bytes", "1MB", "--trials", 1, "--json")
    assert result.code == 0, result.err
    values = json.loads(result.out)
    assert values["met"]
    assert values["trials"][0]["family"] == "dense"
    assert (folder / "search.json").is_file()
    again = run(*options, "--zipped", "100", "--trials", 30, "--time", "0.001s")
    assert again.code == 1, again.err
    assert " ".join(again.out.split()).count("No trial keeps to the budget (at most 100 bytes, zipped)") == 1
    assert "The best file:" in again.out
    assert "going on after 1 trials" in again.err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "A budget is needed"),
        (["--zipped", "0"], "a size above 0"),
        (["--zipped", "0.5"], "a size above 0"),
        (["--zipped", "nan"], "a size such as"),
        (["--bytes", "40 parsecs"], "a size such as 40000, 40kB or 1.5MB; received '40 parsecs'"),
        (["--drop", "much"], "a number such as 0.01; received 'much'"),
        (["--drop", "nan"], "should be 0 or more"),
        (["--drop", "0.01", "--time", "soon"], "a time such as 90s, 20m or 1.5h; received 'soon'"),
        (["--drop", "0.01", "--time", "0"], "a time above 0"),
        (["--drop", "0.01", "--families", "dense,small"], "There is no family 'small'"),
        (["--drop", "0.01", "--families", ","], "There is no family ''"),
        (["--drop", "0.01", "--workers", "2"], "`--workers` goes with `--executor processes` or `ray`"),
        (["--drop", "0.01", "--trials", "0"], "--trials"),
        (["--drop", "0.01", "--seed", "-1"], "seed"),
    ],
)
@only_tensorflow
def test_refusals(run, model, data, tmp_path, options, message):
    result = run("search", model, "--data", data, "-o", tmp_path / "found", *options)
    assert result.code == 2
    assert message in result.err
    assert not (tmp_path / "found").exists()


@pytest.mark.backend_independent
def test_sizes_and_times():
    assert [size(text) for text in ("40000", "40kB", "1.5MB", "2 KiB", "1e3")] == [
        40_000,
        40_000,
        1_500_000,
        2048,
        1000,
    ]
    assert [_duration(text) for text in ("90", "90s", "20m", "20 min", "1.5h")] == [90, 90, 1200, 1200, 5400]
