"""Rounds a model's kernels with data: in graph order, each with what comes before it rounded already."""

import contextlib
import dataclasses
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_mot._arrays import numpy_value
from keras_mot.data.arrays import sample_count
from keras_mot.graph.kinds import bias_of
from keras_mot.layers.activation_quantizer import intercepted
from keras_mot.layers.copying import copy_model
from keras_mot.layers.dynamic_quantizer import without_dynamic_rounding
from keras_mot.layers.transformed import transformed_weights
from keras_mot.layers.transformed_weight import TransformedWeight
from keras_mot.quantization.algorithms.second_order_rounding import SecondOrderRounding
from keras_mot.quantization.estimators.passes import without_rounding
from keras_mot.second_order import (
    Moments,
    WeightMatrices,
    are_few,
    largest_cut,
    least_squares,
    matrices_of,
    thinned,
    visit_in_order,
    warn_of_few_samples,
)
from keras_mot.transforms import FakeQuantize, PaletteTransform

_BYTES = 768 * 2**20  # that samples may take between two layers
# Of what was rounded before, so much is made up for. All of it is better where inputs are nearly those in floats
# (ResNet-8 with 4 bits), none where they are not (DS-CNN-S): least squares shrink weights whose inputs are noisy.
_MADE_UP_FOR = 0.5
_ROWS_FOR_EACH, _ROWS = 16, 32768  # of the inputs, that are enough: so many for each, and so many at least


def weights_to_round(model: keras.Model) -> list[TransformedWeight]:
    """The weights of a quantized model whose rounding needs data."""
    return [weight for weight in transformed_weights(model) if _rounding_of(weight) is not None]


def round_in_order(
    model: keras.Model, batches: Sequence[Any], move_biases: bool = True, progress: bool | None = None
) -> None:
    """Chooses the integers of all weights whose rounding needs data, in place.

    What a layer should return is what it returns in floats, with activations cut off at their ranges: so weights make
    up for what has been rounded before, as far as they can. Biases take the mean of the rest.

    Args:
        model: a quantized functional model whose activation quantizers have ranges.
        batches: inputs as the model takes them; some hundred samples. Of large models, as many are used as memory
            suffices for.
        move_biases: whether biases may change.
        progress: whether to show a progress bar; `None`: on a terminal.

    Raises:
        ValueError: if inputs of a layer are NaN or infinite.

    Warns of layers that see fewer samples than they have inputs.
    """
    stacks = {id(weight.variable): weight for weight in weights_to_round(model)}
    if not stacks:
        return
    reference = copy_model(model)  # whose biases stay
    batches = _as_many_as_fit(batches, 2 * largest_cut(model))

    def enough(weight):
        return thinned(weight, len(batches), _ROWS_FOR_EACH, _ROWS)

    pairs = [
        (enough(own), enough(other))
        for layer, partner in zip(model.layers, reference.layers, strict=True)
        for own, other in zip(matrices_of(layer), matrices_of(partner), strict=True)
        if id(own.variable) in stacks
    ]
    few = []

    def visit(weight, moments):
        if are_few(moments):
            few.append(weight.path)
        _round(weight, stacks[id(weight.variable)], moments, move_biases)

    visit_in_order(
        model,
        [own for own, _ in pairs],
        batches,
        visit,
        reference=reference,
        reference_weights=[other for _, other in pairs],
        around_reference=lambda: _cut_off(reference),
        title="rounding",
        progress=progress,
    )
    warn_of_few_samples(few)


def _as_many_as_fit(batches, size):
    """The first batches of those that can be kept with so many bytes for each sample; one at least."""
    left, kept = _BYTES // max(size, 1), []
    for batch in batches:
        left -= sample_count(batch)
        if kept and left < 0:
            break
        kept.append(batch)
    return kept


@contextlib.contextmanager
def _cut_off(model):
    """Context in which a quantized model rounds nothing, but cuts activations off at the ends of their ranges.

    Ranges leave rare values out on purpose: weights that make up for that would do harm to all others.
    """

    def cut(quantizer, inputs, averages):
        return inputs if averages else ops.clip(inputs, *map(float, quantizer.clipping_range))

    with without_rounding(transformed_weights(model)), intercepted(cut), without_dynamic_rounding():
        yield


def _rounding_of(weight):
    transform = weight.transform_of(FakeQuantize)
    rounding = None if transform is None else transform.rounding
    return rounding if isinstance(rounding, SecondOrderRounding) else None


def _round(weight: WeightMatrices, stack: TransformedWeight, moments: Moments, move_biases: bool) -> None:
    """Rounds one kernel, and moves its layer's bias."""
    transform, rounding = stack.transform_of(FakeQuantize), _rounding_of(stack)
    kernel = numpy_value(stack.value_before(transform))
    bias = bias_of(weight.layer) if move_biases else None
    problem = _problem(weight.to_matrices(kernel).astype("float64"), moments, bias is not None, rounding.damping)
    codebook = stack.transform_of(PaletteTransform)
    scale = weight.to_matrices(transform.steps(kernel)).astype("float64")
    if codebook is None:
        integers = rounding.choose(problem.target, scale, problem.second, transform.grid, problem.weights != 0)
    else:
        entries = weight.to_matrices(_entries(codebook, numpy_value(stack.value_before(codebook))))
        integers = _of_palette(problem, entries, scale, transform, rounding)
    transform.round_to(kernel, weight.from_matrices(integers, np.zeros(kernel.shape)))
    if bias is not None:
        factors = weight.to_matrices(transform.factors_of())[:, 0]
        rounded = np.where(problem.weights == 0, 0.0, integers * scale)
        shift = np.einsum("gr,grc->gc", moments.first_crossed, problem.weights)
        shift = (shift - np.einsum("gr,grc->gc", moments.first, rounded)) / moments.count
        bias.assign(numpy_value(bias) + (shift * factors).reshape(bias.shape).astype("float32"))


@dataclasses.dataclass(frozen=True, eq=False)
class _Problem:
    """What the integers of a kernel should come near to.

    Attributes:
        weights: the weights in floats, as matrices.
        target: the weights that return on rounded inputs what `weights` return on those in floats, as far as any can.
        second: H of the rounded inputs.
    """

    weights: np.ndarray
    target: np.ndarray
    second: np.ndarray


def _problem(weights, moments, has_bias, damping):
    # A bias takes the mean of the outputs: what counts then is how inputs differ from their means.
    moments = moments.centered(consumed=True) if has_bias else moments
    target = weights.copy()
    for group, (second, cross) in enumerate(zip(moments.second, moments.cross, strict=True)):
        # Ridge around the weights as they are: few samples move them little.
        # In the precision of H: a large one in float64 would be as much again.
        products = (cross - second) @ weights[group].astype(second.dtype)
        target[group] += _MADE_UP_FOR * least_squares(second, products, damping).value
    return _Problem(weights, np.where(weights == 0, 0.0, target), moments.second)


def _entries(codebook, weight):
    """The number of the value that each weight has, where channels have values of their own, among all of them."""
    entries = codebook.assignments_of(weight)
    if codebook.per_channel:
        entries = entries.copy()
        for channel in range(codebook.channels):
            entries[codebook.channel_slice(channel)] += channel * codebook.number_of_clusters
    return entries


def _of_palette(problem, entries, scale, transform, rounding):
    """Integers that are the same for all weights that share a value: each value is one unknown of the problem.

    Between values and integers lie indicators, one matrix for each column of a kernel; H with these on both sides says
    what the error of each value does.
    """
    values, places = np.unique(entries, return_inverse=True)
    places, count = places.reshape(entries.shape), len(values)
    second, products = np.zeros((count, count)), np.zeros((count, 1))
    for group, own in enumerate(problem.second):
        for column in range(entries.shape[2]):
            members = np.zeros((entries.shape[1], count))
            members[np.arange(entries.shape[1]), places[group, :, column]] = 1.0
            moments = own @ members
            second += members.T @ moments
            products += moments.T @ (problem.target - problem.weights)[group, :, column, None]
    sizes = np.bincount(places.ravel(), minlength=count)
    means, steps = (np.bincount(places.ravel(), each.ravel(), count) / sizes for each in (problem.weights, scale))
    target = means[:, None] + least_squares(second, products, rounding.damping).value
    kept = (means != 0)[None, :, None]
    chosen = rounding.choose(
        np.where(kept, target[None], 0.0), steps[None, :, None], second[None], transform.grid, kept
    )
    return chosen[0, :, 0][places]
