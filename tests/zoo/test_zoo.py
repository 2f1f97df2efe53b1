"""A tenth of the model zoo of the benchmarks, the quickest: see `benchmarks/model_zoo.py`.

Each model goes through some techniques, and is judged as there. Between them the models have what is unusual in users'
models, and each technique has several of them.
"""

import pathlib
import sys

import keras
import pytest

BENCHMARKS = pathlib.Path(__file__).resolve().parents[2] / "benchmarks"
# What the integer simulation of these random networks keeps of the float model's outputs, at least; decibels.
FIDELITY = 12.0
EVERYWHERE = (
    ("text_transformer", "int8"),  # a composite layer of composite layers
    ("wide_and_deep", "cluster"),  # several inputs, a normalization inside
    ("integer_columns", "channels"),  # lookups
    ("attention_mil", "channels"),  # shared layers, a layer that returns a list
    ("dropout_recurrence", "channels"),  # random numbers in recurrent layers
    ("traffic_graph", "cluster"),  # layers without a configuration, raw weights
    ("own_recurrent_cell", "channels"),
    ("metric_learning", "cluster"),  # a class of its own, with its own loss
    ("collaborative_filter", "prune"),  # subclassed
    ("autoencoder", "channels"),
)
# Slow on other backends, where each file is converted by TensorFlow, too, and each shape compiled on JAX.
ON_TENSORFLOW = (
    ("text_transformer", "prune"),
    ("wide_and_deep", "qat"),
    ("integer_columns", "int8"),
    ("dropout_recurrence", "float"),
    ("own_recurrent_cell", "prune"),
    ("series_convolutions", "float16"),
)
CELLS = EVERYWHERE + (ON_TENSORFLOW if keras.backend.backend() == "tensorflow" else ())


@pytest.fixture(scope="module")
def cells():
    """The module of the benchmarks that runs a cell, and the architectures."""
    sys.path.insert(0, str(BENCHMARKS))
    try:
        import _zoo
        import _zoo_cells

        _zoo.load("vision", "dense_vision", "text", "audio", "series", "tables", "generative", "recommender")
        yield _zoo_cells
    finally:
        sys.path.remove(str(BENCHMARKS))


@pytest.mark.parametrize(("name", "cell"), CELLS, ids=lambda value: value)
def test_architecture(cells, backend, name, cell):
    result = cells.cell(name, cell, {"files": backend == "tensorflow"})
    assert result["status"] in ("ok", "floats listed"), result
    if cell == "int8":
        assert result["figures"]["simulated"] > FIDELITY, result


def test_zoo_is_as_large_as_it_says(cells):
    import _zoo

    domains = [architecture.domain for architecture in _zoo.ARCHITECTURES.values()]
    assert len(domains) >= 50
    assert {"vision", "text", "audio", "series", "tables", "generative", "recommender"} <= set(domains)
