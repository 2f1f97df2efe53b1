"""The values of one weight: their histogram, with the levels of its integers and its palette, and its zeros."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from keras_mot.analysis.plots.style import colour, new_figure, printable, style
from keras_mot.analysis.weight_histograms import WeightHistogram, histogram

_MOST_LEVELS = 300


def weights(
    after: "np.ndarray | WeightHistogram",
    before: np.ndarray | None = None,
    step: float | None = None,
    bits: int | None = None,
    title: str = "",
) -> Any:
    """The histogram of a weight before and after, the levels that its integers stand for, and its palette.

    Where few different values are left, each is drawn as a line as high as it is frequent: the palette. Zeros are told
    in words, for they would dwarf everything else.

    Args:
        after: float array of any shape, the values as they are used, or a `WeightHistogram`.
        before: those of the float model, or `None`.
        step: distance of two neighbouring levels; of many scales, a typical one. `None` if there are no integers.
        bits: of an integer; without them, no levels are drawn.
        title: above the plot.

    Returns:
        A Matplotlib `Figure`.

    Raises:
        ValueError: if an array is empty, or holds NaN or infinite values.
        ImportError: if Matplotlib is not installed.

    Example:

    ```python
    kernel = model.get_layer("dense").kernel.numpy()
    figure = keras_mot.analysis.plots.weights(np.round(kernel / 0.02) * 0.02, kernel, step=0.02, bits=4)
    ```
    """
    seen = after if isinstance(after, WeightHistogram) else histogram(after, before, step, bits)
    with style():
        figure, axes = new_figure(3.5, 1.95)
        edges = np.asarray(seen.edges)
        if seen.before:
            axes.stairs(np.asarray(seen.before), edges, fill=True, color=colour("before"), alpha=0.55, label="before")
        if seen.palette:
            used = np.array([pair for pair in seen.palette if pair[0]]).reshape(-1, 2)
            values, counts = used[:, 0], used[:, 1]
            axes.vlines(values, 0, counts, color=colour("first"), linewidth=1.6, label=f"{len(seen.palette)} values")
            axes.plot(values, counts, "o", markersize=3, color=colour("first"))
        else:
            axes.stairs(np.asarray(seen.after), edges, color=colour("first"), linewidth=1.3, label="after")
        levels = levels_of(seen)
        if levels is not None:
            axes.plot(
                levels, np.full(len(levels), -0.05), "|", **_rug(len(levels)), transform=axes.get_xaxis_transform()
            )
            axes.plot([], [], "|", color=colour("second"), markersize=6, label=f"levels of {seen.bits} bits")
        axes.set_ylim(bottom=0)
        axes.set_xlim(edges[0], edges[-1])
        axes.yaxis.set_major_locator(_few_ticks())
        axes.xaxis.set_major_locator(_few_ticks(5))
        axes.grid(axis="x", visible=False)
        axes.set_title(printable(title))
        axes.tick_params(axis="x", pad=7 if levels is not None else 3)
        figure.legend(loc="outside lower left", ncols=3, fontsize=8, handlelength=1.2, columnspacing=1.2)
    return figure


def levels_of(seen: WeightHistogram) -> np.ndarray | None:
    """The numbers that the integers stand for, within the plot; `None` if there are none, or too many to be seen."""
    if seen.step is None or seen.bits is None or 2**seen.bits > _MOST_LEVELS:
        return None
    highest = 2 ** (seen.bits - 1) - 1
    levels = np.arange(-highest, highest + 1) * seen.step
    return levels[(levels >= seen.edges[0]) & (levels <= seen.edges[-1])]


def _rug(count):
    crowded = count > 64
    return {
        "clip_on": False,
        "color": colour("second"),
        "markersize": 4 if crowded else 6,
        "markeredgewidth": 0.5 if crowded else 1.1,
    }


def _few_ticks(count=4):
    from matplotlib.ticker import MaxNLocator

    return MaxNLocator(count)


def mask(values: np.ndarray, title: str = "", shape: Sequence[int] | None = None) -> Any:
    """Where a weight is zero: a picture of its matrix, dark where weights are left.

    Args:
        values: array of the weight; one of more than two axes is drawn as (product of the others) x (last axis).
        title: above the picture.
        shape: (rows, columns) to draw it as; by default what suits the weight.

    Returns:
        A Matplotlib `Figure`. Of a weight with more rows or columns than the picture has points, a point is as dark as
        the share of its weights that are left.

    Raises:
        ValueError: if the array is empty.
        ImportError: if Matplotlib is not installed.
    """
    from keras_mot.analysis.weight_histograms import density_picture

    density = density_picture(np.asarray(values) if shape is None else np.asarray(values).reshape(shape))
    with style():
        from matplotlib.colors import to_rgba

        rows, columns = density.shape
        width = 3.5
        figure, axes = new_figure(width, float(np.clip(width * rows / columns, 0.5, 3.5)) + 0.3)
        picture = np.zeros((rows, columns, 4))
        picture[..., :3] = to_rgba(colour("first"))[:3]
        picture[..., 3] = density
        axes.imshow(picture, aspect="auto", interpolation="nearest")
        axes.set_xticks([])
        axes.set_yticks([])
        axes.grid(visible=False)
        for side in axes.spines.values():
            side.set_visible(True)
        axes.set_title(printable(title))
    return figure
