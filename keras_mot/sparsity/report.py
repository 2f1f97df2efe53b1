"""What is pruned in a model, how far, and what is not, and why."""

import dataclasses
import math

import keras

from keras_mot._tables import text_table
from keras_mot.layers._technique import check_layer, transformed_and_left_alone
from keras_mot.sparsity.config import PruningConfig, mask_of
from keras_mot.transforms import Mask


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
    """

    path: str
    shape: tuple[int, ...]
    zeros: int
    sparsity: float
    target: float | None
    step: int
    config: PruningConfig | None


@dataclasses.dataclass(frozen=True)
class PruningReport:
    """The pruned weights of a model and those left alone; prints as a table.

    Args:
        pruned: tuple of `PrunedWeight`.
        left_alone: tuple of (path, reason) pairs.
        sparsity: fraction of zeros over all pruned weights.
    """

    pruned: tuple[PrunedWeight, ...]
    left_alone: tuple[tuple[str, str], ...]
    sparsity: float

    def __str__(self):
        rows = [
            (
                row.path,
                "x".join(map(str, row.shape)),
                f"{row.sparsity:.2%}",
                "" if row.target is None else f"{row.target:.2%}",
                repr(row.config.granularity) if row.config else "fixed mask",
            )
            for row in self.pruned
        ]
        rows += [(path, "", "-", "", f"not pruned: {reason}") for path, reason in self.left_alone]
        caption = f"sparsity of pruned weights: {self.sparsity:.2%}"
        return text_table(("weight", "shape", "sparsity", "target", "granularity"), rows, caption)


def pruning_report(model: keras.layers.Layer) -> PruningReport:
    """Reports what is pruned in a model and what is not.

    Args:
        model: a built model or layer, with pruned weights or without.

    Returns:
        A `PruningReport`. Biases and other weights that the table of weights does not list do not appear.

    Raises:
        TypeError: if `model` is not a Keras model or layer.

    Example:

    ```python
    print(pruning_report(prune_low_magnitude(model)))
    ```
    """
    check_layer(model, "pruning_report")
    weights, left = transformed_and_left_alone(model, Mask)
    rows = [_row(weight, mask_of(weight)) for weight in weights]
    total = sum(row.zeros for row in rows), sum(math.prod(row.shape) for row in rows)
    return PruningReport(tuple(rows), tuple(left), total[0] / total[1] if total[1] else 0.0)


def _row(weight, mask):
    shape, zeros, config = tuple(weight.variable.shape), mask.zeros(), mask.updater
    target = None
    if config is not None:
        end = getattr(config.schedule, "end_step", -1)
        target = config.sparsity_at(end if end >= 0 else mask.step)
    return PrunedWeight(weight.path, shape, zeros, zeros / math.prod(shape), target, mask.step, config)
