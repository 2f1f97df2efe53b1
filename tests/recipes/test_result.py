"""What a result says of its files: the best one, the smallest ones, and those that have collapsed."""

import dataclasses
import math
import pathlib
import types
import warnings

import keras
import numpy as np
import pytest

from keras_mot import compress
from keras_mot.analysis.metrics import make_metric
from keras_mot.recipes import CompressionResult, FineTune, Prune, Recipe, StageResult, Tune
from keras_mot.recipes._collapse import collapsed, warn_of_collapse
from keras_mot.recipes.closing import closing_lines, on_device
from tests.quantization.test_coverage import only_tensorflow


def stage(name, metric, size, zipped, **others):
    values = {"keras_metric": metric, "samples": 10, "sparsity": 0.0, "values": 9, "values_of_kernels": {}}
    values |= {"latency_ms": None, "seconds": 0.0, "model_path": pathlib.Path(f"{name}.keras")} | others
    return StageResult(
        name, metric=metric, bytes=size, zipped_bytes=zipped, artifact=pathlib.Path(f"{name}.tflite"), **values
    )


def result(*stages, metric="accuracy", better=True):
    resolved = make_metric(metric)
    marked = [
        each if each is stages[0] else dataclasses.replace(each, collapsed=collapsed(each, stages[0], resolved))
        for each in stages
    ]
    return CompressionResult(keras.Sequential(), tuple(marked), "mine", metric, pathlib.Path("run"), better)


ACCURACIES = result(
    stage("float", 0.99, 400, 350),
    stage("prune", 0.98, 94, 90, sparsity=0.9, sparse_encoding=True),
    stage("cluster", 0.95, 400, 40, sparsity=0.9),
    stage("quantize_aware", 0.57, 156, 35, sparsity=0.9, weights="integer"),
)
ERRORS = result(
    stage("float", 2.0, 400, 350),
    stage("prune", 2.15, 300, 90),
    stage("int8", 4.5, 100, 50),
    metric="mae",
    better=False,
)


@pytest.mark.parametrize(
    ("max_drop", "zipped", "name"),
    [
        (None, True, "prune"),
        (0.01, True, "prune"),
        (0.05, True, "cluster"),
        (0.05, False, "prune"),
        (1, True, "quantize_aware"),
    ],
)
def test_the_best_file(max_drop, zipped, name):
    assert ACCURACIES.best(max_drop, zipped=zipped).name == name


def test_the_best_where_less_is_better():
    assert ERRORS.best().name == "prune"  # a tenth of 2.0 more at most
    assert ERRORS.best(3.0).name == "int8"
    assert ERRORS.drop(ERRORS["int8"]) == pytest.approx(2.5)
    with pytest.raises(ValueError, match=r"within 0.1 of the float file's mae, 2.*'prune' 0.15, 'int8' 2.5"):
        ERRORS.best(0.1)


def test_the_float_file_may_be_the_smallest():
    assert result(stage("float", 0.9, 10, 10), stage("int8", 0.9, 12, 12)).best().name == "float"


def test_there_may_be_none():
    with pytest.raises(ValueError, match=r"within 0.005 of .* accuracy, 0.99.*'prune' 0.01,.*larger `max_drop`"):
        ACCURACIES.best(0.005)
    with pytest.raises(ValueError, match="`max_drop` should be at least 0"):
        ACCURACIES.best(-1.0)
    with pytest.raises(TypeError, match="`max_drop` should be a number"):
        ACCURACIES.best("much")


@pytest.mark.parametrize(
    ("metric", "before", "after", "lost"),
    [
        ("accuracy", 0.99, 0.57, True),
        ("accuracy", 0.99, 0.90, False),
        ("accuracy", 0.99, 0.88, True),
        ("accuracy", 0.5, math.nan, True),
        ("r2", -0.5, -0.9, True),
        ("mae", 2.0, 3.9, False),
        ("mae", 2.0, 4.1, True),
        ("mae", 0.0, 4.1, False),  # nothing to compare with
        ("mse", 2.0, 0.1, False),
    ],
)
def test_what_counts_as_collapsed(metric, before, after, lost):
    assert collapsed(stage("last", after, 1, 1), stage("float", before, 1, 1), make_metric(metric)) is lost


def test_an_output_may_collapse_alone():
    metric = make_metric({"kind": "accuracy", "age": "mae"})
    plain = stage("float", 0.9, 1, 1, metrics={"kind": 0.9, "age": 1.0})
    assert collapsed(stage("last", 0.9, 1, 1, metrics={"kind": 0.9, "age": 2.5}), plain, metric)
    assert not collapsed(stage("last", 0.9, 1, 1, metrics={"kind": 0.9, "age": 0.2}), plain, metric)


def test_a_collapse_is_marked_in_tables():
    for table in (str(ACCURACIES), ACCURACIES.to_markdown()):
        assert "0.5700 (!)" in table
        assert table.count("(!)") == 2
        assert "less than nine tenths of the float's" in table.replace("\n", " ")
    assert "more than twice the float's" in ERRORS.to_markdown()
    fine = result(stage("float", 0.9, 10, 10), stage("int8", 0.89, 5, 5))
    assert "(!)" not in str(fine)
    values = ACCURACIES.to_dict()
    assert [each["collapsed"] for each in values["stages"]] == [False, False, False, True]
    assert (values["best"], values["greater_is_better"]) == ("prune", True)


def test_a_collapse_at_the_end_warns():
    with pytest.warns(UserWarning, match=r"accuracy went from 0.99 to 0.57.*or take 'cluster.tflite'"):
        warn_of_collapse(ACCURACIES)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        recovered = result(stage("float", 0.9, 1, 1), stage("prune", 0.1, 1, 1), stage("tune", 0.9, 1, 1))
        warn_of_collapse(recovered)
    assert recovered["prune"].collapsed


def test_the_last_lines_name_the_smallest_files():
    stored, zipped, best, last = closing_lines(ACCURACIES)
    assert stored == "Smallest as stored: prune.tflite, 94 bytes: float weights are stored without their zeros."
    assert zipped.startswith(
        "Smallest zipped: quantize_aware.tflite, 35 bytes: it stores each weight, the 90% zeros too"
    )
    assert best.startswith("Best: prune.tflite")
    assert last == "The last file: quantize_aware.tflite"
    assert closing_lines(result(stage("float", 0.9, 9, 9), stage("int8", 0.1, 5, 5)))[2].startswith(
        "No stage stays within"
    )


@only_tensorflow
def test_a_run_that_takes_too_much(tmp_path):
    """All weights but a few are pruned, without training."""
    keras.utils.set_random_seed(0)
    x = np.random.default_rng(0).standard_normal((120, 8)).astype("float32")
    y = x[:, :3].argmax(-1)
    model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(32, "relu"), keras.layers.Dense(3, "softmax")])
    model.compile(keras.optimizers.Adam(0.02), "sparse_categorical_crossentropy")
    model.fit(x, y, epochs=20, verbose=0)
    recipe = Recipe([Tune(FineTune(1, 1e-4)), Prune(0.99, fine_tune=None)])
    with pytest.warns(UserWarning, match="takes more than this model can give"):
        found = compress(model, recipe, (x, y), output_dir=tmp_path, latency_runs=0, progress=False)
    assert [each.collapsed for each in found.stages] == [False, False, True]
    assert found.best(0.02).name in ("float", "tune")  # whose zipped sizes differ by some bytes, either way
    with pytest.warns(UserWarning, match="takes more"):  # of a finished run, too
        again = compress(model, recipe, (x, y), output_dir=tmp_path, latency_runs=0, progress=False)
    assert again.stages == found.stages


def test_progress_says_what_a_microcontroller_needs():
    on_micro = types.SimpleNamespace(arena_bytes=24_064, verification="100.00% equal in TFLM")
    assert on_device(on_micro) == "; arena 24,064 bytes, 100.00% equal in TFLM"
    assert on_device(types.SimpleNamespace(arena_bytes=None)) == on_device(object()) == ""
