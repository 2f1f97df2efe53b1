import io
import os
import re

import pytest

from keras_mot import _tables
from keras_mot._tables import fitting, html_table, text_table

pytestmark = pytest.mark.backend_independent

HEADERS = ["tensor", "shape", "type", "values", "sparsity", "different", "entropy (bits)", "sparse encoding"]
ROWS = [
    ["block_1/depthwise_convolution/depthwise_kernel", "3x3x160x32", "float32", "1,004,608", "80.0%", 120, "11.20", ""],
    ["block_1/bias", "32", "float32", "32", "0.0%", 1, "0.00", ""],
    ["classifier/kernel", "1280x1000", "int8", "1,280,000", "0.3%", 255, "6.91", "yes"],
]
CAPTION = "entropy: bits of a value at least, the table of values not counted; different: how many values there are"


class Terminal(io.StringIO):
    def fileno(self):
        return 1


@pytest.fixture
def terminal(monkeypatch):
    """A terminal of so many columns."""
    monkeypatch.delenv("COLUMNS", raising=False)

    def terminal(columns):
        monkeypatch.setattr(_tables.os, "get_terminal_size", lambda descriptor: os.terminal_size((columns, 24)))
        return Terminal()

    return terminal


@pytest.mark.parametrize("columns", [160, 120, 100, 80, 60, 40])
def test_tables_fit_the_terminal(terminal, columns):
    with fitting(terminal(columns)):
        lines = text_table(HEADERS, ROWS, CAPTION).splitlines()
    names = {str(row[0]) for row in ROWS}
    assert all(len(line) <= columns for line in lines if not any(name in line for name in names))
    words = " ".join(lines).split()
    for row in ROWS:  # whole, whatever the width
        assert all(str(cell) in words for cell in row[1:] if cell != "")
    text = re.sub(r"[\s│┃]", "", "".join(line[:60] for line in lines))
    assert all(name in text or name in " ".join(lines) for name in ("block_1/bias", "classifier/kernel"))


@pytest.mark.parametrize(("columns", "boxed"), [(160, True), (100, False)])
def test_the_lines_go_before_anything_is_broken(terminal, columns, boxed):
    with fitting(terminal(columns)):
        assert ("┃" in text_table(HEADERS, ROWS)) == boxed


def test_a_table_that_is_too_wide_becomes_a_list(terminal):
    with fitting(terminal(40)):
        lines = text_table(HEADERS, ROWS).splitlines()
    assert lines[0] == f"tensor {ROWS[0][0]}"
    assert "  values           1,004,608" in lines
    assert lines.count("  sparse encoding  yes") == 1


@pytest.mark.parametrize("columns", ["100", "60"])
def test_in_a_pipe_names_and_rows_stay_whole(monkeypatch, columns):
    monkeypatch.delenv("COLUMNS", raising=False)
    with fitting(io.StringIO()):
        lines = text_table(HEADERS, ROWS, CAPTION).splitlines()
    assert any(ROWS[0][0] in line and "1,004,608" in line and "11.20" in line for line in lines)
    assert CAPTION in lines
    monkeypatch.setenv("COLUMNS", columns)
    with fitting(io.StringIO()):
        lines = text_table(HEADERS, ROWS).splitlines()
    assert sum(ROWS[0][0] in line for line in lines) == 1


def test_print_fits_120_columns_where_nothing_is_known(monkeypatch, capsys):
    monkeypatch.delenv("COLUMNS", raising=False)
    lines = text_table(HEADERS, [["x" * 30, *ROWS[0][1:]]], CAPTION * 3).splitlines()
    assert max(map(len, lines)) <= 120
    assert any("x" * 30 in line for line in lines)


@pytest.mark.parametrize("value", ["0", "wide", "-5"])
def test_columns_that_are_no_width_are_ignored(monkeypatch, terminal, value):
    monkeypatch.setenv("COLUMNS", value)
    with fitting(terminal(100)):
        monkeypatch.setenv("COLUMNS", value)
        lines = text_table(HEADERS, ROWS).splitlines()
    assert 80 < max(map(len, lines)) <= 100


def test_cells_of_a_notebooks_table_are_text():
    shown = html_table(["<b>", "n"], [["<script>alert(1)</script>", '"&'], ["last", 3]], "below <i>")
    assert " ".join(re.findall(r"<(\w+)", shown)) == "div table thead tr th th tbody tr td td tr td td p small"
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in shown
    assert "&quot;&amp;" in shown
    assert html_table(["n"], []).count("<tr>") == 1
