"""Layers one below the other: ranges of activations, drift of integer files, sensitivities."""

from collections.abc import Sequence
from typing import Any

from keras_mot.analysis._drift import DriftReport
from keras_mot.analysis.activation_ranges import ActivationRange
from keras_mot.analysis.plots.style import SERIES, WIDTH, colour, new_figure, shortened_name, style
from keras_mot.analysis.sensitivity_report import TECHNIQUES, Sensitivity


def ranges(rows: Sequence[ActivationRange], most: int = 24) -> Any:
    """Where activations are rounded: the range of the integers against the values that the data have.

    Each range is drawn as wide as the others: values beyond the band are clipped, and a band that values fill by a
    small part is wider than they need.

    Args:
        rows: at least one `ActivationRange`.
        most: how many are drawn: of more, those that clip most, or use least of their range.

    Returns:
        A Matplotlib `Figure`.

    Raises:
        ValueError: if there is none.
        ImportError: if Matplotlib is not installed.
    """
    if not rows:
        raise ValueError("There are no ranges of activations to draw.")
    worst = sorted(rows, key=lambda row: (row.fixed, -row.clipped, row.used))[:most]
    shown = [row for row in rows if any(row is each for each in worst)]
    with style():
        figure, axes = new_figure(WIDTH, 0.75 + 0.34 * len(shown))
        for place, row in enumerate(shown):
            width = (row.high - row.low) or 1.0
            seen = [(value - row.low) / width for value in (row.seen_low, row.seen_high)]
            usual = [(value - row.low) / width for value in (row.usual_low, row.usual_high)]
            axes.barh(place + 0.1, 1, 0.26, color=colour("line"), label=_once(place, "range of the integers"))
            ends = [min(max(value, -0.25), 1.25) for value in seen]
            axes.plot(
                ends, [place + 0.1] * 2, color=colour("first"), lw=1.2, label=_once(place, "all values"), zorder=3
            )
            ends = [min(max(value, -0.25), 1.25) for value in usual]
            axes.plot(
                *(ends, [place + 0.1] * 2),
                color=colour("first"),
                lw=5,
                solid_capstyle="butt",
                label=_once(place, "99.8% of them"),
                zorder=2,
            )
            text = {"fontsize": 8, "va": "bottom"}
            axes.text(0, place - 0.08, shortened_name(row.name, 26), **text)
            clipped = f"{row.clipped:.2%} clipped" if row.clipped >= 1e-4 and not row.fixed else ""
            axes.text(1, place - 0.08, clipped, ha="right", color=colour("bad"), **text)
        axes.set_xlim(-0.27, 1.27)
        axes.set_ylim(len(shown) - 0.6, -0.6)
        axes.set_yticks([])
        axes.set_xticks([0, 1], ["lowest integer", "highest integer"])
        axes.grid(axis="y", visible=False)
        axes.spines[["left", "bottom"]].set_visible(False)
        figure.legend(loc="outside lower center", ncols=3, handlelength=1.4, columnspacing=1.2)
    return figure


def drift(report: DriftReport, most: int = 24) -> Any:
    """How far an integer file moves from the model that simulates it: shares of equal and near values, by tensor.

    Args:
        report: of `measure_drift`.
        most: how many tensors are drawn: of more, those that are least equal.

    Returns:
        A Matplotlib `Figure`.

    Raises:
        ValueError: if the report is empty.
        ImportError: if Matplotlib is not installed.
    """
    worst = sorted(report.tensors, key=lambda row: (row.equal, row.within_one))[:most]
    shown = [row for row in report.tensors if any(row is each for each in worst)]
    if not shown:
        raise ValueError("There are no tensors to draw.")
    with style():
        figure, axes = new_figure(WIDTH, 0.75 + 0.34 * len(shown))
        for place, row in enumerate(shown):
            parts = (("third", row.equal, "same integer"), ("before", row.within_one - row.equal, "one step apart"))
            parts += (("bad", 1 - row.within_one, "further"),)
            start = 0.0
            for name, share, label in parts:
                axes.barh(place + 0.1, share, 0.26, start, color=colour(name), label=_once(place, label))
                start += share
            text = {"fontsize": 8, "va": "bottom"}
            axes.text(0, place - 0.08, shortened_name(row.name), **text)
            axes.text(1, place - 0.08, f"{row.equal:.1%}", ha="right", color=colour("muted"), **text)
        axes.set_xlim(0, 1)
        axes.set_ylim(len(shown) - 0.6, -0.6)
        axes.set_yticks([])
        axes.set_xticks([])
        axes.grid(visible=False)
        axes.spines[["left", "bottom"]].set_visible(False)
        figure.legend(loc="outside lower center", ncols=3, handlelength=1.0, columnspacing=1.2)
    return figure


def sensitivity(found: Sensitivity, most: int = 40) -> Any:
    """A panel for each technique, layers from input to output, a line for each setting.

    Args:
        found: of `sensitivity`.
        most: how many layers are drawn, those that lose most.

    Returns:
        A Matplotlib `Figure`.

    Raises:
        ValueError: if there are no rows.
        ImportError: if Matplotlib is not installed.
    """
    techniques = [technique for technique in TECHNIQUES if found.of(technique)]
    if not techniques:
        raise ValueError("There are no sensitivities to draw.")
    worst = {}
    for row in found:
        worst[row.name] = max(row.loss, worst.get(row.name, 0.0))
    kept = set(sorted(worst, key=lambda layer: -worst[layer])[:most])
    layers = [layer for layer in worst if layer in kept]
    with style():
        size = max(WIDTH, 1.6 + 0.22 * len(layers)), 1.9 * len(techniques) + 1
        figure, axes = new_figure(*size, nrows=len(techniques), sharex=True, squeeze=False)
        for panel, technique in zip(axes[:, 0], techniques, strict=True):
            settings = sorted({row.setting for row in found.of(technique)})
            for number, setting in enumerate(settings):
                losses = {row.name: row.loss for row in found.of(technique) if row.setting == setting}
                panel.plot(
                    *(range(len(layers)), [losses.get(layer) for layer in layers]),
                    "o-",
                    markersize=3,
                    lw=1.2,
                    color=colour(SERIES[number % len(SERIES)]),
                    label=f"{setting:g}",
                )
            panel.set_yscale("symlog", linthresh=1e-5)
            panel.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
            panel.set_ylabel(found.measure)
            panel.set_title(TECHNIQUES[technique])
            panel.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), handlelength=1.2)
        names = [shortened_name(layer, 28) for layer in layers]
        axes[-1, 0].set_xticks(range(len(layers)), names, rotation=90, fontsize=7.5)
    return figure


def _once(place, label):
    """A label for the legend, of the first row alone."""
    return "_" if place else label
