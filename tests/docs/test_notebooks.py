"""Notebooks are made of the examples, and say what these say."""

import ast
import importlib.util
import json
import pathlib

import pytest

pytestmark = pytest.mark.backend_independent

ROOT = pathlib.Path(__file__).resolve().parents[2]
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))


@pytest.fixture(scope="module")
def notebooks():
    spec = importlib.util.spec_from_file_location("keras_mot_notebooks", ROOT / "docs" / "notebooks.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def written(notebooks, tmp_path_factory):
    paths = notebooks.write(tmp_path_factory.mktemp("notebooks"))
    return {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in paths}


def code_of(made):
    return ["".join(cell["source"]) for cell in made["cells"] if cell["cell_type"] == "code" and not cell["metadata"]]


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_a_notebook_has_the_code_of_its_example(written, path):
    made, text = written[path.stem], path.read_text(encoding="utf-8")
    docstring, *_ = ast.parse(text).body
    source = [line for line in text.splitlines()[docstring.end_lineno :] if line.strip()]
    cells = code_of(made)
    assert len(cells) >= 3
    assert [line for cell in cells for line in cell.splitlines() if line.strip()] == source
    for cell in cells:
        compile(cell, path.name, "exec")  # no statement is cut in two
    assert ast.get_docstring(ast.parse(text)) in "".join(made["cells"][0]["source"])


def test_notebooks_are_valid(written):
    nbformat = pytest.importorskip("nbformat", reason="nbformat is not installed")
    for made in written.values():
        nbformat.validate(made)


def test_paragraphs_are_cells(notebooks):
    imports, x, f, last = (
        "import a\n\nimport b",
        "# One.\nx = 1\ny = 2",
        "@a.b\ndef f():\n\n    return 1",
        "# Last.\n\nf()",
    )
    text = f'"""About."""\n\n{imports}\n\n{x}\n\n\n{f}\n\n\n{last}\n'
    assert notebooks.parts_of(text) == [imports, x, f, last]


def test_an_example_without_a_docstring(notebooks, tmp_path):
    path = tmp_path / "bare.py"
    path.write_text("x = 1\n")
    with pytest.raises(ValueError, match="should begin with a docstring"):
        notebooks.notebook(path)
