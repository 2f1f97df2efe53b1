"""What is attached to the weights of a quantized model: a rounding, behind the mask and the codebook that it had."""

import dataclasses
from collections.abc import Sequence

import keras
import numpy as np

from keras_mot._arrays import numpy_value
from keras_mot._warnings import warn
from keras_mot.graph.kinds import LOOKS_UP, has_role
from keras_mot.layers.attaching import attach
from keras_mot.layers.finding import FoundWeight
from keras_mot.layers.transformed import transformed_weights
from keras_mot.quantization.algorithms.gptq import GPTQ
from keras_mot.quantization.algorithms.second_order_rounding import SecondOrderRounding
from keras_mot.quantization.schemes import QuantizationScheme
from keras_mot.quantization.simulation.carrying import CarriedWeight
from keras_mot.targets import Target
from keras_mot.transforms import FakeQuantize, Mask, PaletteTransform, WeightTransform
from keras_mot.transforms.rounding import NEAREST


def attach_transforms(
    found: FoundWeight,
    scheme: QuantizationScheme | None,
    carried: CarriedWeight | None,
    factors: np.ndarray | None,
    asked: Sequence[WeightTransform] = (),
    trained: bool = False,
) -> FakeQuantize | None:
    """Attaches to a weight what it shall have in the quantized model.

    Args:
        found: the weight.
        scheme: how it is rounded, or `None` if it stays in floats.
        carried: the mask and the codebook that it brings along, or `None`.
        factors: what its output channels have been multiplied by, as batch normalization was folded; `None` if none.
        asked: transforms that the user wants before the rounding.
        trained: whether the model is going to be trained.

    Returns:
        The `FakeQuantize`, or `None` in floats.
    """
    kept = [] if carried is None else carried.transforms(found)
    quantize = None if scheme is None else _quantizer(scheme, found, kept, factors, trained)
    stack = [*kept, *asked, *([] if quantize is None else [quantize])]
    if stack:
        attach(found.host, {found.place: stack})
    if quantize is not None and quantize.scaled_channels:
        _take_out(factors, quantize, found.variable)
    if kept:
        value = np.array(numpy_value(found.variable))
        used = np.broadcast_to(True if quantize is None else quantize.factors_of() > 0, value.shape)
        carried.fill(kept, value, used, found.owner.path)
    return quantize


def _quantizer(scheme, found, kept, factors, trained):
    # Values that all channels share stay shared if all have one scale, up to the factors of batch normalization.
    palettes = [transform for transform in kept if isinstance(transform, PaletteTransform)]
    shared = any(not transform.per_channel for transform in palettes)
    channels = np.prod([found.variable.shape[axis] for axis in found.axes.outputs])
    blocks = None if shared else scheme.block_size
    # Integers are kept for each weight: those that training gives another of the shared values would not share its own.
    nearest = palettes and (trained or not isinstance(scheme.rounding, SecondOrderRounding))
    return FakeQuantize(
        scheme.weight_bits,
        scheme.per_channel and not shared,
        scheme.learned_scales,
        scaled_channels=scheme.per_channel and not blocks and factors is not None and factors.size == channels,
        rounding=None if nearest else scheme.rounding,
        block_size=blocks,
        channel_axis=0 if has_role(found.owner, LOOKS_UP) else None,
        name=f"{found.key}_quantize",
    )


def scheme_of(layer: keras.layers.Layer, scheme: QuantizationScheme, target: Target, by_data: bool):
    """The scheme of a layer's weights, with a rounding, and as the target has kernels for it.

    Args:
        layer: a layer of the placed model.
        scheme: what was asked for.
        target: the `Target`.
        by_data: whether there are data to round by.
    """
    if has_role(layer, LOOKS_UP):  # rows of a table are multiplied by nothing
        kept = isinstance(scheme.rounding, SecondOrderRounding) or scheme.rounding is None
        return dataclasses.replace(scheme, rounding=NEAREST) if kept else scheme
    return with_rounding(scheme if scheme.is_dynamic else target.scheme_of(layer, scheme), by_data)


def with_rounding(scheme: QuantizationScheme, by_data: bool) -> QuantizationScheme:
    """The scheme with a rounding: by default GPTQ, if there are data to round by and less than 8 bits, or `NEAREST`.

    With 8 bits, what the nearest integers lose is lost in activations.
    """
    if scheme.rounding is not None:
        if not by_data and isinstance(scheme.rounding, SecondOrderRounding):
            raise ValueError(f"{scheme.rounding} goes by data, and there are none: give some, or `Nearest()`.")
        return scheme
    return dataclasses.replace(scheme, rounding=GPTQ() if by_data and scheme.weight_bits < 8 else NEAREST)


def _take_out(factors, quantize, variable):
    """Takes the factors of channels, but not their signs, out of a folded kernel: rounding puts them in again."""
    quantize.scale_channels(np.abs(factors))
    sizes = quantize.factors_of()
    variable.assign(numpy_value(variable) / np.where(sizes > 0, sizes, 1.0))


def fit_scales(simulation: keras.Model) -> None:
    """Gives the weights of a quantized model scales that suit their values."""
    for weight in transformed_weights(simulation):
        transform = weight.transform_of(FakeQuantize)
        if transform is not None:
            transform.fit(numpy_value(weight.value_before(transform)))


def warn_of_merged_values(simulation):
    """Says where shared values are so close to each other that they become one integer."""
    merged = []
    for weight in transformed_weights(simulation):
        quantize, codebook = weight.transform_of(FakeQuantize), weight.transform_of(PaletteTransform)
        if quantize is None or codebook is None or codebook.per_channel:
            continue
        shared = numpy_value(weight.value_before(quantize))
        integers, _ = quantize.integers(shared)
        mask, values = weight.transform_of(Mask), codebook.unique_values()
        if mask is not None:
            kept = numpy_value(mask.mask) > 0
            integers, values = integers[kept], len(np.unique(shared[kept]))
        left = np.count_nonzero(np.bincount(integers.ravel() + quantize.limit))
        if 0 < left < values:
            merged.append(f"'{weight.path}' ({values} values, {left} integers)")
    if merged:
        warn(
            f"Some shared values become the same integer in {', '.join(merged)}: a weight with shared values has one "
            "scale, and these lie closer together than a step of it. `cluster_per_channel=True` keeps a scale for each "
            "channel; more `weight_bits` make steps smaller."
        )
