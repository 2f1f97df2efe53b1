"""Pruning granularities: which weights are pruned together.

A granularity pools the scores of a weight into the scores of its units, and spreads a mask of units over the weight. A
weight is read as matrices of inputs by outputs, one for each position: a dense kernel is one matrix, a 3x3
convolution kernel nine. A depthwise kernel is one matrix of positions by channels, because that is what it
sums over.
"""

import abc
import dataclasses
import math

import keras
import numpy as np

from keras_mot._config import Config, EqualByConfig
from keras_mot._messages import describe
from keras_mot._numbers import is_whole
from keras_mot._warnings import warn
from keras_mot.layers import WeightAxes
from keras_mot.sparsity._selection import NonFiniteScoreError, count_to_zero, keep_largest


class Granularity(EqualByConfig, abc.ABC):
    """Base class of granularities."""

    fixed_sparsity = None
    """The sparsity that the pattern itself fixes, or `None` if the schedule sets it."""

    @abc.abstractmethod
    def check(self, shape: tuple[int, ...], axes: WeightAxes, path: str) -> None:
        """Raises a `ValueError` naming `path` if a weight of this shape cannot be pruned this way."""

    @abc.abstractmethod
    def unit_count(self, shape: tuple[int, ...], axes: WeightAxes) -> int:
        """How many units a weight of this shape has."""

    @abc.abstractmethod
    def unit_scores(self, scores: np.ndarray, axes: WeightAxes) -> np.ndarray:
        """The scores of the units, from the scores of the weights (`keras_mot.layers.WeightAxes` `axes`)."""

    @abc.abstractmethod
    def expand(self, unit_mask: np.ndarray, shape: tuple[int, ...], axes: WeightAxes) -> np.ndarray:
        """The boolean mask of the weight, of `shape`, from the mask of the units."""

    def select(self, unit_scores: np.ndarray, sparsity: float) -> np.ndarray:
        """The boolean mask of the units of one weight at `sparsity`, in [0, 1); one unit at least is kept."""
        return keep_largest([unit_scores], unit_scores.size - count_to_zero(unit_scores.size, sparsity))[0]


def to_matrices(array, axes):
    """The weight as an array of shape (positions, inputs, outputs), a view where that is possible."""
    order, groups = _axis_groups(np.ndim(array), axes)
    sizes = [math.prod(np.shape(array)[axis] for axis in group) for group in groups]
    return np.transpose(array, order).reshape(sizes)


def from_matrices(matrices, shape, axes):
    """The inverse of `to_matrices` for a weight of `shape`."""
    order, _ = _axis_groups(len(shape), axes)
    return np.transpose(matrices.reshape([shape[axis] for axis in order]), np.argsort(order))


def _axis_groups(rank, axes):
    positions = tuple(axis for axis in range(rank) if axis not in (*axes.inputs, *axes.outputs))
    groups = (positions, tuple(axes.inputs), tuple(axes.outputs))
    return [axis for group in groups for axis in group], groups


@keras.saving.register_keras_serializable("keras_mot")
@dataclasses.dataclass(frozen=True)
class Element(Config, Granularity):
    """Single weights."""

    def check(self, shape: tuple[int, ...], axes: WeightAxes, path: str) -> None:
        """Any weight will do."""

    def unit_count(self, shape: tuple[int, ...], axes: WeightAxes) -> int:
        """The number of weights."""
        return math.prod(shape)

    def unit_scores(self, scores: np.ndarray, axes: WeightAxes) -> np.ndarray:
        """The scores themselves."""
        return scores

    def expand(self, unit_mask: np.ndarray, shape: tuple[int, ...], axes: WeightAxes) -> np.ndarray:
        """The mask itself."""
        return unit_mask


@keras.saving.register_keras_serializable("keras_mot")
@dataclasses.dataclass(frozen=True)
class Block(Config, Granularity):
    """Rectangular blocks of the matrices of inputs by outputs, such as 1x2, as block-sparse kernels want them.

    Where a dimension is not a multiple of the block, the last block is smaller. It counts as a unit like
    the others, so that the fraction of zero weights may then differ a little from that of zero blocks.

    Args:
        size: (inputs, outputs) of a block.
        pooling: `"AVG"` or `"MAX"`, how the scores of a block's weights make the block's score.

    Raises:
        ValueError: if the size is not two positive integers, or the pooling is another.
    """

    size: tuple[int, int]
    pooling: str = "AVG"

    def __post_init__(self):
        try:
            size = tuple(int(side) for side in self.size)
        except TypeError:
            size = ()
        if len(size) != 2 or min(size) < 1 or size != tuple(self.size):
            raise ValueError(
                f"`block_size` should be two positive integers, (inputs, outputs); received {describe(self.size)}."
            )
        object.__setattr__(self, "size", size)
        if self.pooling not in ("AVG", "MAX"):
            raise ValueError(f"Unsupported pooling type '{self.pooling}'. Should be 'AVG' or 'MAX'.")

    def check(self, shape: tuple[int, ...], axes: WeightAxes, path: str) -> None:
        """The weight must hold at least one whole block."""
        sides = [math.prod(shape[axis] for axis in group) for group in (axes.inputs, axes.outputs)]
        if sides[0] < self.size[0] or sides[1] < self.size[1]:
            raise ValueError(
                f"A block of {self.size[0]}x{self.size[1]} (inputs x outputs) is larger than weight '{path}' of shape "
                f"{tuple(shape)}, which has {sides[0]} inputs and {sides[1]} outputs. Use smaller blocks, or "
                "other settings for this layer: `overrides={...}`."
            )

    def unit_count(self, shape: tuple[int, ...], axes: WeightAxes) -> int:
        """The number of blocks, smaller ones at the edges included."""
        inputs, outputs = (math.prod(shape[axis] for axis in group) for group in (axes.inputs, axes.outputs))
        positions = math.prod(shape) // (inputs * outputs)
        return positions * -(-inputs // self.size[0]) * -(-outputs // self.size[1])

    def unit_scores(self, scores: np.ndarray, axes: WeightAxes) -> np.ndarray:
        """One score per block, of shape (positions, block rows, block columns)."""
        matrices = np.abs(to_matrices(scores, axes))
        reduce = np.maximum if self.pooling == "MAX" else np.add
        counts = np.ones((1, 1, 1), "float32")
        for axis, side in ((1, self.size[0]), (2, self.size[1])):
            starts = np.arange(0, matrices.shape[axis], side)
            lengths = np.diff(np.append(starts, matrices.shape[axis])).astype("float32")
            matrices = reduce.reduceat(matrices, starts, axis=axis)
            counts = counts * np.expand_dims(lengths, tuple({0, 1, 2} - {axis}))
        return matrices if self.pooling == "MAX" else matrices / counts

    def expand(self, unit_mask: np.ndarray, shape: tuple[int, ...], axes: WeightAxes) -> np.ndarray:
        """Each block's entry repeated over the block."""
        sides = [math.prod(shape[axis] for axis in group) for group in (axes.inputs, axes.outputs)]
        mask = unit_mask.repeat(self.size[0], axis=1)[:, : sides[0]].repeat(self.size[1], axis=2)[:, :, : sides[1]]
        return from_matrices(mask, shape, axes)


def _inputs(shape, axes):
    return math.prod(shape[axis] for axis in axes.inputs)


@keras.saving.register_keras_serializable("keras_mot")
@dataclasses.dataclass(frozen=True)
class NofM(Config, Granularity):
    """In every `group` consecutive inputs of an output channel, `zeros` weights are zero: 2:4 and the like.

    The pattern fixes the sparsity, `zeros / group`: the schedule only says when the choice is made anew.
    Mishra et al., 2021, "Accelerating Sparse Deep Neural Networks" (arXiv:2104.08378).

    Args:
        zeros: weights that are zero in each group.
        group: consecutive inputs in a group.
        fill: whether the last group of a weight whose inputs are no multiple of `group` is filled up with zeros. These
            count, so that it has fewer zeros of its own, or none. Otherwise such weights are refused.

    Raises:
        ValueError: if not `0 < zeros < group`.
    """

    zeros: int = 2
    group: int = 4
    fill: bool = False

    def __post_init__(self):
        if not all(is_whole(value) for value in (self.zeros, self.group)) or not 0 < self.zeros < self.group:
            raise ValueError(
                "`sparsity_m_by_n` should be two integers (zeros, group) with 0 < zeros < group; received "
                f"({describe(self.zeros)}, {describe(self.group)})."
            )

    @property
    def fixed_sparsity(self):
        """`zeros / group`."""
        return self.zeros / self.group

    def check(self, shape: tuple[int, ...], axes: WeightAxes, path: str) -> None:
        """The number of inputs must be a multiple of the group; with `fill`, a warning names those where it is not."""
        inputs = _inputs(shape, axes)
        if inputs % self.group and self.fill:
            warn(
                f"'{path}' of shape {tuple(shape)} has {inputs} inputs, no multiple of {self.group}: its last group is "
                f"filled up with zeros, of which there are to be {self.zeros}, so that fewer of its weights are zero."
            )
        elif inputs % self.group:
            raise ValueError(
                f"Groups of {self.group} need a multiple of {self.group} inputs; weight '{path}' of shape "
                f"{tuple(shape)} has {inputs}. Leave the layer out or give it other settings: `overrides={{...}}`."
            )

    def unit_count(self, shape: tuple[int, ...], axes: WeightAxes) -> int:
        """The number of weights: each is chosen within its group."""
        return math.prod(shape)

    def unit_scores(self, scores: np.ndarray, axes: WeightAxes) -> np.ndarray:
        """The scores in groups, of shape (positions, groups, group, outputs)."""
        matrices = to_matrices(scores, axes)
        positions, inputs, outputs = matrices.shape
        if inputs % self.group:
            matrices = np.pad(matrices, [(0, 0), (0, -inputs % self.group), (0, 0)])
        return matrices.reshape(positions, -1, self.group, outputs)

    def expand(self, unit_mask: np.ndarray, shape: tuple[int, ...], axes: WeightAxes) -> np.ndarray:
        """The mask in the shape of the weight."""
        positions, groups, group, outputs = unit_mask.shape
        filled = unit_mask.reshape(positions, groups * group, outputs)
        return from_matrices(filled[:, : _inputs(shape, axes)], shape, axes)

    def select(self, unit_scores: np.ndarray, sparsity: float) -> np.ndarray:
        """Keeps the largest magnitudes of each group; `sparsity` is not used."""
        scores = unit_scores
        mask = np.zeros(scores.shape, "bool")
        rows = max(1, (1 << 20) // max(1, scores[0, 0].size))  # bounds the memory of the ranking
        for position in range(scores.shape[0]):
            for start in range(0, scores.shape[1], rows):
                part = scores[position, start : start + rows]
                if not np.isfinite(part).all():
                    raise NonFiniteScoreError("a score is NaN or infinite")
                order = np.argsort(-np.abs(part), axis=1, kind="stable")[:, : self.group - self.zeros]
                np.put_along_axis(mask[position, start : start + rows], order, True, axis=1)
        return mask


@keras.saving.register_keras_serializable("keras_mot")
@dataclasses.dataclass(frozen=True)
class Channel(Config, Granularity):
    """Whole output channels, ranked by the root of the mean square of their weights' scores.

    The channels stay in the model, as zeros; biases are not touched.
    """

    def check(self, shape: tuple[int, ...], axes: WeightAxes, path: str) -> None:
        """The weight must have more than one output channel."""
        channels = math.prod(shape[axis] for axis in axes.outputs)
        if channels < 2:
            raise ValueError(
                f"Weight '{path}' of shape {tuple(shape)} has {channels} output channel: nothing to choose."
            )

    def unit_count(self, shape: tuple[int, ...], axes: WeightAxes) -> int:
        """The number of output channels."""
        return math.prod(shape[axis] for axis in axes.outputs)

    def unit_scores(self, scores: np.ndarray, axes: WeightAxes) -> np.ndarray:
        """One score per output channel."""
        matrices = to_matrices(scores, axes)
        return np.sqrt(np.square(matrices, dtype="float32").mean(axis=(0, 1)))

    def expand(self, unit_mask: np.ndarray, shape: tuple[int, ...], axes: WeightAxes) -> np.ndarray:
        """Each channel's entry repeated over its weights."""
        _, groups = _axis_groups(len(shape), axes)
        positions, inputs, outputs = (math.prod(shape[axis] for axis in group) for group in groups)
        mask = np.broadcast_to(unit_mask, (positions, inputs, outputs))
        return from_matrices(mask, shape, axes)
