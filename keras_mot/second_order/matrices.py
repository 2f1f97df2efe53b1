"""Kernels as matrices: what multiplies which inputs, for each kind of layer with weights.

A layer with a kernel computes one or several products of a matrix of inputs, one row for each sample and position, and
a matrix of weights. Here both are taken out of their layers, so that methods know matrices alone.
"""

import dataclasses
import itertools
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_mot._arrays import numpy_value
from keras_mot._keras import ConvLSTMCell
from keras_mot.graph.functional import is_a
from keras_mot.graph.kinds import WEIGHTED, kernel_of, kind_of
from keras_mot.layers import find_weights, transformed_weights
from keras_mot.second_order.patches import convolution_patches, transposed_patches

_ROWS, _ROWS_OF_FEW = 1 << 16, 1 << 14  # that are enough; the latter for groups of few inputs
_FEW = 64  # inputs of an output


@dataclasses.dataclass(frozen=True, eq=False)
class WeightMatrices:
    """A kernel, or some columns of it, as matrices of inputs by outputs, one for each group of channels.

    Attributes:
        layer: the layer whose calls show the inputs.
        key: the name of the kernel in it, such as "kernel".
        variable: the kernel.
        shape: (groups, rows, columns): rows are the inputs that one output sums over, columns are outputs. A dense
            layer has one group, a depthwise convolution one for each channel.
        axes: the axes of the kernel that number groups, rows and columns: three tuples. An axis of length 1 may be in
            none.
        grouped: whether groups are blocks of the columns of the kernel, as of convolutions with `groups`.
        part: the slice of the kernel's last axis that is meant.
        gather: function from `pick` and the arguments of a call of the layer to its inputs.
        pick: function from the number of samples and positions of a call to the numbers of those that are looked at,
            or `None` for all.
    """

    layer: keras.layers.Layer
    key: str
    variable: keras.Variable
    shape: tuple[int, int, int]
    axes: tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]
    grouped: bool
    part: slice
    gather: Callable[..., np.ndarray]
    pick: Callable[[int], np.ndarray | None] = lambda count: None

    def rows_of(self, *args: Any, **kwargs: Any) -> np.ndarray:
        """The inputs of the kernel in a call of the layer.

        Args:
            *args: the arguments of the call.
            **kwargs: the others.

        Returns:
            Float32 array of shape (groups, samples and positions, rows).
        """
        return self.gather(self.pick, *args, **kwargs)

    @property
    def path(self) -> str:
        """The path of the kernel in messages and reports."""
        return f"{self.layer.path or self.layer.name}/{self.key}"

    def to_matrices(self, kernel: np.ndarray) -> np.ndarray:
        """The matrices of an array that has the shape of the kernel, or broadcasts to it.

        Args:
            kernel: array, of weights or of anything that there is one of for each weight: scales, masks, integers.

        Returns:
            Array of shape (groups, rows, columns).
        """
        kernel = np.broadcast_to(kernel, self.variable.shape)[..., self.part]
        ordered = kernel.transpose([axis for axes in self.axes for axis in axes])
        if not self.grouped:
            return ordered.reshape(self.shape)
        groups, rows, columns = self.shape
        return np.moveaxis(ordered.reshape(rows, groups, columns), 1, 0)

    def from_matrices(self, matrices: np.ndarray, kernel: np.ndarray) -> np.ndarray:
        """A kernel with these matrices, the inverse of `to_matrices`.

        Args:
            matrices: array of shape (groups, rows, columns).
            kernel: array of the kernel's shape that the columns come from which are no part of the matrices.
        """
        result = np.array(kernel, matrices.dtype)
        own = result[..., self.part]
        order = [axis for axes in self.axes for axis in axes]
        if self.grouped:
            matrices = np.moveaxis(matrices, 0, 1)
        matrices = matrices.reshape([own.shape[axis] for axis in order])
        result[..., self.part] = matrices.transpose(np.argsort(order))
        return result


def thinned(weight: WeightMatrices, batches: int, for_each: int = 32, least: int | None = None) -> WeightMatrices:
    """The same kernel, of whose inputs some positions are looked at: neighbouring ones say much the same.

    Args:
        weight: a kernel.
        batches: how many batches there are.
        for_each: how many rows (samples and positions) of all batches are enough for each input of an output.
        least: how many are looked at where that is fewer; by default 65,536, or 16,384 where there are groups of at
            most 64 inputs, as in depthwise kernels.

    Returns:
        A `WeightMatrices` that shows the same positions of the first batch, the second and so on whatever the values
        are, so that two models can be looked at side by side, each with one of its own.
    """
    groups, inputs, _ = weight.shape
    if least is None:
        least = _ROWS_OF_FEW if groups > 1 and inputs <= _FEW else _ROWS
    number, most = itertools.count(), -(-max(least, for_each * inputs) // max(batches, 1))

    def pick(count):
        if count <= most:
            return None
        return np.sort(np.random.default_rng([next(number), count]).choice(count, most, replace=False))

    return dataclasses.replace(weight, pick=pick)


def matrices_of(layer: keras.layers.Layer) -> list[WeightMatrices]:
    """The kernels of one layer as matrices: several for separable convolutions and for the cells of recurrent layers.

    Args:
        layer: a built layer: of a kind that is weighted (`keras_mot.graph.kinds`), an `EinsumDense`, or a cell.

    Returns:
        List of `WeightMatrices`; empty, if nothing is known of the layer, or it has no kernel of floats.
    """
    found = {weight.key: weight for weight in find_weights(layer)[0] if weight.owner is layer}
    if is_a(layer, keras.layers.EinsumDense):
        made = [_einsum(layer)]
    elif isinstance(layer, ConvLSTMCell):
        made = _of_convolution_cell(layer)
    elif is_a(layer, _CELLS):
        made = _of_cell(layer)
    else:
        kind = kind_of(layer)
        if kind is None or kind.role != WEIGHTED or kind.name not in _KINDS or not layer.built:
            return []
        axes = next((weight.axes for weight in found.values() if weight.variable is kernel_of(layer)), None)
        made = [] if axes is None else _KINDS[kind.name](layer, axes)
    return [each for each in made if any(each.variable is weight.variable for weight in found.values())]


# --- dense layers


def _dense(layer, axes):
    kernel = kernel_of(layer)
    rows, columns = (_count(kernel.shape, group) for group in (axes.inputs, axes.outputs))

    def gather(pick, inputs, *args, **kwargs):
        return _some(_array(inputs).reshape(1, -1, rows), pick)

    return [_matrices(layer, kernel, (1, rows, columns), ((), axes.inputs, axes.outputs), gather)]


def _einsum(layer):
    """A product by an equation; letters that inputs, kernel and outputs share number groups."""
    sources, result = layer.equation.replace(" ", "").split("->")
    first, second = sources.split(",")
    kernel = second.replace("...", "")
    groups = [letter for letter in kernel if letter in first and letter in result]
    summed = [letter for letter in kernel if letter in first and letter not in result]
    columns = [letter for letter in kernel if letter not in first]
    sizes = dict(zip(kernel, layer.kernel.shape, strict=True))
    shape = tuple(int(np.prod([sizes[letter] for letter in letters])) for letters in (groups, summed, columns))
    axes = tuple(tuple(kernel.index(letter) for letter in letters) for letters in (groups, summed, columns))
    before, dots, after = first.partition("...")

    def gather(pick, inputs, *args, **kwargs):
        values = _array(inputs)
        open_axes = values.ndim - len(before) - len(after) if dots else 0
        letters = [*before, *range(open_axes), *after]
        rest = [letter for letter in letters if letter not in groups and letter not in summed]
        order = [letters.index(letter) for letter in (*groups, *rest, *summed)]
        return _some(values.transpose(order).reshape(shape[0], -1, shape[1]), pick)

    return _matrices(layer, layer.kernel, shape, axes, gather)


# --- convolutions


def _convolution(layer, axes):
    kernel, rank = kernel_of(layer), len(layer.kernel_size)
    groups = getattr(layer, "groups", 1)
    positions = tuple(axis for axis in range(rank + 2) if axis not in (*axes.inputs, *axes.outputs))
    rows = _count(kernel.shape, (*positions, *axes.inputs))
    shape = (groups, rows, _count(kernel.shape, axes.outputs) // groups)

    def gather(pick, inputs, *args, **kwargs):
        return _grouped_rows(_patches(layer, _channels_last(layer, _array(inputs))), rank, groups, pick)

    return [_matrices(layer, kernel, shape, ((), (*positions, *axes.inputs), axes.outputs), gather, grouped=groups > 1)]


def _depthwise(layer, axes=None, kernel=None, key=None):
    kernel = kernel_of(layer) if kernel is None else kernel
    rank = len(layer.kernel_size)
    positions = tuple(range(rank))
    shape = (kernel.shape[rank], _count(kernel.shape, positions), kernel.shape[rank + 1])

    def gather(pick, inputs, *args, **kwargs):
        return _grouped_rows(_patches(layer, _channels_last(layer, _array(inputs))), rank, shape[0], pick)

    return [_matrices(layer, kernel, shape, ((rank,), positions, (rank + 1,)), gather, key=key)]


def _separable(layer, axes):
    (depthwise,) = _depthwise(layer, kernel=layer.depthwise_kernel, key="depthwise_kernel")
    pointwise, rank = layer.pointwise_kernel, len(layer.kernel_size)
    shape = (1, pointwise.shape[-2], pointwise.shape[-1])

    def gather(pick, inputs, *args, **kwargs):
        kernel = _used(layer, layer.depthwise_kernel)
        # Channel by channel, its `depth_multiplier` outputs side by side, as the pointwise kernel numbers them.
        middle = np.matmul(depthwise.gather(pick, inputs), depthwise.to_matrices(kernel))
        return np.moveaxis(middle, 0, 1).reshape(1, -1, shape[1])

    axes = ((), (*range(rank), rank), (rank + 1,))
    return [depthwise, _matrices(layer, pointwise, shape, axes, gather, key="pointwise_kernel")]


def _transposed(layer, axes):
    kernel, rank = kernel_of(layer), len(layer.kernel_size)
    positions = tuple(range(rank))
    shape = (1, _count(kernel.shape, (*positions, *axes.inputs)), _count(kernel.shape, axes.outputs))

    def gather(pick, inputs, *args, **kwargs):
        values = _array(inputs)
        lengths = tuple(layer.compute_output_shape(values.shape))
        lengths = lengths[1:-1] if layer.data_format == "channels_last" else lengths[2:]
        extra = layer.output_padding
        extra = extra if isinstance(extra, (tuple, list)) else (extra,) * rank
        values = _channels_last(layer, values)
        spread = transposed_patches(
            values, layer.kernel_size, layer.strides, layer.dilation_rate, layer.padding, lengths, extra
        )
        return _grouped_rows(spread, rank, 1, pick)

    return [_matrices(layer, kernel, shape, ((), (*positions, *axes.inputs), axes.outputs), gather)]


def _patches(layer, values):
    return convolution_patches(values, layer.kernel_size, layer.strides, layer.dilation_rate, layer.padding)


def _grouped_rows(patches, rank, groups, pick):
    """Patches (samples, *positions, *kernel, channels) as (groups, samples and positions, kernel and channels)."""
    *outer, channels = patches.shape
    count, size = int(np.prod(outer[: 1 + rank])), int(np.prod(outer[1 + rank :])) * channels // groups
    chosen = pick(count)
    if chosen is not None:  # before anything is copied: a patch has many times the values of its position
        patches = patches[np.unravel_index(chosen, outer[: 1 + rank])]
        outer, count = patches.shape[:-1], len(chosen)
    if groups == 1:
        return patches.reshape(1, count, size)
    split = patches.reshape(*outer, groups, channels // groups)
    return np.moveaxis(split, -2, 0).reshape(groups, count, size)


def _some(rows, pick):
    """Those of (groups, samples and positions, rows) that are looked at."""
    chosen = pick(rows.shape[1])
    return rows if chosen is None else rows[:, chosen]


def _channels_last(layer, values):
    first = getattr(layer, "data_format", "channels_last") == "channels_first"
    return np.moveaxis(values, 1, -1) if first else values


_KINDS = {
    "dense": _dense,
    "conv": _convolution,
    "conv_transpose": _transposed,
    "depthwise_conv": _depthwise,
    "separable_conv": _separable,
}

# --- cells of recurrent layers


def _of_cell(cell):
    made = [_of_state(cell, "kernel", lambda inputs, states: inputs)]
    if not is_a(cell, keras.layers.GRUCell) or cell.reset_after:
        return [*made, _of_state(cell, "recurrent_kernel", lambda inputs, states: _state(states))]
    # The candidate sees the state times the reset gate.
    gates, candidate = slice(2 * cell.units), slice(2 * cell.units, None)
    return [
        *made,
        _of_state(cell, "recurrent_kernel", lambda inputs, states: _state(states), gates),
        _of_state(cell, "recurrent_kernel", lambda inputs, states: _reset_state(cell, inputs, states), candidate),
    ]


def _of_state(cell, key, inputs_of, part=slice(None)):
    variable = getattr(cell, key)
    shape = (1, variable.shape[0], len(range(*part.indices(variable.shape[1]))))

    def gather(pick, inputs, states, *args, **kwargs):
        return _some(_array(inputs_of(inputs, states)).reshape(1, -1, shape[1]), pick)

    return _matrices(cell, variable, shape, ((), (0,), (1,)), gather, key=key, part=part)


def _state(states):
    return keras.tree.flatten(states)[0]


def _reset_state(cell, inputs, states):
    """The state times the reset gate, of a cell that resets before the product."""
    reset, state = slice(cell.units, 2 * cell.units), _state(states)
    kernel, recurrent_kernel = (_used(cell, each)[:, reset] for each in (cell.kernel, cell.recurrent_kernel))
    total = ops.matmul(inputs, kernel) + ops.matmul(state, recurrent_kernel)
    if cell.use_bias:
        total = total + cell.bias[reset]
    return cell.recurrent_activation(total) * state


def _of_convolution_cell(cell):
    rank = cell.rank
    made = []
    for key in ("kernel", "recurrent_kernel"):
        variable = getattr(cell, key)
        shape = (1, int(np.prod(variable.shape[:-1])), variable.shape[-1])

        def gather(pick, inputs, states, *args, key=key, **kwargs):
            if key == "kernel":
                return _grouped_rows(_patches(cell, _channels_last(cell, _array(inputs))), rank, 1, pick)
            ones = (1,) * rank
            state = _channels_last(cell, _array(_state(states)))
            return _grouped_rows(convolution_patches(state, cell.kernel_size, ones, ones, "same"), rank, 1, pick)

        axes = ((), tuple(range(rank + 1)), (rank + 1,))
        made.append(_matrices(cell, variable, shape, axes, gather, key=key))
    return made


_CELLS = (keras.layers.SimpleRNNCell, keras.layers.GRUCell, keras.layers.LSTMCell)

# --- what all share


def _matrices(layer, variable, shape, axes, gather, grouped=False, key=None, part=slice(None)):
    key = kind_of(layer).kernel if key is None and kind_of(layer) is not None else key or "kernel"
    return WeightMatrices(layer, key, variable, shape, axes, grouped, part, gather)


def _used(layer, variable):
    """The weight that a layer computes with: what its transforms make of a variable."""
    stacks = [weight for weight in transformed_weights(layer) if weight.variable is variable]
    return numpy_value(stacks[0].effective_value() if stacks else variable)


def _count(shape, axes):
    return int(np.prod([shape[axis] for axis in axes]))


def _array(tensor: Any) -> np.ndarray:
    return np.asarray(ops.convert_to_numpy(ops.cast(tensor, "float32")))
