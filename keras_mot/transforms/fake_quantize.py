"""Fake quantization of weights: floats that an integer and a scale can hold exactly."""

import math
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_mot import _tensorflow, _torch
from keras_mot._messages import describe
from keras_mot._numbers import is_whole
from keras_mot.transforms._weight_rounding import rounded_weight, scale_of_blocks, scale_of_largest
from keras_mot.transforms.base import WeightTransform, by_reference, resolved
from keras_mot.transforms.grid import LEAST_SCALE, Grid, in_blocks, least_squares_reach
from keras_mot.transforms.rounding import NEAREST, Rounding, check_rounding


@keras.saving.register_keras_serializable("keras_mot")
class FakeQuantize(WeightTransform):
    """Rounds each weight to a multiple of a scale: symmetric signed integers without the lowest one.

    The scale follows the largest magnitude of the tensor, or of each output channel, and so moves with the weights
    while they are trained. The gradient passes unchanged to the stored weight (Jacob et al., 2018, "Quantization and
    Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference", arXiv:1712.05877, section 3).

    With `learned`, the scale is trained instead (Esser et al., 2020, "Learned Step Size Quantization",
    arXiv:1902.08153). The variable is `reach`, the largest number that the integers stand for, in the units of the
    weight, so that an optimizer such as Adam moves it as it moves weights; its gradient is such that with SGD the scale
    moves exactly as in the paper, the paper's factor 1 / sqrt(weights * largest integer) included. Call `fit` once
    before use.

    With `scaled_channels`, each output channel is multiplied by a constant after rounding, which is a part of its scale
    in a file. So a batch normalization that is folded into a kernel leaves the weights their size, which is what
    optimizers such as Adam want, and leaves shared values shared: with `per_channel=False`, integers are equal where
    weights are.

    Args:
        bits: bits of an integer, 2 to 16; 8 bits are the integers -127 to 127.
        per_channel: whether each output channel has a scale of its own.
        learned: whether the scales are trained.
        scaled_channels: whether each output channel is multiplied by a factor, 1 until `scale_channels` is called.
        rounding: a `Rounding`, `Nearest()` by default, that chooses the integers when `fit` is called.
        block_size: how many weights that follow each other in a channel of a matrix share a scale; `None` for all of
            them. Scales of blocks have eight binary digits and are at least 2 ** -17, as files and kernels have them.
        channel_axis: the axis whose slices have scales of their own, if it is not that of the outputs: the rows of a
            table, for example.
        **kwargs: arguments of `WeightTransform`.

    Attributes:
        grid: the `Grid` of the integers.
        rounds: whether `call` rounds; turned off to see what the model computes without.

    Example:

    ```python
    quantize = keras_mot.transforms.FakeQuantize(bits=3, per_channel=False)
    quantize.build((4,))
    quantize(np.array([-1.0, 0.1, 0.5, 3.0], "float32"))  # [-1, 0, 0, 3]
    ```
    """

    kind = "quantization"
    followers = ()

    def __init__(
        self,
        bits: int = 8,
        per_channel: bool = True,
        learned: bool = False,
        scaled_channels: bool = False,
        rounding: Rounding | None = None,
        block_size: int | None = None,
        channel_axis: int | None = None,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        if not is_whole(bits) or not 2 <= bits <= 16:
            raise ValueError(f"`bits` should be an integer from 2 to 16; received {describe(bits)}.")
        self.bits = bits
        self.per_channel = per_channel
        self.learned = learned
        self.scaled_channels = scaled_channels
        check_rounding(rounding)
        self.rounding = NEAREST if rounding is None else rounding
        self.block_size, self.channel_axis = block_size, channel_axis
        if block_size is not None and not is_whole(block_size):
            raise TypeError(f"`block_size` should be an integer, or None; received {describe(block_size)}.")
        if block_size is not None and (block_size < 1 or not per_channel or learned or scaled_channels):
            raise ValueError(
                "`block_size` should be at least 1, and goes with `per_channel=True` and scales that follow the "
                f"weights, neither learned nor multiplied by factors; received {describe(block_size)}."
            )
        self.grid = Grid(bits)
        self.rounds = True

    @property
    def limit(self) -> int:
        """The largest integer."""
        return self.grid.highest

    def build(self, weight_shape):
        """Creates what the integers reach: of the largest magnitude the share 1, or, if learned, the number 1."""
        self.weight_shape = tuple(weight_shape)
        outputs = () if self.axes is None else self.axes.outputs
        slices = outputs if self.channel_axis is None else (self.channel_axis,)
        own = slices if self.per_channel else ()
        self.shared_axes = tuple(axis for axis in range(len(self.weight_shape)) if axis not in own)
        shape = self._shape(own)
        if self.block_size is not None:
            self._check_blocks()
            (axis,) = self.shared_axes
            shape = [length // self.block_size if each == axis else length for each, length in enumerate(weight_shape)]
        self.reach = self.add_weight(
            name="reach", shape=shape, dtype="float32", initializer="ones", trainable=self.learned
        )
        self.factors = None
        if self.scaled_channels:
            self.factors = self.add_weight(
                name="factors", shape=self._shape(outputs), dtype="float32", initializer="ones", trainable=False
            )
        self.offsets = None
        if self.rounding != NEAREST:
            # In steps, from each weight to where the nearest integer is the one that was chosen.
            self.offsets = self.add_weight(
                name="offsets", shape=self.weight_shape, dtype="float32", initializer="zeros", trainable=False
            )
        self.built = True

    def _check_blocks(self):
        if len(self.weight_shape) != 2 or len(self.shared_axes) != 1:
            raise ValueError(
                f"`block_size` is for matrices with a scale for each channel; the weight of '{self.name}' has shape "
                f"{self.weight_shape}."
            )
        length = self.weight_shape[self.shared_axes[0]]
        if length % self.block_size:
            raise ValueError(
                f"Blocks of {self.block_size} do not divide the {length} weights of a channel of '{self.name}'."
            )

    def _shape(self, outputs):
        return [length if axis in outputs else 1 for axis, length in enumerate(self.weight_shape)]

    def call(self, weight):
        """The nearest multiple of the scale for each weight; same shape and dtype as `weight`."""
        weight = self.penalised(weight)
        if self.factors is None:
            return weight
        return weight * ops.cast(ops.convert_to_tensor(self.factors.value), weight.dtype)

    def penalised(self, weight):
        """The same without the factors: in floats, batch normalization comes behind what a penalty sees."""
        if not self.rounds:
            return weight
        return self._with_learned_scale(weight) if self.learned else self._rounded(weight)

    def _rounded(self, weight):
        value = ops.cast(weight, "float32")
        fixed = ops.stop_gradient(value)
        scale = self._scale(fixed)
        clips = self.bits < 8 or self.offsets is not None  # otherwise the largest weight is on the grid
        if keras.backend.backend() == "torch":
            return _torch.rounded_weight(weight, self._moved(fixed, scale), scale, self.limit if clips else None)
        offsets = [] if self.offsets is None else [ops.convert_to_tensor(self.offsets.value)]
        if keras.backend.backend() == "tensorflow":
            rounded = rounded_weight(fixed, scale, offsets, self.grid, clips)
            rounded.set_shape(weight.shape)
            return _tensorflow.rounded_weight(weight, ops.cast(rounded, weight.dtype))
        return ops.cast(rounded_weight(value, scale, offsets, self.grid, clips), weight.dtype)

    def _moved(self, value, scale):
        """A weight, moved to where the nearest integers are those that were chosen."""
        return value if self.offsets is None else value + ops.convert_to_tensor(self.offsets.value) * scale

    def _with_learned_scale(self, weight):
        value = ops.cast(weight, "float32")
        members = math.prod(self.weight_shape) / math.prod(self.reach.shape)
        reach = with_gradient_times(self._reach(), self.limit**1.5 / math.sqrt(members))
        scale = self.grid.scale_of(ops.abs(reach), ops)
        ratio = value / scale
        if self.offsets is not None:
            ratio = ratio + ops.convert_to_tensor(self.offsets.value)
        passed = ops.where(ops.abs(ratio) <= self.limit, ratio, ops.stop_gradient(ratio))
        integers = self.grid.integers(ratio, ops)
        return ops.cast((passed + ops.stop_gradient(integers - passed)) * scale, weight.dtype)

    def fit(self, weight: np.ndarray) -> None:
        """Sets the scales for a weight, up to the largest magnitude, below 8 bits of least squared error; and rounds.

        Args:
            weight: float array of the weight's shape.
        """
        groups, reduced = np.asarray(weight, "float32"), self.shared_axes
        if self.block_size is not None:
            (axis,) = reduced
            groups, reduced = groups.reshape(in_blocks(groups.shape, axis, self.block_size)), (axis + 1,)
        largest = np.abs(groups).max(axis=reduced, keepdims=True)
        share = 1.0 if self.bits >= 8 else least_squares_reach(groups, self.limit, reduced)
        reach = np.maximum(largest, 1e-6) * share if self.learned else np.broadcast_to(share, largest.shape)
        self.reach.assign(reach.reshape(self.reach.shape))
        if self.offsets is not None:
            value = np.asarray(weight, "float32")
            self.round_to(weight, self.rounding.integers(value, self.steps(value), self.grid, self.axes))

    def round_to(self, weight: np.ndarray, integers: np.ndarray) -> None:
        """Gives a weight the integers that a `Rounding` has chosen, until `fit` is called again.

        Args:
            weight: float array of the weight's shape, for which the scales have been set.
            integers: array of whole numbers of the same shape. What is 0 in `weight` stays 0, as under a mask.

        Raises:
            ValueError: if they have another shape, are not whole, or lie outside of the grid; or if the rounding is
                `Nearest()`, which keeps none.
        """
        if self.offsets is None:
            raise ValueError(f"'{self.name}' rounds to the nearest integer: make it with another `rounding`.")
        weight, chosen = np.asarray(weight, "float32"), np.asarray(integers)
        if chosen.shape != self.weight_shape:
            raise ValueError(
                f"{self.rounding!r} should return integers of shape {self.weight_shape}; it returned {chosen.shape}."
            )
        chosen = chosen.astype("float64")
        whole = np.isfinite(chosen).all() and (chosen == np.round(chosen)).all()
        if not whole or np.abs(chosen).max(initial=0) > self.limit:
            received = f"some from {chosen.min():g} to {chosen.max():g}" if whole else "others"
            raise ValueError(
                f"{self.rounding!r} should return whole numbers from {self.grid.lowest} to {self.grid.highest}; it "
                f"returned {received}. `grid.integers(weight / scale)` gives the nearest ones."
            )
        scale = self.steps(weight).astype("float64")
        self.offsets.assign(np.where(weight == 0, 0.0, chosen - weight / scale).astype("float32"))

    def scale_channels(self, factors: np.ndarray) -> None:
        """Sets what the output channels are multiplied by: numbers of at least 0, in the order of the axes."""
        self.factors.assign(np.asarray(factors, "float32").reshape(self.factors.shape))

    def factors_of(self) -> np.ndarray:
        """What the output channels are multiplied by: float32 array that broadcasts to the weight."""
        if self.factors is None:
            return np.ones((1,) * len(self.weight_shape), "float32")
        return np.asarray(ops.convert_to_numpy(self.factors), "float32")

    def freeze(self, weight):
        """The multiples of the scale, without the rounding errors of the straight-through sum."""
        value = np.asarray(ops.convert_to_numpy(ops.cast(weight, "float32")))
        integers, scale = self.integers(value)
        return ops.cast(ops.convert_to_tensor(integers.astype("float32") * scale), weight.dtype)

    def _scale(self, value):
        if self.learned:
            return self.grid.scale_of(ops.abs(self._reach()), ops)
        if self.block_size is not None:
            (axis,) = self.shared_axes
            return scale_of_blocks(value, self._reach(), self.grid, self.weight_shape, axis, self.block_size)
        return scale_of_largest(value, self._reach(), self.grid, self.shared_axes)

    def _reach(self):
        return ops.reshape(ops.convert_to_tensor(self.reach.value), self.reach.shape)

    def integers(self, weight: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The integers that stand for a weight, and their scales.

        Args:
            weight: float array of the weight's shape.

        Returns:
            int32 array of the same shape, and float32 array of scales that broadcasts to it, factors included.
        """
        value = ops.convert_to_tensor(np.asarray(weight, "float32"))
        scale = self._scale(value)
        # Divided by the backend, as in `call`: JAX's quotients differ in the last bit from NumPy's, which decides ties.
        ratio = ops.convert_to_numpy(self._moved(value, scale) / scale)
        integers = self.grid.integers(ratio).astype("int32")
        return np.where(self.factors_of() == 0, 0, integers), self._with_factors(scale)

    def steps(self, weight: np.ndarray) -> np.ndarray:
        """The scales without the factors of channels: what a weight, as this transform gets it, is divided by."""
        return np.asarray(ops.convert_to_numpy(self._scale(ops.convert_to_tensor(np.asarray(weight, "float32")))))

    def scales(self, weight: np.ndarray) -> np.ndarray:
        """The scales that `integers` returns."""
        return self._with_factors(self._scale(ops.convert_to_tensor(np.asarray(weight, "float32"))))

    def _with_factors(self, scale):
        scale, factors = np.asarray(ops.convert_to_numpy(scale), "float32"), self.factors_of()
        unused = (scale <= LEAST_SCALE) | (factors == 0)
        return np.where(unused, LEAST_SCALE, scale * factors).astype("float32")

    def get_config(self):
        """The constructor's arguments."""
        return {
            **super().get_config(),
            "bits": self.bits,
            "per_channel": self.per_channel,
            "learned": self.learned,
            "scaled_channels": self.scaled_channels,
            **({} if self.rounding == NEAREST else {"rounding": by_reference(self.rounding)}),
            **({} if self.block_size is None else {"block_size": self.block_size}),
            **({} if self.channel_axis is None else {"channel_axis": self.channel_axis}),
        }

    @classmethod
    def from_config(cls, config):
        """The transform that `get_config` described."""
        return super().from_config({**config, "rounding": resolved(config.get("rounding"))})


def with_gradient_times(value, factor):
    """`value`, whose gradient is multiplied by a constant."""
    fixed = ops.stop_gradient(value)
    return fixed + (value - fixed) * factor
