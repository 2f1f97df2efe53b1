"""The constants of a file in integers: weights, biases, tables, and those of plain arithmetic."""

import dataclasses
from collections.abc import Callable

import numpy as np

from keras_mot.export.litert.marking import in_file_order, weights_of_file
from keras_mot.transforms.grid import Grid, with_scales_for_zeros


@dataclasses.dataclass(frozen=True)
class QuantizedWeight:
    """A weight as a quantized model has it.

    Attributes:
        bits: of its integers.
        integers: function that returns its integers, and their scales, an array that broadcasts to them.
        block_size: how many numbers of a row share a scale in the file, or `None` for all.
    """

    bits: int
    integers: Callable[[], tuple[np.ndarray, np.ndarray]]
    block_size: int | None = None


class Constants:
    """Makes integers of constants; each is made once.

    Args:
        graph: the `FileGraph`.
        weights: the `QuantizedWeight` objects, in the order of the numbers of their marks.
        target: the `Target`, which says how weights and biases are stored.
    """

    def __init__(self, graph, weights, target):
        self._graph, self._weights, self._target = graph, weights, target
        self._numbers = weights_of_file(graph.model) if weights else {}
        self._made = {}
        self._biases = {}  # content -> number of the buffer

    def _once(self, key, make, *args):
        if key not in self._made:
            self._made[key] = make(*args)
        return self._made[key]

    def kernel(self, index, operator, axis, packed):
        """The index of a kernel in integers of 8 bits, or `None` if it has none.

        Args:
            index: of the constant in floats, or of the mark of a weight.
            operator: name of the operator that reads it.
            axis: of the slices that may have scales of their own.
            packed: whether integers of 4 bits may be stored as such.
        """
        return self._once((index, operator), self._make_kernel, index, operator, axis, packed)

    def _make_kernel(self, index, operator, axis, packed):
        if index not in self._numbers:
            return self._rounded(index, axis, 8)
        weight = self._weights[self._numbers[index]]
        integers, scales = self.of_weight(index, operator)
        moved = np.moveaxis(scales, axis, 0).reshape(scales.shape[axis], -1)
        one_each = (moved == moved[:, :1]).all()
        if weight.bits > 8 or not one_each:
            return None
        scale = with_scales_for_zeros(moved[:, 0] if moved.size else np.ones(1, "float32"))
        if np.ptp(scale) <= 1e-6 * scale.max():  # where all slices have one scale, the file says so once
            scale = scale.max(keepdims=True)
        stored = self._target.stored_bits(weight.bits)
        return self._store(index, integers, scale, axis, stored if packed or stored > 4 else 8)

    def of_weight(self, index, operator):
        """The integers of a weight and the scale of each, as the operator reads them."""
        integers, scales = self._weights[self._numbers[index]].integers()
        shape = self._graph.shape(index)
        return tuple(
            in_file_order(array, operator, shape) for array in (integers, np.broadcast_to(scales, integers.shape))
        )

    def in_floats(self, index, operator):
        """The constant in floats, for an operator that computes with them: a weight in place of its mark."""
        if index not in self._numbers:
            return index
        return self._once((index, operator, None), self._make_floats, index, operator)

    def _make_floats(self, index, operator):
        integers, scales = self.of_weight(index, operator)
        values = integers.astype("float32") * scales
        return self._graph.add_constant(index, self._graph.add_buffer(values.astype("float32")))

    def arithmetic(self, index, bits, nearest=False):
        """The index of a constant that operators compute with in integers; `None` if rounding would change it.

        Its largest magnitude stands for the largest integer, 127 or 32767.

        Args:
            index: of the constant in floats.
            bits: 8 or 16.
            nearest: whether it may change to the nearest numbers.
        """
        return self._once((index, bits, nearest), self._rounded, index, None, bits, nearest)

    def _rounded(self, index, axis, bits, nearest=False):
        values = self._graph.values(index).astype("float32", copy=False)
        others = tuple(dimension for dimension in range(values.ndim) if dimension != axis)
        largest = np.abs(values).max(axis=others, keepdims=True, initial=0)
        grid = Grid(bits)
        for magnitudes in (largest, largest.max(keepdims=True)):
            scale = with_scales_for_zeros(grid.scale_of(magnitudes))
            integers = grid.integers(values / scale)
            if nearest or np.allclose(integers * scale, values, rtol=1e-5, atol=1e-4 * float(scale.min())):
                return self._store(index, integers, scale.reshape(-1), axis, bits)
        return None

    def packed(self, index, integers):
        """The index of a constant like that of the index `index` with integers of 4 bits, two in a byte."""
        nibbles = integers.astype("int8").reshape(-1).view("uint8") & 15
        nibbles = np.pad(nibbles, (0, nibbles.size % 2))
        return self._graph.add_constant(index, self._graph.add_buffer(nibbles[::2] | (nibbles[1::2] << 4)))

    def _store(self, index, integers, scales, axis, bits):
        if bits == 4:
            new = self.packed(index, integers)
        else:
            data = integers.astype("int16" if bits == 16 else "int8").reshape(-1)
            new = self._graph.add_constant(index, self._graph.add_buffer(data))
        # One scale has no axis: runtimes for microcontrollers refuse one that is not 0.
        self._graph.quantize(new, bits, scales, np.zeros(len(scales)), axis if len(scales) > 1 else 0)
        return new

    def table(self, index, parameters):
        """The index of a constant of which an operator takes rows, rounded to the numbers of these parameters."""
        return self._once((index, parameters), self._make_table, index, parameters)

    def _make_table(self, index, parameters):
        values = self._graph.values(index).astype("float32")
        limits = np.iinfo(f"int{parameters.bits}")
        with np.errstate(over="ignore"):  # minus infinity, and what stands for it, becomes the lowest
            integers = np.round(values / np.float32(parameters.scale)) + parameters.zero_point
        integers = np.clip(integers, limits.min, limits.max).astype(limits.dtype)
        new = self._graph.add_constant(index, self._graph.add_buffer(integers))
        self._graph.quantize(new, parameters.bits, [parameters.scale], [parameters.zero_point])
        return new

    def given(self, index, integers, parameters):
        """The index of a constant in given integers, an array in the shape of that of the index `index`."""
        new = self._graph.add_constant(index, self._graph.add_buffer(integers.astype(f"int{parameters.bits}")))
        self._graph.quantize(new, parameters.bits, [parameters.scale], [parameters.zero_point])
        return new

    def number(self, like, value, parameters):
        """The index of a single number, rounded to those of these parameters; named after the tensor `like`."""
        return self._once((value, parameters), self._make_number, like, value, parameters)

    def _make_number(self, like, value, parameters):
        integer = np.clip(
            np.floor(value / parameters.scale + 0.5) + parameters.zero_point,
            -(2 ** (parameters.bits - 1)),
            2 ** (parameters.bits - 1) - 1,
        )
        kind = f"INT{parameters.bits}"
        label = f"{self._graph.label(like)}_{value:g}"
        new = self._graph.add_constants(kind, integer.astype(kind.lower()), label)
        self._graph.quantize(new, parameters.bits, [parameters.scale], [parameters.zero_point])
        return new

    def bias(self, index, parameters, kernel):
        """The index of a bias in integers, multiples of the scales of input times kernel.

        Args:
            index: of the bias in floats.
            parameters: of the input.
            kernel: index of the kernel in integers.
        """
        return self._once((index, parameters, kernel), self._make_bias, index, parameters, kernel)

    def _make_bias(self, index, parameters, kernel):
        scales = (np.float32(parameters.scale) * self._graph.scales(kernel)).astype("float32")
        form = self._target.biases[parameters.bits]
        integers = form.integers(self._graph.values(index), scales)
        # Equal ones, most of them 0, are stored once. Kernels are not: XNNPACK knows what it has packed, scales
        # included, by where kernel and bias lie.
        content = integers.tobytes()
        if content not in self._biases:
            self._biases[content] = self._graph.add_buffer(integers)
        new = self._graph.add_constant(index, self._biases[content])
        self._graph.quantize(new, form.bits, scales, np.zeros(len(scales)))
        return new
