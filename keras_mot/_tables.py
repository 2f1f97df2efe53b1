"""Tables as text, as wide as what they are printed on."""

import contextlib
import contextvars
import html
import io
import os
import sys
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from typing import TextIO

_UNKNOWN_WIDTH = 120
_NARROWEST_NAME = 16
_output = contextvars.ContextVar("output", default=None)


def markdown_table(headers: Sequence[str], rows: Iterable[Sequence[object]], caption: str) -> str:
    """A Markdown table; all columns but the first are aligned to the right."""
    alignment = ["---"] + ["---:"] * (len(headers) - 1)
    lines = [[str(cell).replace("|", "\\|") for cell in row] for row in (headers, alignment, *rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + f"\n\n{caption}\n"


def html_table(headers: Sequence[str], rows: Iterable[Sequence[object]], caption: str | None = None) -> str:
    """A compact HTML table, as notebooks show it; all columns but the first are aligned to the right.

    Whatever stands in the cells is text: names of layers and files are escaped.
    """

    def line(kind, cells):
        parts = [
            f'<{kind} style="text-align: {"right" if place else "left"}">{html.escape(str(cell))}</{kind}>'
            for place, cell in enumerate(cells)
        ]
        return f"<tr>{''.join(parts)}</tr>"

    body = "\n".join(line("td", row) for row in rows)
    table = f"<table>\n<thead>{line('th', headers)}</thead>\n<tbody>\n{body}\n</tbody>\n</table>"
    below = "" if caption is None else f"\n<p><small>{html.escape(caption)}</small></p>"
    return f'<div style="max-width: 100%; overflow-x: auto">\n{table}{below}\n</div>'


class ShownAsTable:
    """What prints as a table, and shows itself as one in notebooks: `_table` and `_caption` say what stands in it."""

    def _table(self) -> tuple[Sequence[str], Iterable[Sequence[object]]]:
        """Headers and rows."""
        raise NotImplementedError

    def _caption(self) -> str | None:
        """The lines below the table, or `None`."""
        return None

    def __str__(self) -> str:
        return text_table(*self._table(), caption=self._caption())

    def _repr_html_(self) -> str:
        return html_table(*self._table(), caption=self._caption())


def text_table(headers: Sequence[str], rows: Iterable[Sequence[object]], caption: str | None = None) -> str:
    """A plain table that fits the output; all columns but the first are aligned to the right.

    Where it would be too wide, cells of several words break between words, and on a terminal names in the first column
    anywhere; numbers never do. Where that is not enough, each row becomes a list of its cells. Nothing is left out.
    """
    rows = [[str(cell) for cell in row] for row in rows]
    layout = _layout([list(headers), *rows], *_limits())
    text = _as_lists(headers, rows) if layout is None else _as_table(headers, rows, *layout)
    return text if caption is None else f"{text}\n{wrapped(caption)}"


def wrapped(text: str) -> str:
    """A line of text that fits the output: broken behind semicolons, between words only where that is not enough."""
    (limit, _), lines = _limits(), [""]
    for part in text.split("; "):
        joined = f"{lines[-1]}; {part}" if lines[-1] else part
        if len(joined) < limit:  # leaves room for the semicolon
            lines[-1] = joined
        else:
            lines.append(part)
    broken = ";\n".join(line for line in lines if line)
    return "\n".join(textwrap.fill(line, limit, break_long_words=False) for line in broken.splitlines())


@contextlib.contextmanager
def fitting(output: TextIO) -> Iterator[None]:
    """Within the block, tables fit `output`: a terminal, or a file or a pipe, where no line is broken."""
    token = _output.set(output)
    try:
        yield
    finally:
        _output.reset(token)


def _limits():
    """Columns of the output, and whether names may be broken: in a file or a pipe, one may want to find them."""
    output = sys.stdout if _output.get() is None else _output.get()
    try:
        terminal = os.get_terminal_size(output.fileno()).columns
    except (AttributeError, OSError, ValueError):
        terminal = 0
    columns = os.environ.get("COLUMNS", "")
    if columns.isdecimal() and int(columns):
        return int(columns), terminal > 0
    return terminal or (_UNKNOWN_WIDTH if _output.get() is None else sys.maxsize), terminal > 0


def _layout(lines, limit, names_may_break):
    """The width of each column, and the blanks between them (0: lines); `None` if the table cannot fit."""
    columns = list(zip(*lines, strict=True))
    widths = [max(map(len, column)) for column in columns]
    least = [max(len(word) for cell in column for word in cell.split() or [""]) for column in columns]
    least[0] = min(widths[0], _NARROWEST_NAME) if names_may_break else widths[0]
    if sum(widths) + _beside_cells(len(widths), 0) <= limit:
        return widths, 0
    gap = next((gap for gap in (2, 1) if sum(least) + _beside_cells(len(widths), gap) <= limit), None)
    if gap is None:
        return None
    room = limit - _beside_cells(len(widths), gap)
    while sum(widths) > room:
        breakable = [place for place, width in enumerate(widths) if width > least[place]]
        widths[max(breakable, key=lambda place: (place > 0, widths[place]))] -= 1  # names last: they have no words
    return widths, gap


def _beside_cells(count, gap):
    return gap * (count - 1) if gap else 3 * count + 1


def _as_table(headers, rows, widths, gap):
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    bare = {"box": box.SIMPLE_HEAD, "show_edge": False, "pad_edge": False, "padding": (0, gap - 1, 0, 0)}
    table = Table(**bare) if gap else Table()
    for place, (header, width) in enumerate(zip(headers, widths, strict=True)):
        table.add_column(header, justify="right" if place else "left", width=width, overflow="fold")
    for row in rows:
        table.add_row(*map(Text, row))
    output = io.StringIO()
    Console(file=output, width=sum(widths) + _beside_cells(len(widths), gap)).print(table)
    return "\n".join(line.rstrip() for line in output.getvalue().rstrip().splitlines())


def _as_lists(headers, rows):
    """Each row as its name, and a line for each other cell that holds something."""
    first, *others = headers
    pad = max(map(len, others), default=0)
    lines = []
    for name, *cells in rows:
        lines.append(f"{first} {name}")
        lines += [f"  {header:{pad}}  {cell}" for header, cell in zip(others, cells, strict=True) if cell]
    return "\n".join(lines)
