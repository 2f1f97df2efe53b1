"""Roundings that are chosen by what they do to a layer's outputs, from the second moments of its inputs."""

import abc
from typing import Any

import numpy as np

from keras_mot.transforms.grid import Grid
from keras_mot.transforms.rounding import Rounding


class SecondOrderRounding(Rounding):
    """Base class of roundings that need data: H = X'X of the inputs X that a kernel is multiplied with.

    Layers are rounded in the order of the graph, each with what the rounded layers and activations before it return as
    its inputs. Without data, weights are rounded to the nearest integer.
    """

    def integers(self, weight: np.ndarray, scale: np.ndarray, grid: Grid, axes: Any = None) -> np.ndarray:
        """The nearest integers, until there are data."""
        return grid.integers(np.asarray(weight, "float32") / scale)

    @property
    @abc.abstractmethod
    def damping(self) -> float:
        """The share of the mean of H's diagonal that is added to it."""

    @abc.abstractmethod
    def choose(
        self, target: np.ndarray, scale: np.ndarray, second: np.ndarray, grid: Grid, kept: np.ndarray
    ) -> np.ndarray:
        """The integers for a kernel as matrices, see `keras_mot.second_order.WeightMatrices`.

        Args:
            target: the weights that would serve best without rounding: float64 array of shape (groups, rows, columns).
            scale: the steps, of the same shape.
            second: H, of shape (groups, rows, rows).
            grid: the integers that there are.
            kept: boolean array of the weights' shape: which may be other than 0.

        Returns:
            Array of whole numbers of the weights' shape.
        """
