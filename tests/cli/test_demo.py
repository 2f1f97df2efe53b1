import json
import os

import keras
import pytest

from keras_mot.cli import demo

pytest.importorskip("sklearn")


@pytest.fixture
def short(monkeypatch):
    """Two epochs each: enough to see everything work."""
    monkeypatch.setattr(demo, "_EPOCHS", 2)
    monkeypatch.setattr(demo, "_PRUNING_EPOCHS", 2)


@pytest.mark.usefixtures("short")
def test_the_whole_way(run, tmp_path):
    result = run("demo", "--output", tmp_path / "files", "--json")
    assert result.code == 0
    values = json.loads(result.out)
    assert values["backend"] == keras.backend.backend()
    assert [row["name"] for row in values["measurements"]] == ["float", "pruned", "pruned, sparse encoding"]
    plain, pruned, sparse = values["measurements"]
    assert plain["sparsity"] < 0.01
    assert pruned["sparsity"] == pytest.approx(0.9, abs=1e-4)
    assert sparse["sparsity"] == pruned["sparsity"]
    assert sparse["bytes"] < 0.25 * plain["bytes"]
    assert pruned["zipped_bytes"] < 0.25 * plain["zipped_bytes"]
    assert plain["metric"] > 0.7  # two epochs; a tenth would be chance
    assert plain["latency_ms"] > 0
    assert sorted(os.listdir(tmp_path / "files")) == values["files"]
    for row in values["measurements"]:
        assert os.path.getsize(row["path"]) == row["bytes"]


def test_output_that_cannot_be(run, tmp_path):
    (tmp_path / "file").write_text("")
    result = run("demo", "--output", tmp_path / "file")
    assert result.code == 2
    assert "is a file; expected a folder" in result.err


def test_a_failure_leaves_nothing(run, tmp_path, monkeypatch):
    def fail(*args):
        raise RuntimeError("out of luck")

    monkeypatch.setattr(demo, "_network", fail)
    result = run("demo", "--output", tmp_path / "files")
    assert result.code == 1
    assert "out of luck" in result.err
    assert os.listdir(tmp_path) == []
