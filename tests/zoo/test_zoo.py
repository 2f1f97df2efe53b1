"""A tenth of the model zoo of the benchmarks, the quickest: see `benchmarks/model_zoo.py`.

Each model goes through some techniques, and is judged as there. Between them the models have what is unusual in users'
models, and each technique has several of them.
"""

import pathlib
import sys

import pytest

BENCHMARKS = pathlib.Path(__file__).resolve().parents[2] / "benchmarks"
FILES = ("float", "float16")
# What the integer simulation of these random networks keeps of the float model's outputs, at least; decibels.
FIDELITY = 12.0
CELLS = [
    ("text_transformer", "prune"),  # a composite layer of composite layers
    ("text_transformer", "int8"),
    ("wide_and_deep", "cluster"),  # several inputs, a normalization inside
    ("wide_and_deep", "qat"),
    ("integer_columns", "int8"),  # lookups
    ("attention_mil", "channels"),  # shared layers, a layer that returns a list
    ("dropout_recurrence", "float"),  # random numbers in recurrent layers
    ("traffic_graph", "cluster"),  # layers without a configuration, raw weights
    ("own_recurrent_cell", "prune"),
    ("metric_learning", "cluster"),  # a class of its own, with its own loss
    ("collaborative_filter", "prune"),  # subclassed
    ("autoencoder", "channels"),
    ("series_convolutions", "float16"),
]


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
    if cell in FILES and backend != "tensorflow":
        pytest.skip("a file is converted under TensorFlow on all backends: once is enough")
    result = cells.cell(name, cell, {"files": backend == "tensorflow"})
    assert result["status"] in ("ok", "floats listed"), result
    if cell == "int8":
        assert result["figures"]["simulated"] > FIDELITY, result


def test_zoo_is_as_large_as_it_says(cells):
    import _zoo

    domains = [architecture.domain for architecture in _zoo.ARCHITECTURES.values()]
    assert len(domains) >= 50
    assert {"vision", "text", "audio", "series", "tables", "generative", "recommender"} <= set(domains)
