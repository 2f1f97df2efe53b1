"""HTML that cannot be broken into: whatever is no `Markup` is text, and escaped."""

import html
import re
from collections.abc import Iterable, Sequence

from keras_mot.analysis.plots.style import printable


class Markup(str):
    """HTML that was made here."""


def text(value: object) -> Markup:
    """A value as text of a page."""
    return value if isinstance(value, Markup) else Markup(html.escape(printable(value), quote=True))


def tag(name: str, *content: object, **attributes: object) -> Markup:
    """An element. Attributes have `_` for `-`, and `class_` for `class`; `None` leaves one out."""
    named = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{text(value)}"'
        for key, value in attributes.items()
        if value is not None
    )
    return Markup(f"<{name}{named}>{join(content)}</{name}>")


def join(parts: Iterable[object], between: str = "") -> Markup:
    """Parts one after the other; those that are no `Markup` are escaped."""
    return Markup(between.join(text(part) for part in parts))


def name(value: object) -> Markup:
    """A name as code, which may be broken behind its separators."""
    return tag("code", Markup(re.sub(r"([/_.])", r"\1<wbr>", text(value))))


def prose(sentence: str) -> Markup:
    """A sentence, in which what stands between backticks is code."""
    return join(tag("code", part) if place % 2 else part for place, part in enumerate(sentence.split("`")))


def table(
    headers: Sequence[object], rows: Iterable[Sequence[object]], words: int = 1, marked: int | None = None
) -> Markup:
    """A table that scrolls within itself where it is too wide.

    Args:
        headers: of the columns.
        rows: of cells.
        words: how many of the first columns are words, aligned to the left; the others are numbers.
        marked: number of a row that stands out.
    """

    def kind(place):
        return None if place < words else "number"

    head = tag("tr", *(tag("th", cell, class_=kind(place), scope="col") for place, cell in enumerate(headers)))
    body = [
        tag(
            "tr",
            *(tag("td", cell, class_=kind(place)) for place, cell in enumerate(row)),
            class_="marked" if number == marked else None,
        )
        for number, row in enumerate(rows)
    ]
    inner = tag("table", tag("thead", head), tag("tbody", join(body, "\n")))
    return tag("div", inner, class_="scroll", tabindex="0", role="region", aria_label="table")


def folded(summary: object, *content: object, open: bool = False) -> Markup:
    """Details that are shown when asked for, and in print."""
    return tag("details", tag("summary", summary), *content, **({"open": ""} if open else {}))
