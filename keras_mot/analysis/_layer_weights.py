"""The kernels of a flat model: whose they are in the user's, and what an error of them does to their outputs."""

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

import keras
import numpy as np

from keras_mot._arrays import numpy_value
from keras_mot.graph.rewrite import operations_of
from keras_mot.layers import WeightAxes, find_weights
from keras_mot.quantization.algorithms.gptq import gptq
from keras_mot.second_order import Moments, WeightMatrices, gather_moments, matrices_of, parts_of
from keras_mot.transforms.grid import Grid


@dataclasses.dataclass(frozen=True, eq=False)
class LayerWeight:
    """A kernel of a flat model.

    Attributes:
        layer: the layer of the flat model that holds it.
        path: the path of the layer in the user's model.
        variable: the kernel.
        axes: what its axes mean.
        depthwise: whether it is left alone by default.
        is_sole: whether it is the only one of its layer, which is an operation of the graph.
        kernel: the name of the kernel, if its layer has several; else "".
        seen: pairs of matrices in it, and the moments of their inputs; empty where these are not known.
    """

    layer: keras.layers.Layer
    path: str
    variable: keras.Variable
    axes: WeightAxes
    depthwise: bool
    is_sole: bool
    kernel: str = ""
    seen: tuple[tuple[WeightMatrices, Moments], ...] = ()

    def error(self, change: np.ndarray) -> float | None:
        """The share of the energy of the kernel's outputs that a change of it costs; `None` if that is not known."""
        if not self.seen:
            return None
        kernel = numpy_value(self.variable)
        energies = [
            (_energy(matrices, moments, change), _energy(matrices, moments, kernel)) for matrices, moments in self.seen
        ]
        lost, whole = (sum(each) for each in zip(*energies, strict=True))
        return float(lost / max(whole, 1e-300))

    def integers(self, kernel: np.ndarray, scale: np.ndarray, grid: Grid) -> np.ndarray:
        """The integers of a kernel, by GPTQ where the moments of its inputs are known, else the nearest."""
        integers = grid.integers(kernel / scale)
        for matrices, moments in self.seen:
            target, steps = (matrices.to_matrices(each) for each in (kernel, scale))
            chosen = gptq(target, steps, np.asarray(moments.second, "float64"), grid)
            integers = matrices.from_matrices(chosen.astype(kernel.dtype), integers)
        return integers

    def mean_moments(self) -> np.ndarray | None:
        """The mean second moments of the inputs of a kernel that is one matrix; `None` for others."""
        if len(self.seen) != 1 or self.seen[0][0].shape[0] != 1:
            return None
        moments = self.seen[0][1]
        return moments.second[0] / max(moments.count, 1)


def layer_weights(model: keras.Model, origins: Any, name: str) -> tuple[list[LayerWeight], tuple]:
    """The kernels of a flat model that can be transformed.

    Args:
        model: the flat model.
        origins: the `Origins` of its operations in the user's model.
        name: of the user's model, which paths are told without.

    Returns:
        List of `LayerWeight`, in the order of the graph; and pairs of (layer, reason) of what is left out.
    """
    found, skipped = [], []
    for operation in operations_of(model):
        if not isinstance(operation, keras.layers.Layer):
            continue
        own, left = find_weights(operation)
        users = find_weights(origins.of(operation))[0]
        for weight, user in zip(own, users, strict=True):
            path = (user.owner.path or user.owner.name).removeprefix(f"{name}/")
            is_sole = len(own) == 1 and weight.owner is operation
            several = sum(each.owner is user.owner for each in users) > 1
            found.append(
                LayerWeight(
                    *(weight.owner, path, weight.variable, weight.axes, weight.depthwise, is_sole),
                    kernel=user.key if several else "",
                )
            )
        skipped += [(each.path, each.reason) for each in left if each.unknown]
    return found, tuple(skipped)


def with_moments(model: keras.Model, weights: Sequence[LayerWeight], batches: Sequence[Any]) -> Iterator[LayerWeight]:
    """Yields the same with the moments of their inputs, not too many of these at a time.

    Args:
        model: the flat model.
        weights: list of `LayerWeight`.
        batches: list of inputs.
    """
    groups = [[each for each in matrices_of(weight.layer) if each.variable is weight.variable] for weight in weights]
    for numbers in parts_of(groups):
        flat = [each for number in numbers for each in groups[number]]
        try:
            moments = dict(zip(map(id, flat), gather_moments(model, flat, batches), strict=True))
        except ValueError:  # some inputs cannot be looked at: losses are measured all the same
            moments = {}
        for number in numbers:
            seen = [(each, moments[id(each)]) for each in groups[number] if id(each) in moments]
            yield dataclasses.replace(weights[number], seen=tuple(pair for pair in seen if pair[1].count))


def _energy(matrices, moments, kernel):
    values = matrices.to_matrices(np.asarray(kernel, "float64"))
    return sum(float(np.sum(part * (second @ part))) for part, second in zip(values, moments.second, strict=True))
