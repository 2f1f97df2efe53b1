"""What a command returns: the same result for readers and for programs."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Result:
    """Text for the terminal, and the same as JSON values."""

    text: str
    data: dict


def table(headers, rows):
    """A plain table as text; all columns but the first are aligned to the right."""
    import io

    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    grid = Table()
    for position, header in enumerate(headers):
        grid.add_column(header, justify="right" if position else "left", overflow="fold")
    for row in rows:
        grid.add_row(*(Text(str(cell)) for cell in row))
    output = io.StringIO()
    Console(file=output, width=120).print(grid)
    return output.getvalue().rstrip()
