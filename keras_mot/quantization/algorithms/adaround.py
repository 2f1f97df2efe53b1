"""AdaRound: whether each weight is rounded down or up is learned, by what it does to a layer's outputs."""

import dataclasses

import keras
import numpy as np

from keras_mot._config import Config
from keras_mot._messages import describe
from keras_mot._numbers import is_number, is_whole
from keras_mot.quantization.algorithms.gptq import check_damping, descended, gptq
from keras_mot.quantization.algorithms.second_order_rounding import SecondOrderRounding
from keras_mot.second_order import damped
from keras_mot.transforms.grid import Grid

# As in the paper: the sigmoid is stretched beyond 0 and 1, and the exponent of the penalty falls from 20 to 2.
_LOW, _HIGH = -0.1, 1.1
_FIRST_EXPONENT, _LAST_EXPONENT = 20.0, 2.0
_FREE = 0.2  # share of the iterations before weights are drawn to whole numbers
_LEARNING_RATE = 1e-2


@keras.saving.register_keras_serializable("keras_mot")
@dataclasses.dataclass(frozen=True)
class AdaRound(Config, SecondOrderRounding):
    """Learns for each weight whether it is rounded down or up, by gradient descent over all weights of a layer at once.

    The share of a step that each weight is rounded up by is free at first, and drawn to 0 or 1 as it goes on; what is
    minimised is the squared error of the layer's outputs (Nagel et al., 2020, "Up or Down? Adaptive Rounding for
    Post-Training Quantization", arXiv:2004.10568). It follows from the second moments of the layer's inputs, so that
    an iteration costs the same however many samples there are. In the end, steps of single weights are made as long as
    one lowers the error, here and from what `GPTQ` chooses; of both, each output channel gets the better.

    It takes longer than `GPTQ`: an iteration costs a product of H with the kernel.

    Args:
        iterations: steps of gradient descent.
        penalty: how strongly weights are drawn to whole numbers, beside the error in steps.
        damping: as of `GPTQ`.

    Raises:
        TypeError: if an argument is of the wrong type.
        ValueError: if one is out of range.

    Example:

    ```python
    quantized = quantize_post_training(model, INT4_WEIGHTS, x_train[:512], rounding=AdaRound())
    ```
    """

    iterations: int = 1000
    penalty: float = 1.0
    damping: float = 0.01

    def __post_init__(self):
        check_damping(self.damping)
        if not is_whole(self.iterations):
            raise TypeError(f"`iterations` should be an integer; received {describe(self.iterations)}.")
        if self.iterations < 1:
            raise ValueError(f"`iterations` should be at least 1; received {describe(self.iterations)}.")
        if not is_number(self.penalty):
            raise TypeError(f"`penalty` should be a number; received {describe(self.penalty)}.")
        if not 0 < self.penalty < np.inf:
            raise ValueError(f"`penalty` should be above 0; received {describe(self.penalty)}.")

    def choose(
        self, target: np.ndarray, scale: np.ndarray, second: np.ndarray, grid: Grid, kept: np.ndarray
    ) -> np.ndarray:
        """See `SecondOrderRounding.choose`."""
        solved = np.stack([damped(own, self.damping) for own in second])
        learned = adaround(target, scale, solved, grid, kept, self.iterations, self.penalty)
        others = gptq(target, scale, second, grid, kept, self.damping)
        candidates = [descended(each, target, scale, solved, grid, kept) for each in (learned, others)]
        errors = [np.sum((solved @ off) * off, axis=1) for off in (each * scale - target for each in candidates)]
        return np.where((errors[0] <= errors[1])[:, None], *candidates)


def adaround(
    target: np.ndarray,
    scale: np.ndarray,
    second: np.ndarray,
    grid: Grid,
    kept: np.ndarray,
    iterations: int = 1000,
    penalty: float = 1.0,
) -> np.ndarray:
    """The integers next to the weights, above or below, that AdaRound learns.

    Args:
        target: float array of shape (groups, rows, columns).
        scale: array that broadcasts to it.
        second: H, of shape (groups, rows, rows), damped already.
        grid: the integers that there are.
        kept: boolean array of the shape of `target`: the others stay 0.
        iterations: see `AdaRound`.
        penalty: see `AdaRound`.

    Returns:
        float64 array of whole numbers of the shape of `target`.
    """
    scale = np.broadcast_to(scale, target.shape)
    ratio = np.where(kept, target / scale, 0.0)
    below = np.clip(np.floor(ratio), grid.lowest, grid.highest)
    # In units of steps, and of the mean second moment: so the penalty means the same for all layers.
    unit = np.trace(second, axis1=1, axis2=2)[:, None, None] / second.shape[1]
    steps = scale / np.sqrt((scale**2).mean())
    curvature = (second / np.where(unit > 0, unit, 1.0)).astype("float32")
    share = np.clip(ratio - below, 0.0, 1.0)
    logits = -np.log((_HIGH - _LOW) / (np.clip(share, 1e-3, 1 - 1e-3) - _LOW) - 1.0)
    first, squared = np.zeros_like(logits), np.zeros_like(logits)
    free = int(_FREE * iterations)
    for step in range(1, iterations + 1):
        sigmoid = 1.0 / (1.0 + np.exp(-logits))
        soft = (_HIGH - _LOW) * sigmoid + _LOW
        inside = (soft > 0) & (soft < 1) & kept
        soft = np.clip(soft, 0.0, 1.0)
        off = np.where(kept, (below + soft - ratio) * steps, 0.0)
        slope = 2.0 * (curvature @ off.astype("float32")) * steps
        if step > free:
            done = (step - free) / max(iterations - free, 1)
            exponent = _LAST_EXPONENT + 0.5 * (_FIRST_EXPONENT - _LAST_EXPONENT) * (1 + np.cos(np.pi * done))
            middle = 2.0 * soft - 1.0
            slope -= penalty * 2.0 * exponent * np.sign(middle) * np.abs(middle) ** (exponent - 1)
        slope = np.where(inside, slope * (_HIGH - _LOW) * sigmoid * (1.0 - sigmoid), 0.0)
        first = 0.9 * first + 0.1 * slope
        squared = 0.999 * squared + 0.001 * slope**2
        rate = _LEARNING_RATE * np.sqrt(1 - 0.999**step) / (1 - 0.9**step)
        logits -= rate * first / (np.sqrt(squared) + 1e-8)
    up = (_HIGH - _LOW) / (1.0 + np.exp(-logits)) + _LOW >= 0.5
    return np.where(kept, np.clip(below + up, grid.lowest, grid.highest), 0.0)
