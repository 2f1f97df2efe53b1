"""Tables as text."""

import io
from collections.abc import Iterable, Sequence


def markdown_table(headers: Sequence[str], rows: Iterable[Sequence[object]], caption: str) -> str:
    """A Markdown table; all columns but the first are aligned to the right."""
    alignment = ["---"] + ["---:"] * (len(headers) - 1)
    lines = [[str(cell).replace("|", "\\|") for cell in row] for row in (headers, alignment, *rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + f"\n\n{caption}\n"


def text_table(headers: Sequence[str], rows: Iterable[Sequence[object]], caption: str | None = None) -> str:
    """A plain table of 120 columns at most; all columns but the first are aligned to the right."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(caption=caption, caption_justify="left")
    for position, header in enumerate(headers):
        table.add_column(header, justify="right" if position else "left", no_wrap=position > 0, overflow="fold")
    for row in rows:
        table.add_row(*(Text(str(cell)) for cell in row))
    output = io.StringIO()
    Console(file=output, width=120).print(table)
    return output.getvalue().rstrip()
