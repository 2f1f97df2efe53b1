"""Results show themselves in notebooks: the same table as in print, with names as text."""

import html
import re

import keras
import numpy as np
import pytest

from keras_mot import analysis, clustering, low_rank, sparsity
from keras_mot.analysis import DriftReport, Sensitivity, SensitivityRow, TensorDrift

NAME = "a>b"  # TensorFlow takes no other name that HTML would


@pytest.fixture(scope="module")
def model():
    keras.utils.set_random_seed(0)
    layers = [keras.layers.Dense(8, activation="relu", name=NAME), keras.layers.Dense(3, name="classes")]
    return keras.Sequential([keras.Input((6,)), *layers])


RESULTS = {
    "measure": lambda model: analysis.measure({NAME: model}, latency_runs=0, progress=False),
    "pruning": lambda model: sparsity.pruning_report(sparsity.prune_low_magnitude(model)),
    "clustering": lambda model: clustering.clustering_report(clustering.cluster_weights(model, 4)),
    "low rank": lambda model: low_rank.plan_factorization(model, low_rank.FixedRank(1)),
    "sensitivity": lambda _: Sensitivity(
        (SensitivityRow(NAME, "values", 4, 0.5, 3.0, 0.1, 48, 9),), "KL divergence", 3
    ),
    "drift": lambda _: DriftReport((TensorDrift(NAME, 0.1, 0.9, 0.99, 3),)),
}


@pytest.mark.parametrize("name", RESULTS)
def test_the_table_of_a_notebook_is_that_of_print(model, name):
    result = RESULTS[name](model)
    shown = result._repr_html_()
    cells = [html.unescape(cell) for cell in re.findall(r"<t[hd] [^>]*>(.*?)</t[hd]>", shown)]
    headers, rows = result._table()
    assert cells == [str(cell) for row in (headers, *rows) for cell in row]
    assert any(NAME in cell for cell in cells)
    assert "a&gt;b" in shown
    assert NAME not in shown
    assert all(str(cell) in str(result) for row in rows for cell in row if " " not in str(cell))


@pytest.mark.parametrize("technique", ["sparsity", "unique_values"])
def test_what_training_logs_can_be_written_and_drawn(model, technique, tmp_path):
    pytest.importorskip("matplotlib", reason="plots are drawn with Matplotlib, the extra 'plot'")
    if technique == "sparsity":
        schedule = sparsity.PolynomialDecay(0.0, 0.5, begin_step=0, end_step=6, frequency=1)
        changed = sparsity.prune_low_magnitude(model, schedule)
    else:
        changed = clustering.cluster_weights(model, 4)
    changed.compile("sgd", "mse")
    generator = np.random.default_rng(0)
    x, y = generator.normal(size=(32, 6)), generator.normal(size=(32, 3))
    logger = keras.callbacks.CSVLogger(tmp_path / "log.csv")
    history = changed.fit(x, y, epochs=3, batch_size=16, verbose=0, callbacks=[logger])
    written = (tmp_path / "log.csv").read_text().splitlines()
    column = written[0].split(",").index(technique)
    assert [float(line.split(",")[column]) for line in written[1:]] == pytest.approx(history.history[technique])
    drawn = [analysis.plots.training(each) for each in (history, tmp_path / "log.csv")]
    lines = [figure.axes[0].lines[0].get_ydata() for figure in drawn]
    np.testing.assert_allclose(lines[0], lines[1])
    np.testing.assert_allclose(lines[0], history.history[technique])
