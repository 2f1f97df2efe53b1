"""Sizes, times and quality: candidates against each other, layers before and after, files beside each other."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

from keras_mot.analysis.plots.style import (
    MARKERS,
    SERIES,
    WIDTH,
    bytes_on,
    colour,
    in_bytes,
    in_time,
    is_share,
    new_figure,
    printable,
    share_on,
    shortened_name,
    style,
)

_MOST_NAMED = 8
_LETTER = 0.021  # of the width of the axes


@dataclasses.dataclass(frozen=True)
class Point:
    """A candidate: a file, or a stage or trial that made one.

    Attributes:
        name: what it is called.
        cost: bytes or milliseconds.
        metric: its quality.
        group: those of one group have one colour.
        chosen: whether it is marked as what was taken.
    """

    name: str
    cost: float
    metric: float
    group: str = ""
    chosen: bool = False


def front(
    points: Sequence[Point],
    metric_name: str = "accuracy",
    cost_name: str = "bytes, zipped",
    greater_is_better: bool = True,
    floor: float | None = None,
    limit: float | None = None,
) -> Any:
    """Quality against size: all candidates, and the line of those that no other beats.

    Args:
        points: at least one `Point`; those whose numbers are not finite are left out.
        metric_name: what the metric is.
        cost_name: what the cost is: "bytes", "bytes, zipped" or "ms".
        greater_is_better: whether more of the metric is better.
        floor: the metric that must be reached, a dashed line; or `None`.
        limit: the cost that must not be exceeded, a dashed line; or `None`.

    Returns:
        A Matplotlib `Figure`.

    Raises:
        ValueError: if no point has finite numbers.
        ImportError: if Matplotlib is not installed.

    Example:

    ```python
    points = [Point("float", 561_786, 0.989), Point("int8", 23_821, 0.997)]
    keras_mot.analysis.plots.save(keras_mot.analysis.plots.front(points), "front.svg")
    ```
    """
    known = [point for point in points if math.isfinite(point.metric) and math.isfinite(point.cost)]
    if not known:
        raise ValueError("There is no candidate with a size and a metric to draw.")
    with style():
        figure, axes = new_figure(WIDTH, 2.7)
        groups = list(dict.fromkeys(point.group for point in known))
        for number, group in enumerate(groups):
            own = [point for point in known if point.group == group]
            axes.plot(
                *([point.cost for point in own], [point.metric for point in own]),
                MARKERS[number // len(SERIES) % len(MARKERS)],
                markersize=6,
                color=colour(SERIES[number % len(SERIES)]),
                label=printable(group),
                alpha=0.9,
            )
        best = unbeaten(known, greater_is_better)
        axes.plot([p.cost for p in best], [p.metric for p in best], "-", color=colour("muted"), lw=1, zorder=1)
        for point in known:
            if point.chosen:
                axes.plot(*([point.cost], [point.metric]), "o", ms=11, mfc="none", mec=colour("ink"), mew=1.2, zorder=3)
        for line, value in ((axes.axhline, floor), (axes.axvline, limit)):
            if value is not None and math.isfinite(value):
                line(value, color=colour("bad"), ls="--", lw=1, zorder=0)
        costs = [point.cost for point in known]
        if min(costs) > 0:
            axes.set_xscale("log")
            axes.set_xlim(min(costs) / 1.6, max(costs) * 1.6)
        if "bytes" in cost_name:
            _plain_ticks(axes.xaxis, costs)
            bytes_on(axes.xaxis)
        axes.margins(y=0.18)
        axes.autoscale_view()
        if is_share(metric_name):
            share_on(axes, [point.metric for point in known])
        _name(axes, known if len(groups) == 1 else [point for point in known if point.chosen])
        axes.set_xlabel(cost_name.replace("bytes", "size"))
        axes.set_ylabel(printable(metric_name))
        if len(groups) > 1:
            figure.legend(loc="outside lower left", ncols=2, handlelength=1.0, fontsize=8)
    return figure


def unbeaten(points: Sequence[Point], greater_is_better: bool = True) -> list[Point]:
    """The points than which no other is both as small and as good, smallest first."""
    sign, kept = (1 if greater_is_better else -1), []
    for point in sorted(points, key=lambda each: (each.cost, -sign * each.metric)):
        if not kept or sign * point.metric > sign * kept[-1].metric:
            kept.append(point)
    return kept


def _name(axes, points):
    """Names beside points, above or below, where no other name is."""
    if len(points) > _MOST_NAMED:
        points = [point for point in points if point.chosen]
    place = (axes.transData + axes.transAxes.inverted()).transform
    taken = []  # left, right and height of each name, as shares of the axes
    for point in sorted(points, key=lambda each: each.cost):
        name, (x, y) = shortened_name(point.name, 24), place((point.cost, point.metric))
        width = _LETTER * len(name)
        left = min(max(x - width / 2, 0.0), 1.0 - width)
        rows = (0.05, -0.1, 0.11, -0.16, 0.17)
        free = [row for row in rows if not any(_meet((left, left + width, y + row), other) for other in taken)]
        row = free[0] if free else rows[0]
        taken.append((left, left + width, y + row))
        axes.text(left + width / 2, y + row, name, transform=axes.transAxes, ha="center", va="bottom", fontsize=8)


def _meet(one, other):
    return one[0] < other[1] and other[0] < one[1] and abs(one[2] - other[2]) < 0.06


def _plain_ticks(axis, values):
    """Few ticks with round numbers on a logarithmic axis, whatever its span."""
    low, high = math.log10(min(values)) - 0.18, math.log10(max(values)) + 0.18
    steps = (1, 2, 5) if high - low < 1.6 else (1, 3) if high - low < 3 else (1,)
    ticks = [m * 10.0**e for e in range(int(low) - 1, int(high) + 2) for m in steps]
    axis.set_ticks([tick for tick in ticks if low <= math.log10(tick) <= high])


def layer_bytes(before: Mapping[str, int], after: Mapping[str, int], most: int = 16) -> Any:
    """Bytes of each weight before and after, the largest first.

    Args:
        before: dictionary from names to bytes.
        after: the same; a name that is missing is not drawn.
        most: how many weights are drawn.

    Returns:
        A Matplotlib `Figure`.

    Raises:
        ValueError: if no name is in both.
        ImportError: if Matplotlib is not installed.
    """
    names = sorted(set(before) & set(after), key=lambda name: (-before[name], name))[:most]
    if not names:
        raise ValueError("No weight is known before and after.")
    with style():
        figure, axes = new_figure(WIDTH, 0.45 + 0.36 * len(names))
        for row, name in enumerate(names):
            axes.barh(row - 0.08, before[name], 0.2, color=colour("before"), label="" if row else "before")
            axes.barh(row + 0.16, after[name], 0.2, color=colour("first"), label="" if row else "after")
            _above(axes, row, name, f"{in_bytes(before[name])} → {in_bytes(after[name])}")
        _as_rows(axes, len(names))
        axes.set_xlim(0, max(*before.values(), *after.values()) * 1.02)
        axes.set_xticks([])
        axes.grid(visible=False)
    return figure


def latencies(milliseconds: Mapping[str, float], title: str = "") -> Any:
    """The time of a sample, file by file.

    Args:
        milliseconds: dictionary from names to milliseconds.
        title: above the plot.

    Returns:
        A Matplotlib `Figure`.

    Raises:
        ValueError: if it is empty.
        ImportError: if Matplotlib is not installed.
    """
    if not milliseconds:
        raise ValueError("No file was timed.")
    with style():
        figure, axes = new_figure(WIDTH, 0.45 + 0.36 * len(milliseconds))
        for row, (name, value) in enumerate(milliseconds.items()):
            axes.barh(row + 0.06, value, 0.3, color=colour("first" if row else "before"))
            _above(axes, row, name, in_time(value))
        _as_rows(axes, len(milliseconds))
        axes.set_xlim(0, max(milliseconds.values()) * 1.02)
        axes.set_xticks([])
        axes.grid(visible=False)
        axes.set_title(printable(title))
    return figure


def _above(axes, row, name, value):
    """The name and the number of a row, above its bars."""
    place = {"transform": axes.get_yaxis_transform(), "fontsize": 8.5, "va": "bottom"}
    axes.text(0, row - 0.2, shortened_name(name), **place)
    axes.text(1, row - 0.2, value, ha="right", color=colour("muted"), **place)


def _as_rows(axes, count):
    axes.set_ylim(count - 0.55, -0.62)
    axes.set_yticks([])
    axes.spines[["left", "bottom"]].set_visible(False)
