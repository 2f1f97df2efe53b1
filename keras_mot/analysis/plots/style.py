"""How plots look: colours that follow the reader's light or dark background, and small SVG."""

import contextlib
import html
import io
import os
import re
import warnings
from collections.abc import Iterable, Iterator
from typing import Any

from keras_mot._files import replacing, writable_file
from keras_mot._packages import require_matplotlib

COLOURS = {
    "ink": ("#1c2431", "#e7ebf1"),
    "muted": ("#5c6776", "#9ba7b6"),
    "line": ("#d9dfe7", "#333c48"),
    "first": ("#1f62ad", "#74aef0"),
    "second": ("#c65f1c", "#f0995c"),
    "third": ("#2b7d57", "#63c096"),
    "before": ("#a7b1be", "#6d7989"),
    "bad": ("#b3341f", "#f08a76"),
}
"""Names of colours, and what they are on a light and on a dark background."""
PAPER = ("#ffffff", "#14181e")
"""The backgrounds."""
SERIES = ("first", "second", "third", "bad", "muted", "before")
MARKERS = "os^Dv"
WIDTH = 4.1
"""Inches of a figure: on a phone, letters are of about the size that they have in print."""
_SHARES = ("accuracy", "top", "f1", "precision", "recall", "auc")
"""How the names of metrics begin that are shares, told in per cent."""
_FONT = 'system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif'
_SUFFIXES = (".svg", ".png", ".pdf")
_UNSEEN = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff\u202a-\u202e\u2066-\u2069]")
_LEAST_SPAN = 0.004  # of shares: differences of less are not told
_LABEL = 34  # characters of a name beside a plot


def colour(name: str) -> str:
    """A colour by its name in `COLOURS`, as it is on a light background."""
    return COLOURS[name][0]


def printable(name: object) -> str:
    """A text without characters that no page may hold, and without those that turn its direction."""
    return _UNSEEN.sub("\ufffd", str(name))


def shortened_name(name: str, limit: int = _LABEL) -> str:
    """A name that fits beside a plot: the middle of a longer one is left out."""
    name = printable(name)
    return name if len(name) <= limit else f"{name[: limit // 3]}…{name[-(limit - limit // 3 - 1) :]}"


@contextlib.contextmanager
def style() -> Iterator[None]:
    """Within the block, figures are made in the style of all plots. Raises an ImportError without Matplotlib."""
    require_matplotlib()
    import matplotlib

    settings = {
        "axes.edgecolor": colour("line"),
        "axes.labelcolor": colour("muted"),
        "axes.labelsize": 9,
        "axes.titlecolor": colour("ink"),
        "axes.titlesize": 9.5,
        "axes.titlelocation": "left",
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "axes.axisbelow": True,
        "grid.color": colour("line"),
        "grid.linewidth": 0.6,
        "font.size": 9,
        "legend.frameon": False,
        "legend.fontsize": 8.5,
        "legend.labelcolor": colour("ink"),
        "lines.linewidth": 1.6,
        "text.color": colour("ink"),
        "text.parse_math": False,  # a `$` in the name of a layer is a `$`
        "xtick.color": colour("muted"),
        "ytick.color": colour("muted"),
        "xtick.labelsize": 8.5,
        "ytick.labelsize": 8.5,
        "xtick.major.size": 0,
        "ytick.major.size": 0,
        "svg.fonttype": "none",
        "svg.hashsalt": "keras-mot",
        "savefig.transparent": True,
    }
    with matplotlib.rc_context({**matplotlib.rcParamsDefault, "backend": "agg", **settings}):
        yield


def new_figure(width: float, height: float, **subplots: Any) -> tuple[Any, Any]:
    """A figure of so many inches that no window shows, and its axes; `subplots` are arguments of `Figure.subplots`."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    figure.patch.set_alpha(0)
    return figure, figure.subplots(**subplots)


def bytes_on(axis: Any) -> None:
    """Lets an axis count bytes in kB and MB."""
    from matplotlib.ticker import FuncFormatter, NullLocator

    axis.set_major_formatter(FuncFormatter(lambda value, _: in_bytes(value)))
    axis.set_minor_locator(NullLocator())


def in_bytes(value: float) -> str:
    """A number of bytes for people: 23.8 kB; of a thousand each, as disks and app stores count."""
    units = ["bytes", "kB", "MB", "GB"]
    while abs(value) >= 999.5 and len(units) > 1:
        value /= 1000
        units.pop(0)
    unit = units[0]
    return f"{value:.0f} {unit}" if unit == "bytes" or abs(value) >= 99.95 else f"{value:.3g} {unit}"


def is_share(metric_name: str | None) -> bool:
    """Whether a metric is told in per cent, and its differences in points."""
    name = (metric_name or "").lower().replace("_", " ")
    words = name.split(" of ")[0].split()
    return any(word.startswith(_SHARES) for word in words)


def in_time(milliseconds: float) -> str:
    """A time for people: 50.4 µs, 3.12 ms, 1.5 s."""
    if milliseconds < 0.9995:
        return f"{milliseconds * 1000:.3g} µs"
    return f"{milliseconds:.3g} ms" if milliseconds < 999.5 else f"{milliseconds / 1000:.3g} s"


def share_on(axes: Any, values: Iterable[float]) -> None:
    """Lets the upright axis count shares in per cent, with as many digits as neighbouring ticks need."""
    from matplotlib.ticker import FuncFormatter

    span = max(max(values) - min(values), _LEAST_SPAN)
    low, high = axes.get_ylim()
    if high - low < _LEAST_SPAN:
        middle = (low + high) / 2
        axes.set_ylim(middle - _LEAST_SPAN / 2, middle + _LEAST_SPAN / 2)
    digits = 0 if span > 0.04 else 1 if span > _LEAST_SPAN else 2
    # There is no share above all.
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: "" if value > 1 + 1e-9 else f"{value:.{digits}%}"))


def svg_of(figure: Any, prefix: str = "", standalone: bool = True, label: str = "") -> str:
    """A figure as SVG that is drawn in CSS variables, so that it follows a light or dark background.

    Args:
        figure: a Matplotlib figure.
        prefix: what its ids begin with, where several stand on one page.
        standalone: whether it brings the colours along, and an XML header, as a file needs them. Otherwise the page
            says what `--ink` and the others are.
        label: what it shows, for those who do not see it.

    Returns:
        The text of the SVG; letters stay text.
    """
    buffer = io.StringIO()
    with style(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from font")  # letters stay text: the reader's font has them
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.S)
    text = re.sub(r"\s*<!--.*?-->", "", text, flags=re.S)
    for name, (light, _) in COLOURS.items():
        text = text.replace(light, f"var(--{name}, {light})")
    text = re.sub(r"font: (?:([a-z0-9]+) )?([\d.]+)px [^;\"]*", _font, text)  # the page has its own fonts
    text = re.sub(r"font-family: [^;\"]*;? ?", "", text)
    if prefix:
        text = re.sub(r'\bid="', f'id="{prefix}-', text)
        text = re.sub(r'((?:xlink:)?href="#)', rf"\1{prefix}-", text)
        text = text.replace("url(#", f"url(#{prefix}-")
    text = re.sub(r"\n\s*", "\n", text)
    role = f' role="img" aria-label="{_attribute(label)}"' if label else ""
    if not standalone:
        text = re.sub(r'(<svg [^>]*?) width="[^"]*"', r"\1", text, count=1)
        text = re.sub(r'(<svg [^>]*?) height="[^"]*"', r"\1", text, count=1)
        return text.replace("<svg ", f"<svg{role} ", 1).strip()
    # With a background of its own, for pages do not always follow the system's setting as an image does.
    rules = [f"svg {{ {_variables(0)}font-family: {_FONT} }}"]
    rules.append(f"@media (prefers-color-scheme: dark) {{ svg {{ {_variables(1)}}} }}")
    rules = "\n".join(rules)
    rules = f"<style>\n{rules}\n</style>"
    text = re.sub(r"(<svg [^>]*>)", lambda found: f"{found[1]}\n{rules}", text, count=1)
    return f'<?xml version="1.0" encoding="utf-8"?>\n{text.replace("<svg ", f"<svg{role} ", 1)}'


def _variables(place):
    colours = "".join(f"--{name}: {value[place]}; " for name, value in COLOURS.items())
    return f"{colours}background: {PAPER[place]}; "


def _font(found):
    weight = f"font-weight: {found[1]}; " if found[1] else ""
    return f"{weight}font-size: {found[2]}px"


def _attribute(text):
    return html.escape(printable(text), quote=True)


def save(figure: Any, path: str | os.PathLike) -> None:
    """Writes a figure, as a whole or not at all: `.svg` in colours that follow the background, `.png` or `.pdf`.

    Args:
        figure: of any of these functions.
        path: of the picture; a file of that name is replaced.

    Raises:
        ValueError: if no such file can be written.
    """
    path = writable_file(path, _SUFFIXES, exact=True)
    with replacing(path) as temporary:
        if path.suffix == ".svg":
            temporary.write_text(svg_of(figure), encoding="utf-8")
        else:
            figure.savefig(temporary, format=path.suffix[1:], dpi=150, facecolor="white")
