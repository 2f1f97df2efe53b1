"""Zeros and repeated values in the weights of a model or a file, tensor by tensor."""

import dataclasses
import math
from collections.abc import Iterable
from typing import Any

import keras
import numpy as np

from keras_mot._arrays import float_value
from keras_mot._entropy import entropy_in_bits
from keras_mot.export.litert.checks import check_stripped


@dataclasses.dataclass(frozen=True)
class TensorStats:
    """One weight tensor: its name, shape, data type, how many of its values are zero, and how many differ.

    Attributes:
        name: Path of the Keras weight, or name of the tensor in the file.
        shape: Shape of the tensor.
        dtype: Data type that it is stored in.
        size: Number of values.
        zeros: Number of values that are zero (for quantized tensors: that stand for zero).
        unique_values: Number of different values.
        entropy: Entropy of the values in bits per value: the least that a code for single values can need
            (Shannon, 1948), the table of values not counted.
        bytes: Bytes of the values as a dense tensor of the data type.
        sparse_encoding: Whether the file stores only the values that are not zero.
        encoding: How the file has it compressed for microcontrollers: "look-up table", "bit mask" or "Huffman"; empty
            where it is not.
        stored_bytes: What that takes in the file; None where it is not compressed so.
        of_channels: Whether a file has it as a number for each channel that values are multiplied by, added to, and the
            like: it is no kernel then, however many dimensions it has.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    size: int
    zeros: int
    unique_values: int
    entropy: float
    bytes: int
    sparse_encoding: bool = False
    encoding: str = ""
    stored_bytes: int | None = None
    of_channels: bool = False

    @property
    def sparsity(self) -> float:
        """Share of zeros, from 0 to 1."""
        return self.zeros / self.size if self.size else 0.0

    @property
    def palette_bytes(self) -> int:
        """Bytes as a palette of the different values and an index of whole bits for each, or `bytes` if that is less.

        That is what formats with look-up tables hold, such as compressed tensors of LiteRT for Microcontrollers.
        """
        if not self.size:
            return 0
        bits = math.ceil(math.log2(self.unique_values)) if self.unique_values > 1 else 1
        palette = math.ceil(self.unique_values * self.bytes / self.size)
        return min(self.bytes, math.ceil(self.size * bits / 8) + palette)

    @property
    def is_kernel(self) -> bool:
        """Whether the tensor has two or more dimensions, as kernels and embeddings have, and is used as these are."""
        return len(self.shape) >= 2 and not self.of_channels


def keras_tensor_stats(model: keras.Model) -> tuple[TensorStats, ...]:
    """`TensorStats` of all weights of a Keras model."""
    check_stripped(model)
    stats = []
    for weight in model.weights:
        values = float_value(weight)
        stats.append(_count(weight.path, values, keras.backend.standardize_dtype(weight.dtype)))
    return tuple(stats)


def file_tensor_stats(tensors: Iterable[Any]) -> tuple[TensorStats, ...]:
    """`TensorStats` of the constant tensors of an exported file."""
    return tuple(_count(t.name, t.values, t.dtype, t.zero_point, t.sparse_encoding, *_encoding(t)) for t in tensors)


def _encoding(tensor):
    """How a tensor is compressed, in how many bytes, and whether it is of channels; not all formats have such."""
    return tuple(
        getattr(tensor, name, default)
        for name, default in (("encoding", ""), ("stored_bytes", None), ("of_channels", False))
    )


def _count(name, values, dtype, zero_point=0, *storage):
    zeros = int(values.size - np.count_nonzero(values != zero_point))
    counts = np.unique(values, return_counts=True)[1]
    entropy = entropy_in_bits(counts)
    size = values.size // 2 + values.size % 2 if dtype in ("int4", "uint4") else values.nbytes
    return TensorStats(name, tuple(values.shape), dtype, int(values.size), zeros, len(counts), entropy, size, *storage)


def share_of_zeros(stats: Iterable[TensorStats], kernels_only: bool) -> float:
    """Share of zeros over all tensors, or over the kernels alone; 0 where there are none."""
    chosen = [tensor for tensor in stats if tensor.is_kernel or not kernels_only]
    size = sum(tensor.size for tensor in chosen)
    return sum(tensor.zeros for tensor in chosen) / size if size else 0.0
