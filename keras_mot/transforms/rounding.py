"""How weights become integers: to the nearest one, or as a method of one's own chooses."""

import abc
import dataclasses
from typing import Any

import keras
import numpy as np

from keras_mot._config import Config, EqualByConfig
from keras_mot._messages import describe
from keras_mot.transforms.grid import Grid


class Rounding(EqualByConfig, abc.ABC):
    """Base class: chooses the integer of each weight.

    It is asked once, when the quantized model is made, after the scales are known. `FakeQuantize` keeps what lies
    between each weight and its integer, in steps, and adds it before it rounds to the nearest: so the integers are
    those that were chosen, whatever backend computes them, and training moves on from them. A method that chooses with
    data, by solving for the layer's outputs or by training, hands its integers to `FakeQuantize.round_to` instead.
    """

    @abc.abstractmethod
    def integers(self, weight: np.ndarray, scale: np.ndarray, grid: Grid, axes: Any) -> np.ndarray:
        """The integers of a weight.

        Args:
            weight: float32 array. What is 0 stays 0, whatever is returned for it.
            scale: float32 array that broadcasts to it: the steps.
            grid: the integers that there are, from `grid.lowest` to `grid.highest`.
            axes: the weight's `keras_mot.layers.WeightAxes`, `axes.outputs` for example, or `None` if nobody knows.

        Returns:
            Array of whole numbers of the weight's shape.
        """


@keras.saving.register_keras_serializable("keras_mot")
@dataclasses.dataclass(frozen=True)
class Nearest(Config, Rounding):
    """To the nearest integer; of two, to the even one."""

    def integers(self, weight: np.ndarray, scale: np.ndarray, grid: Grid, axes: Any = None) -> np.ndarray:
        """See `Rounding.integers`."""
        return grid.integers(np.asarray(weight, "float32") / scale)


NEAREST = Nearest()


def check_rounding(rounding):
    """Raises an error if this is neither a `Rounding` nor `None`."""
    if rounding is not None and not isinstance(rounding, Rounding):
        raise TypeError(
            f"`rounding` should be a `Rounding`, such as `GPTQ()` or `AdaRound()`; received {describe(rounding)}."
        )
