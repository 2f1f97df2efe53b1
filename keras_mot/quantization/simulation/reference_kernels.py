"""Rounding as LiteRT's reference kernels do it: twice, where quantized models and XNNPACK's kernels round once.

A kernel brings a sum of products to the numbers of its result by a factor q * 2^-n, with q from 0.5 to 1 (Jacob et
al., 2018, arXiv:1712.05877, section 2.2). The reference kernels round after the multiplication by q, and again, half
away from zero, after the division by 2^n. Here the integers that they compute with are recovered from the floats of the
model, which are multiples of known numbers but for their rounding errors, and taken through the same steps.
"""

import collections
import contextlib
import dataclasses
from collections.abc import Callable

import keras
import numpy as np
from keras import ops

from keras_mot._arrays import numpy_value
from keras_mot._keras import flatten_layers
from keras_mot._messages import describe
from keras_mot.graph.functional import as_functional
from keras_mot.graph.kinds import WEIGHTED, has_role, is_kind, kind_of
from keras_mot.graph.model_graph import Graph
from keras_mot.layers.activation_quantizer import ActivationQuantizer, intercepted, is_quantized
from keras_mot.layers.dynamic_quantizer import is_dynamic
from keras_mot.layers.transformed import transformed_weights
from keras_mot.quantization.simulation.integer_steps import is_fused_activation, picks_per_channel
from keras_mot.quantization.simulation.placement import quantizer_of
from keras_mot.quantization.simulation.trained_batch_norm import has_trained_batch_norm
from keras_mot.targets import target_of
from keras_mot.transforms import FakeQuantize
from keras_mot.transforms.grid import Grid, with_scales_for_zeros

_ADDING_SHIFT = 20  # bits that the terms of a sum get behind the point


def reference_rounding(model: keras.Model) -> contextlib.AbstractContextManager:
    """Context in which a quantized model rounds activations as LiteRT's reference kernels do.

    Those of LiteRT for Microcontrollers are these. Outside, the model rounds as LiteRT's default kernels (XNNPACK) do,
    to which the difference is a step in up to one value of a hundred after a convolution, and one of eight after a mean
    over a feature map. Only 8-bit activations differ; with 16 bits the model rounds as always. So do activation
    functions that kernels look up or approximate, such as sigmoid and softmax.

    Call the model itself: `predict` has been compiled outside. It is slower, since integers are computed with NumPy.

    Args:
        model: a quantized model.

    Returns:
        A context manager.

    Raises:
        ValueError: if `model` is not quantized, or still trains batch normalization.

    Example:

    ```python
    with reference_rounding(quantized):
        outputs = quantized(x_test[:64], training=False)
    ```
    """
    if not isinstance(model, keras.Model) or not is_quantized(model):
        raise ValueError(f"`reference_rounding` expects a quantized model; received {describe(model)}.")
    if is_dynamic(model):
        raise ValueError(f"'{model.name}' has dynamic ranges: kernels round as it does, all of them.")
    if has_trained_batch_norm(model):
        raise ValueError(f"'{model.name}' still trains batch normalization: pass `freeze_batch_norm(model)`.")
    return intercepted(ReferenceRounding(model), whole=True)


class ReferenceRounding:
    """What takes the place of the quantizers of a model, see `intercepted`.

    Args:
        model: a quantized model.
    """

    def __init__(self, model):
        self._calls = collections.defaultdict(collections.deque)  # id of a quantizer -> its calls, the next one first
        self._integers = {}  # id of a tensor that is a term of a sum -> its integers, less the zero point
        self._terms = set()
        self._target = target_of(model)
        parts = [as_functional(part) for part in flatten_layers(model)]  # the model may be within another
        for functional in {id(part): part for part in parts if part is not None}.values():
            self._add_calls(functional)

    def _add_calls(self, functional):
        self._graph = Graph(functional)
        for call in self._graph.calls:
            if isinstance(call.operation, ActivationQuantizer):
                scale = call.operation.parameters().scale
                kernel = self._kernel(call.inputs[0], scale) if call.operation.bits <= 8 else None
                self._calls[id(call.operation)].append((call.outputs[0], kernel))

    def __call__(self, quantizer, inputs, averages):
        """The inputs, rounded; arguments as of `ActivationQuantizer.call`."""
        calls = self._calls[id(quantizer)]
        result, kernel = calls[0]
        calls.rotate(-1)
        scale = quantizer.parameters().scale
        if kernel is not None and not averages:
            integers = kernel(ops.convert_to_numpy(inputs).astype("float64"))
            inputs = ops.convert_to_tensor((integers * scale).astype("float32"), dtype=inputs.dtype)
        rounded = quantizer.rounded(inputs, averages)
        if id(result) in self._terms:
            self._integers[id(result)] = np.rint(ops.convert_to_numpy(rounded) / scale).astype("int64")
        return rounded

    def _kernel(self, tensor, scale):
        """A function from what a tensor holds in floats to integers of this scale, less the zero point.

        `None` if its kernel rounds once, or what it computes is not known.
        """
        call = self._graph.producer(tensor)
        if call is None:  # an input of the model
            return lambda values: half_away(values.astype("float32") / np.float32(scale))
        operation, inputs = call.operation, call.inputs
        own, grids = quantizer_of(tensor), [quantizer_of(item) for item in inputs]
        if own is not None:
            return _Rescaling(own.parameters().scale, own.parameters().scale / scale)
        if is_kind(operation, "clip"):
            return self._cut(operation, inputs, scale)
        if is_kind(operation, "concatenate"):
            return self._side_by_side(operation, inputs, scale)
        picks = picks_per_channel(operation)
        if (picks or is_fused_activation(operation, self._target)) and grids == [None]:
            kernel = self._kernel(inputs[0], scale)  # rounded in one step with what is before it
            return kernel.picked_by(operation) if picks and isinstance(kernel, _Sum) else kernel
        if not grids or None in grids:
            return None
        scales = [np.float32(grid.parameters().scale) for grid in grids]
        if is_kind(operation, "add", "subtract"):
            return self._sum(operation, inputs, scales, scale)
        return _of_products(call, scales, np.float32(scale), self._target)

    def _cut(self, operation, inputs, scale):
        """Numbers are rounded to the result's, with what is before if it is one step, and cut off there."""
        grid = quantizer_of(inputs[0])
        if grid is None:
            kernel = self._kernel(inputs[0], scale) or (lambda values: np.rint(values / scale))
        else:
            kernel = _Rescaling(grid.parameters().scale, grid.parameters().scale / scale)
        bounds = [None if each is None else float(each) for each in (operation.x_min, operation.x_max)]
        low, high = (end if each is None else each for each, end in zip(bounds, (-np.inf, np.inf), strict=True))
        ends = [np.floor(end / scale + 0.5) for end in (low, high)]

        def cut(values):
            integers = np.clip(kernel(values), *ends)
            # What is at a bound may have been far beyond it.
            return np.where(values <= low, ends[0], np.where(values >= high, ends[1], integers))

        return cut

    def _side_by_side(self, operation, inputs, scale):
        """Inputs of other numbers than the result's are converted first."""
        axis = operation.axis % len(inputs[0].shape)
        sizes = [item.shape[axis] for item in inputs]
        if None in sizes:
            return lambda values: np.rint(values / scale)
        *ends, length = np.cumsum(sizes)
        axis -= len(inputs[0].shape)  # from the end: global pooling behind it leaves channels alone
        kernels = [self._kernel(item, scale) or (lambda values: np.rint(values / scale)) for item in inputs]

        def joined(values):
            if values.ndim < -axis or values.shape[axis] != length:  # pooled along it
                return np.rint(values / scale)
            parts = zip(kernels, np.split(values, ends, axis), strict=True)
            return np.concatenate([kernel(part) for kernel, part in parts], axis)

        return joined

    def _sum(self, operation, inputs, scales, scale):
        """Both terms are brought to one scale with bits behind the point, and their sum to that of the result."""
        if len(inputs) != 2:
            return None
        self._terms.update(id(item) for item in inputs)
        largest = 2.0 * max(scales)
        first, second = (_Rescaling(1.0, float(own) / float(largest)) for own in scales)
        result = _Rescaling(1.0, float(largest) / (2.0**_ADDING_SHIFT * scale))
        sign = -1 if is_kind(operation, "subtract") else 1

        def added():
            terms = [self._integers.get(id(item)) for item in inputs]
            if any(term is None for term in terms):  # reshaped on the way
                return None
            terms = [term << _ADDING_SHIFT for term in terms]
            return result(first(terms[0]) + sign * second(terms[1]))

        return _Sum(added, scale)


@dataclasses.dataclass(frozen=True)
class _Sum:
    """A kernel that computes from the integers of its terms, where these are known, and not from floats.

    Args:
        added: function without arguments: the integers, or `None` if those of a term are not known.
        scale: of the result.
    """

    added: Callable
    scale: float

    def __call__(self, values):
        integers = self.added()
        return np.rint(values / self.scale) if integers is None else integers

    def picked_by(self, operation):
        """The kernel of the sum and an operation behind it that picks the largest of some numbers."""

        def picked():
            integers = self.added()
            if integers is None:
                return None
            return ops.convert_to_numpy(operation.call(ops.convert_to_tensor(integers.astype("float32")))).astype(int)

        return _Sum(picked, self.scale)


def _of_products(call, scales, scale, target):
    """The kernel of an operation that sums integers, or products of them; `None` for others."""
    operation, inputs, tensor = call.operation, call.inputs, call.outputs[0]
    kind = kind_of(operation)
    if has_role(operation, WEIGHTED):
        weights = _weight_scales(operation)
        if weights is None:
            return None
        units = float(scales[0]) * weights.astype("float64")
        if kind.name in target.rounded_once:
            return lambda values: np.floor(np.rint(values / units) * (units / float(scale)) + 0.5)
        return _Rescaling(units, units / float(scale))
    if is_kind(operation, "mean"):
        if None in (*inputs[0].shape[1:], *tensor.shape[1:]):  # only a call shows how many there are
            return None
        count = int(np.prod(inputs[0].shape[1:]) / np.prod(tensor.shape[1:]))
        return _Rescaling(float(scales[0]) / count, float(scales[0]) / float(scale), count)
    if is_kind(operation, "multiply", "matmul", "dot"):
        if len(scales) == 1 and is_kind(operation, "multiply") and all((each == 1).all() for each in _constants(call)):
            return _Rescaling(float(scales[0]), float(scales[0]) / float(scale))  # nothing is left of it in the file
        if len(scales) == 1:
            largest = max(np.abs(each).max() for each in _constants(call))
            scales = [*scales, np.float32(Grid(8).scale_of(largest))]
        product = float(scales[0]) * float(scales[1])
        # LiteRT multiplies scales in float32, TFLM in float64.
        in_float64 = target.runtime == "micro" and is_kind(operation, "multiply")
        return _Rescaling(product, product / float(scale) if in_float64 else scales[0] * scales[1] / scale)
    if is_kind(operation, "leaky_relu"):
        return _leaky(float(getattr(operation, "negative_slope", 0.2)), float(scales[0]), float(scale))
    if is_kind(operation, "sum") or is_fused_activation(operation, target):
        converted = _Rescaling(float(scales[0]), float(scales[0]) / float(scale))
        return _up_to_six(converted, float(scale)) if is_kind(operation, "relu6") else converted
    return None


def _up_to_six(converted, scale):
    """The kernel of a ReLU6: what is 6 may have been far more, and is converted to what is nearest to 6."""
    return lambda values: np.where(values >= 6.0, np.floor(6.0 / scale + 0.5), converted(values))


def _leaky(slope, unit, scale):
    """The kernel of a leaky ReLU: what is negative has a factor of its own."""
    above, below = _Rescaling(unit, unit / scale), _Rescaling(unit * slope, unit * slope / scale)
    return lambda values: np.where(values >= 0, above(values), below(values))


class _Rescaling:
    """Integers times a factor, by a multiplication with 32 bits and a division by a power of 2, each rounded.

    Args:
        unit: the number, or one for each channel, that the integer 1 stands for.
        factor: what integers are multiplied by, in the shape of `unit`.
        count: how many integers a mean is taken of.
    """

    def __init__(self, unit, factor, count=1):
        self._unit = unit
        share, shift = np.frexp(np.asarray(factor, "float64"))
        multiplier = np.rint(share * 2**31).astype("int64")
        full = multiplier == 2**31  # 1 is half of 2
        multiplier, shift = np.where(full, 2**30, multiplier), np.where(full, shift + 1, shift)
        # A factor next to nothing is 0: such has the product of a zero, for one.
        self._multiplier, self._shift = np.where(shift < -31, 0, multiplier), np.where(shift < -31, 0, shift)
        if count > 1:
            # Divided by the count in the multiplication, and by the next lower power of 2 in the division.
            bits = int(np.minimum(min(count.bit_length() - 1, 32), 31 + self._shift))
            self._multiplier = (self._multiplier << bits) // count
            self._shift = self._shift - bits

    def __call__(self, values):
        """The rescaled integers: int64 array of the shape of `values`, floats that are multiples of the unit."""
        left, right = np.maximum(self._shift, 0), np.maximum(-self._shift, 0)
        # Nothing but zeros has the unit 0.
        integers = np.rint(values / np.where(self._unit == 0, 1.0, self._unit)).astype("int64")
        products = (integers << left) * self._multiplier
        # Half away from zero, as the division that follows truncates.
        products += np.where(products >= 0, 1 << 30, 1 - (1 << 30))
        first = np.sign(products) * (np.abs(products) >> 31)
        rest, half = first & ((1 << right) - 1), ((1 << right) - 1) >> 1
        return (first >> right) + (rest > half + (first < 0))


def half_away(values: np.ndarray) -> np.ndarray:
    """Numbers in float32, rounded to the nearest integer, and halves away from zero, as QUANTIZE does it in TFLM."""
    # In float32 the sum would be rounded: the number below 0.5 and 0.5 are 1 there.
    return (np.sign(values) * np.floor(np.abs(values).astype("float64") + 0.5)).astype("float32")


def _constants(call):
    """The constants among the arguments of a call, in float32."""
    arguments = keras.tree.flatten((call.args, call.kwargs))
    constants = [item for item in arguments if item is not None and not keras.utils.is_keras_tensor(item)]
    return [np.asarray(item, "float32") for item in constants]


def _weight_scales(layer):
    """The scale of each output channel, or the one of all; `None` if the layer's weights are in floats."""
    for weight in transformed_weights(layer):
        transform = weight.transform_of(FakeQuantize)
        if transform is not None:
            _, scale = transform.integers(numpy_value(weight.value_before(transform)))
            return with_scales_for_zeros(scale).reshape(-1)
    return None
