import json
import os
import sys

import keras
import pytest

from keras_mot.cli import demo

pytest.importorskip("sklearn")


@pytest.fixture
def short(monkeypatch):
    """Few epochs: enough to see everything work."""
    monkeypatch.setattr(demo, "_EPOCHS", 2)
    monkeypatch.setattr(demo, "_STAGES", dict.fromkeys(demo._STAGES, 1))


@pytest.mark.usefixtures("short")
def test_the_whole_way(run, tmp_path):
    result = run("demo", "--output", tmp_path / "files")
    assert result.code == 0
    values = json.loads((tmp_path / "files" / "report.json").read_text())
    assert values["backend"] == keras.backend.backend()
    assert [row["name"] for row in values["stages"]] == ["float", "prune", "cluster", "quantize_aware"]
    plain, pruned, clustered, quantized = values["stages"]
    assert plain["sparsity"] < 0.01
    for row in (pruned, clustered, quantized):
        assert row["sparsity"] >= 0.9 - 1e-4
    assert clustered["values"] <= 16
    assert quantized["values"] <= 16
    assert quantized["bytes"] < 0.35 * plain["bytes"]
    assert quantized["zipped_bytes"] < clustered["zipped_bytes"] < pruned["zipped_bytes"] < plain["zipped_bytes"] / 2
    assert plain["metric"] > 0.7  # two epochs; a tenth would be chance
    assert plain["latency_ms"] > 0
    assert f"Kept in {tmp_path / 'files'}: {', '.join(sorted(os.listdir(tmp_path / 'files')))}." in result.out
    assert "Smallest as stored: 01-prune.tflite" in result.out
    assert "float weights are stored without their zeros" in result.out
    assert "Smallest zipped: 03-quantize_aware.tflite" in result.out
    assert "zip takes zeros and repeated values out" in result.out
    assert "The last file" not in result.out  # its folder was a temporary one
    for row in values["stages"]:
        assert os.path.getsize(tmp_path / "files" / row["artifact"]) == row["bytes"]


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


def test_all_that_is_missing_is_named_at_once(run, monkeypatch):
    for package in ("ai_edge_litert", "sklearn"):
        monkeypatch.setitem(sys.modules, package, None)
    result = run("demo")
    assert result.code == 1
    assert "pip install ai-edge-litert scikit-learn" in result.err
