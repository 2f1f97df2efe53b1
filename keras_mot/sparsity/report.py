"""What is pruned in a model, how far, and what is not, and why."""

import dataclasses
import math

import keras

from keras_mot._tables import ShownAsTable
from keras_mot.layers.finding import check_layer
from keras_mot.layers.overview import kinds_caption, overview
from keras_mot.sparsity.config import PruningConfig, mask_of
from keras_mot.sparsity.prune import PRUNING


@dataclasses.dataclass(frozen=True)
class PrunedWeight:
    """One pruned weight.

    Args:
        path: path of the weight.
        shape: its shape.
        zeros: how many entries its mask zeroes.
        sparsity: the fraction of entries that its mask zeroes.
        target: the final sparsity that the schedule aims at, or `None` for a mask without a schedule.
        step: training steps seen.
        config: its `PruningConfig`.
        frozen: whether it is pruned, but not trained.
    """

    path: str
    shape: tuple[int, ...]
    zeros: int
    sparsity: float
    target: float | None
    step: int
    config: PruningConfig | None
    frozen: bool = False


@dataclasses.dataclass(frozen=True)
class PruningReport(ShownAsTable):
    """The pruned weights of a model and those left alone; prints as a table.

    Args:
        pruned: tuple of `PrunedWeight`.
        left_alone: tuple of (path, reason) pairs.
        sparsity: fraction of zeros over all pruned weights.
        left_alone_by_kind: tuple of (kind, number of weights, number of their values) of what is left alone in every
            layer, such as biases. With the others, these are all weights of the model.
    """

    pruned: tuple[PrunedWeight, ...]
    left_alone: tuple[tuple[str, str], ...]
    sparsity: float
    left_alone_by_kind: tuple[tuple[str, int, int], ...] = ()

    def _table(self):
        rows = [
            (
                row.path,
                "x".join(map(str, row.shape)),
                f"{row.sparsity:.2%}",
                "" if row.target is None else f"{row.target:.2%}",
                (repr(row.config.granularity) if row.config else "fixed mask") + (", frozen" if row.frozen else ""),
            )
            for row in self.pruned
        ]
        rows += [(path, "", "-", "", f"not pruned: {reason}") for path, reason in self.left_alone]
        return ("weight", "shape", "sparsity", "target", "granularity"), rows

    def _caption(self):
        lines = [f"sparsity of pruned weights: {self.sparsity:.2%}", kinds_caption(self.left_alone_by_kind, "pruned")]
        return "\n".join(filter(None, lines))


def pruning_report(model: keras.layers.Layer) -> PruningReport:
    """Reports what is pruned in a model and what is not.

    Args:
        model: a built model or layer, with pruned weights or without.

    Returns:
        A `PruningReport`.

    Raises:
        TypeError: if `model` is not a Keras model or layer.

    Example:

    ```python
    print(pruning_report(prune_low_magnitude(model)))
    ```
    """
    check_layer(model, "pruning_report")
    seen = overview(model, PRUNING)
    rows = tuple(_row(weight, mask_of(weight), id(weight.variable) in seen.frozen) for weight in seen.weights)
    total = sum(row.zeros for row in rows), sum(math.prod(row.shape) for row in rows)
    return PruningReport(rows, seen.left_alone, total[0] / total[1] if total[1] else 0.0, seen.by_kind)


def _row(weight, mask, frozen):
    shape, zeros, config = tuple(weight.variable.shape), mask.zeros(), mask.updater
    target = None
    if config is not None:
        end = getattr(config.schedule, "end_step", -1)
        target = config.sparsity_at(end if end >= 0 else mask.step)
    return PrunedWeight(weight.path, shape, zeros, zeros / math.prod(shape), target, mask.step, config, frozen)
