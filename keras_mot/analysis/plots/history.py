"""Training: what a technique did to the weights from epoch to epoch, beside the metric."""

import csv
import math
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from keras_mot._messages import describe, nearest
from keras_mot.analysis.plots.style import WIDTH, colour, is_share, new_figure, share_on, style

_WORDS = {"sparsity": "share of zeros", "unique_values": "different values", "range_change": "ranges moved by"}


def training(history: Any, metric: str | None = None, technique: str | None = None) -> Any:
    """Sparsity, different values or the movement of ranges over the epochs, and the metric below.

    Args:
        history: what `fit` returned, its dictionary `history`, or the path of the file of a `CSVLogger`. Models with
            masks have `sparsity` in it, those with codebooks `unique_values`, quantized ones `range_change`.
        metric: name of what is drawn below; by default `val_accuracy`, `accuracy`, `val_loss` or `loss`, whatever is
            found first.
        technique: "sparsity", "unique_values" or "range_change"; by default what is found.

    Returns:
        A Matplotlib `Figure`.

    Raises:
        ValueError: if the history holds none of them, or no such metric.
        ImportError: if Matplotlib is not installed.

    Example:

    ```python
    history = pruned.fit(x_train, y_train, epochs=10)
    keras_mot.analysis.plots.save(keras_mot.analysis.plots.training(history), "pruning.svg")
    ```
    """
    values = _values(history)
    drawn = technique or next((name for name in _WORDS if name in values), None)
    if drawn is None or drawn not in values:
        raise ValueError(
            f"The history has none of {', '.join(map(repr, _WORDS))}, but {list(values)}: train a model that "
            "`prune_low_magnitude`, `cluster_weights` or `quantize_model` returned."
        )
    shown = metric or next((n for n in ("val_accuracy", "accuracy", "val_loss", "loss") if n in values), None)
    if metric is not None and metric not in values:
        raise ValueError(f"The history has no {metric!r}, but {list(values)}.{nearest(metric, values)}")
    with style():
        figure, axes = new_figure(WIDTH, 2.9 if shown else 1.8, nrows=2 if shown else 1, sharex=True, squeeze=False)
        axes = axes[:, 0]
        epochs = range(1, len(values[drawn]) + 1)
        axes[0].plot(epochs, values[drawn], "o-", markersize=3, color=colour("first"))
        axes[0].set_ylabel(_WORDS.get(drawn, drawn))
        if drawn == "sparsity":
            axes[0].set_ylim(0, 1)
        if drawn != "unique_values":
            axes[0].yaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
        if shown:
            axes[1].plot(epochs, values[shown], "o-", markersize=3, color=colour("second"))
            if is_share(shown):
                share_on(axes[1], values[shown])
            axes[1].set_ylabel(shown.replace("val_", "validation ").replace("_", " "))
        axes[-1].set_xlabel("epoch")
        axes[-1].xaxis.get_major_locator().set_params(integer=True)
    return figure


def _values(history) -> Mapping[str, Sequence[float]]:
    if isinstance(history, str | os.PathLike):
        path = pathlib.Path(history)
        if not path.is_file():
            raise ValueError(f"Expected the path of a `CSVLogger`'s file; received '{path}', not a file.")
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        columns = {name: [_number(row[name]) for row in rows] for name in (rows[0] if rows else ())}
        # Without validation, the logger has columns for it all the same.
        return {name: values for name, values in columns.items() if not all(map(math.isnan, values))}
    values = getattr(history, "history", history)
    if not isinstance(values, Mapping) or not all(hasattr(value, "__len__") for value in values.values()):
        raise TypeError(
            f"`history` should be what `fit` returned, its `history`, or a path; received {describe(history)}."
        )
    return values


def _number(text):
    """The number in a cell; NaN where a `CSVLogger` had none."""
    try:
        return float(text)
    except (TypeError, ValueError):
        return math.nan
