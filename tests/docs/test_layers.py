"""The guide of layers is what the tables say."""

import pathlib
import runpy

import keras
import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]


@pytest.mark.backend_independent
def test_the_page_of_layers_is_that_of_the_tables():
    written = (ROOT / "docs" / "layers.md").read_text().splitlines()
    generated = runpy.run_path(str(ROOT / "benchmarks" / "layers_table.py"))["page"]().splitlines()
    missing = [line for line in generated if line not in written]
    assert not missing, "the tables have changed: run `python benchmarks/layers_table.py`"
    if "3.15" <= keras.__version__ < "3.16":  # others have other layers
        assert written == generated
