"""The kernels of two forms of a model, side by side."""

import math
import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from keras_mot.analysis._tensors import file_tensor_stats
from keras_mot.analysis.reporting.contents import KernelChange
from keras_mot.analysis.weight_histograms import density_picture, histogram

_BITS = re.compile(r"(\d+)$")


def kernel_changes(before: Sequence[Any], after: Sequence[Any], names: Sequence[str] = ()) -> tuple[KernelChange, ...]:
    """The kernels of one form of a model, and what each was in another.

    Args:
        before: the `ConstantTensor`s of the one to compare with.
        after: those of the one that it became.
        names: of weights, in the order in which they are to come; others follow.

    Returns:
        A `KernelChange` for each tensor of two or more dimensions.
    """
    counterparts = _counterparts(before, after)
    places = {name: place for place, name in reversed(list(enumerate(names)))}
    kernels = [tensor for tensor in after if tensor.values.ndim >= 2 and tensor.values.size]
    kernels.sort(key=lambda tensor: places.get(tensor.name, len(places)))
    return tuple(_change(counterparts.get(id(tensor)), tensor) for tensor in kernels)


def bits_of(dtype: str) -> int:
    """The bits of a type, by its name: 8 of "int8", 1 of "bool"."""
    found = _BITS.search(dtype)
    return int(found[1]) if found else 1


def _change(earlier, tensor):
    floats = tensor.floats
    finite = bool(np.isfinite(floats).all())
    values = floats if finite else np.nan_to_num(floats, nan=0.0, posinf=0.0, neginf=0.0)
    compared = None
    if earlier is not None and np.isfinite(earlier.floats).all():
        compared = earlier.floats
    bits = bits_of(tensor.dtype)
    seen = histogram(values, compared, tensor.scales, bits)
    (after,) = file_tensor_stats([tensor])
    stats = None if earlier is None else file_tensor_stats([earlier])[0]
    picture = density_picture(values) if after.zeros else None
    return KernelChange(tensor.name, stats, after, bits, seen, finite, picture)


def _counterparts(before, after):
    """Dictionary from ids of tensors to those that they were: of the same name, or else the only one that may be it."""
    found, left = {}, [tensor for tensor in before if tensor.values.ndim >= 2]
    for same in (_same_name, _same_end, _same_size):
        for tensor in after:
            if id(tensor) in found or tensor.values.ndim < 2:
                continue
            matches = [each for each in left if same(each, tensor)]
            rivals = [each for each in after if id(each) not in found and matches and same(matches[0], each)]
            if len(matches) == 1 and len(rivals) == 1:
                found[id(tensor)] = matches[0]
                left = [each for each in left if each is not matches[0]]
    return found


def _same_name(one, other):
    return one.name == other.name and _size(one) == _size(other)


def _same_end(one, other):
    ends = [each.name.rsplit("/", 2)[-2:] for each in (one, other)]
    return ends[0] == ends[1] and _size(one) == _size(other)


def _same_size(one, other):
    return sorted(one.values.shape) == sorted(other.values.shape)


def _size(tensor):
    return math.prod(tensor.values.shape)
