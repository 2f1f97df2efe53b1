"""GPTQ: weights are rounded one input after the other, and those still to come make up for the errors."""

import dataclasses

import keras
import numpy as np

from keras_mot._config import Config
from keras_mot._messages import describe
from keras_mot._numbers import is_number
from keras_mot.quantization.algorithms.second_order_rounding import SecondOrderRounding
from keras_mot.second_order import inverse_factor
from keras_mot.transforms.grid import Grid

_BLOCK = 128  # inputs whose errors are carried to all later ones at once


@keras.saving.register_keras_serializable("keras_mot")
@dataclasses.dataclass(frozen=True)
class GPTQ(Config, SecondOrderRounding):
    """Rounds the weights of one input after the other; those still to come are moved so that outputs stay near.

    Of all moves it is that of least squared error of the layer's outputs (Frantar et al., 2023, "GPTQ: Accurate
    Post-Training Quantization for Generative Pre-trained Transformers", arXiv:2210.17323).

    Args:
        damping: the share of the mean of H's diagonal that is added to its diagonal: more of it keeps weights nearer to
            what they were.
        ordered: whether inputs with large second moments come first, while there are many others to make up for them;
            otherwise in the order of the kernel.

    Raises:
        TypeError: if an argument is of the wrong type.
        ValueError: if `damping` is negative.

    Example:

    ```python
    quantized = quantize_post_training(model, INT4_WEIGHTS, x_train[:512], rounding=GPTQ(damping=0.1))
    ```
    """

    damping: float = 0.01
    ordered: bool = True

    def __post_init__(self):
        check_damping(self.damping)
        if not isinstance(self.ordered, bool):
            raise TypeError(f"`ordered` should be True or False; received {describe(self.ordered)}.")

    def choose(
        self, target: np.ndarray, scale: np.ndarray, second: np.ndarray, grid: Grid, kept: np.ndarray
    ) -> np.ndarray:
        """See `SecondOrderRounding.choose`."""
        return gptq(target, scale, second, grid, kept, self.damping, self.ordered)


def check_damping(damping):
    """Raises an error if this is no share that can be added to a diagonal."""
    if not is_number(damping):
        raise TypeError(f"`damping` should be a number; received {describe(damping)}.")
    if not 0 <= damping < np.inf:
        raise ValueError(f"`damping` should be at least 0; received {describe(damping)}.")


def gptq(
    target: np.ndarray,
    scale: np.ndarray,
    second: np.ndarray,
    grid: Grid,
    kept: np.ndarray | None = None,
    damping: float = 0.01,
    ordered: bool = True,
) -> np.ndarray:
    """The integers that GPTQ chooses; arguments as of `SecondOrderRounding.choose` and `GPTQ`.

    Args:
        target: float array of shape (groups, rows, columns).
        scale: array that broadcasts to it.
        second: array of shape (groups, rows, rows).
        grid: the integers that there are.
        kept: boolean array of the shape of `target`, or `None` for all.
        damping: see `GPTQ`.
        ordered: see `GPTQ`.

    Returns:
        float64 array of whole numbers of the shape of `target`.
    """
    groups, rows, _ = target.shape
    order = np.tile(np.arange(rows), (groups, 1))
    if ordered:
        order = np.argsort(-np.diagonal(second, axis1=1, axis2=2), axis=1, kind="stable")
    uppers = [inverse_factor(own[np.ix_(by, by)], damping).value for own, by in zip(second, order, strict=True)]
    upper = np.stack(uppers) if groups > 1 else uppers[0][None]
    weights, scale, kept = (
        np.take_along_axis(np.broadcast_to(each, target.shape), order[:, :, None], axis=1)
        for each in (np.asarray(target, "float64"), scale, True if kept is None else kept)
    )
    weights, integers = weights.copy(), np.zeros(target.shape)
    for start in range(0, rows, _BLOCK):
        end = min(start + _BLOCK, rows)
        errors = np.zeros((groups, end - start, target.shape[2]))
        for row in range(start, end):
            rounded = grid.integers(weights[:, row] / scale[:, row])
            integers[:, row] = np.where(kept[:, row], rounded, 0.0)
            error = (weights[:, row] - integers[:, row] * scale[:, row]) / upper[:, row, row, None]
            weights[:, row + 1 : end] -= upper[:, row, row + 1 : end, None] * error[:, None]
            errors[:, row - start] = error
        weights[:, end:] -= np.swapaxes(upper[:, start:end, end:], 1, 2) @ errors
    result = np.empty_like(integers)
    np.put_along_axis(result, order[:, :, None], integers, axis=1)
    return result


def descended(
    integers: np.ndarray, target: np.ndarray, scale: np.ndarray, second: np.ndarray, grid: Grid, kept: np.ndarray
) -> np.ndarray:
    """The integers after steps of single weights that each lower the squared error, until none does.

    Args:
        integers: where to start, array of shape (groups, rows, columns).
        target: as of `gptq`.
        scale: as of `gptq`.
        second: as of `gptq`, damped already.
        grid: as of `gptq`.
        kept: as of `gptq`.
    """
    integers = np.array(integers, "float64")
    scale = np.broadcast_to(scale, target.shape)
    curvature = np.maximum(np.diagonal(second, axis1=1, axis2=2), 1e-30)
    slope = second @ (target - integers * scale)  # half of the gradient's negative
    for _ in range(_SWEEPS):
        changed = False
        for row in range(target.shape[1]):
            best = grid.integers(integers[:, row] + slope[:, row] / (curvature[:, row, None] * scale[:, row]))
            step = np.where(kept[:, row], best - integers[:, row], 0.0)
            if step.any():
                changed = True
                integers[:, row] += step
                slope -= second[:, :, row, None] * (step * scale[:, row])[:, None]
        if not changed:
            break
    return integers


_SWEEPS = 20
