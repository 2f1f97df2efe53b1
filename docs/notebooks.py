"""Writes each example as a notebook: `python docs/notebooks.py [FOLDER]`, by default into `build/notebooks`.

A notebook says what its example's docstring says, and holds its code, a cell for each paragraph, so that there is one
source. What `--quick` makes small for the tests is large in a notebook.
"""

import ast
import json
import pathlib
import sys

ROOT = pathlib.Path(__file__).resolve().parents[1]
_SETUP = (
    'import os\n\nos.environ.setdefault("KERAS_BACKEND", "tensorflow")  # or "jax", "torch": before Keras is imported'
)


def examples():
    """The paths of the examples, in order."""
    return sorted((ROOT / "examples").glob("*.py"))


def notebook(path):
    """An example as a notebook of format 4.5, a dictionary.

    Args:
        path: of the example, a file of Python that begins with a docstring.

    Returns:
        What the notebook's JSON holds: the docstring, a cell that chooses the backend (its tag is "setup"), and cells
        of code.

    Raises:
        ValueError: if the file has no docstring.
    """
    text = path.read_text(encoding="utf-8")
    about = ast.get_docstring(ast.parse(text))
    if not about:
        raise ValueError(f"{path} should begin with a docstring that says what it shows.")
    cells = [_cell(0, "markdown", f"# {path.stem}\n\n{about}"), _cell(1, "code", _SETUP, tags=["setup"])]
    cells += [_cell(number, "code", part) for number, part in enumerate(parts_of(text), 2)]
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    return {"cells": cells, "metadata": {"kernelspec": kernel}, "nbformat": 4, "nbformat_minor": 5}


def _cell(number, kind, source, **metadata):
    cell = {"id": f"cell-{number}", "cell_type": kind, "metadata": metadata, "source": source.splitlines(keepends=True)}
    return cell | ({"execution_count": None, "outputs": []} if kind == "code" else {})


def parts_of(text):
    """The code of a script behind its docstring, cut where paragraphs begin.

    A paragraph is what stands between blank lines outside of any statement. Comments alone belong to the one behind
    them, and all imports at the beginning are one.
    """
    lines, (docstring, *statements) = text.splitlines(), ast.parse(text).body
    inner = {number for each in statements for number in range(_first_line(each), each.end_lineno)}
    groups, group = [], []  # of numbers of lines
    for number in range(docstring.end_lineno, len(lines)):
        if lines[number].strip() or number in inner:
            group.append(number)
        elif group and any(line in inner for line in group):
            groups, group = [*groups, group], []
    groups += [group] if group else []
    joined = []
    for group in groups:
        if joined and _are_imports(statements, joined[-1] + group):
            joined[-1] += group
        else:
            joined.append(group)
    return ["\n".join(lines[group[0] : group[-1] + 1]) for group in joined]


def _first_line(statement):
    return min([statement.lineno, *(each.lineno for each in getattr(statement, "decorator_list", []))]) - 1


def _are_imports(statements, lines):
    found = [each for each in statements if each.lineno - 1 in lines]
    return all(isinstance(each, ast.Import | ast.ImportFrom) for each in found)


def write(folder):
    """Writes all notebooks into a folder, which is made; returns their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for path in examples():
        paths.append(folder / f"{path.stem}.ipynb")
        paths[-1].write_text(as_json(notebook(path)), encoding="utf-8")
    return paths


def as_json(made):
    """The text of a notebook's file."""
    return json.dumps(made, indent=1, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    for written in write(pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "build" / "notebooks"):
        print(written)
