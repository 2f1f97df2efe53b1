"""Ranks and kernels chosen by what the inputs of the layers are on calibration data.

Two passes. In the first the model computes in full, and each layer's options are found by the second moments of its
inputs. In the second, ranks are known: layers are visited in the order of the graph, those before having their new
kernels already, and each is solved for so that its outputs are those of the original model, as GPTQ does for rounding
(Frantar et al., 2023, arXiv:2210.17323).
"""

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

import keras
import numpy as np

from keras_mot._arrays import numpy_value
from keras_mot.layers import copy_model
from keras_mot.low_rank._kernels import Kernel
from keras_mot.low_rank.decompositions import Factor, Option, composed, relative_error
from keras_mot.second_order import (
    WeightMatrices,
    are_few,
    damped,
    gather_moments,
    matrices_of,
    parts_of,
    thinned,
    visit_in_order,
    warn_of_few_samples,
)

_ROWS_FOR_EACH = 128  # of the inputs: with so many, `_shrunk` changes less than a hundredth
_DAMPING = 0.01  # of the mean of H's diagonal: how near the kernel of before stays where there are few samples


@dataclasses.dataclass(frozen=True, eq=False)
class SolvedLayer:
    """What the second pass found for a layer.

    Attributes:
        factors: the chain of kernels.
        error: the share of the energy of the outputs that is lost, as of `relative_error`.
    """

    factors: list[Factor]
    error: float


def matrices_for(layer: keras.layers.Layer, kernel: Kernel) -> WeightMatrices | None:
    """The kernel as one matrix whose inputs can be looked at; `None` for others, such as embeddings."""
    found = [each for each in matrices_of(layer) if each.variable is kernel.variable]
    return found[0] if len(found) == 1 and found[0].shape[0] == 1 else None


def second_moments(
    model: keras.Model, weights: Sequence[WeightMatrices], batches: Sequence[Any]
) -> Iterator[tuple[WeightMatrices, np.ndarray]]:
    """Each kernel with the mean second moments of its inputs, about the mean where the layer has a bias.

    Not more of these are in memory at once than 256 MB, or one: the model runs again for others.
    """
    few = []
    for numbers in parts_of([[weight] for weight in weights]):
        part = [weights[number] for number in numbers]
        looked_at = [thinned(weight, len(batches), _ROWS_FOR_EACH) for weight in part]
        for weight, moments in zip(part, gather_moments(model, looked_at, batches), strict=True):
            few += [weight.path] if are_few(moments) else []
            used = moments if bias_of(weight.layer, weight.shape[2]) is None else moments.centered()
            yield weight, _shrunk(used)
    warn_of_few_samples(few)


def solved_layers(
    model: keras.Model,
    chosen: Sequence[tuple[WeightMatrices, Kernel, Option]],
    batches: Sequence[Any],
    progress: bool | None = None,
) -> list[SolvedLayer]:
    """The chains of kernels for layers, one after the other, each for what the ones before hand on to it.

    Args:
        model: a flat model, whose kernels and biases become the new ones: biases make the means of outputs those of the
            original model's.
        chosen: of each layer, its kernel as a matrix, its `Kernel`, and the `Option`.
        batches: inputs as the model takes them.
        progress: whether to show a progress bar; `None`: on a terminal.

    Returns:
        A `SolvedLayer` for each of `chosen`; layers that the model never calls have those of the kernel alone.
    """
    reference = copy_model(model)
    partners = {layer.name: layer for layer in reference.layers}
    theirs = [
        next(each for each in matrices_of(partners[weight.layer.name]) if each.key == weight.key)
        for weight, _, _ in chosen
    ]
    by_variable, solved = {id(kernel.variable): (kernel, option) for _, kernel, option in chosen}, {}

    def visit(weight, moments):
        kernel, option = by_variable[id(weight.variable)]
        solved[id(weight.variable)] = _solve(weight, kernel, option, moments)

    weights = [thinned(weight, len(batches), _ROWS_FOR_EACH) for weight, _, _ in chosen]
    theirs = [thinned(weight, len(batches), _ROWS_FOR_EACH) for weight in theirs]
    shown = {"title": "factorizing", "progress": progress}
    visit_in_order(model, weights, batches, visit, reference=reference, reference_weights=theirs, **shown)
    return [solved.get(id(kernel.variable)) or alone(kernel, option) for _, kernel, option in chosen]


def bias_of(layer: keras.layers.Layer, outputs: int) -> keras.Variable | None:
    """The bias of a layer, if it has one number for each of so many outputs, in their order."""
    bias = getattr(layer, "bias", None)
    if bias is None or int(np.prod(bias.shape)) != outputs:
        return None
    if isinstance(layer, keras.layers.EinsumDense):
        sources, _ = layer.equation.replace(" ", "").split("->")
        if not sources.endswith(layer.bias_axes):  # the outputs of the kernel in another order
            return None
    return bias


def _solve(weight, kernel, option, moments):
    """Solves for one layer, and gives it its new kernel and bias."""
    original = kernel.values.reshape(weight.shape[1:])
    bias = bias_of(weight.layer, weight.shape[2])
    used = moments if bias is None else moments.centered()
    second, cross = used.second[0] / max(used.count, 1), used.cross[0] / max(used.count, 1)
    known = _shrunk(used)
    # The kernel that makes of these inputs what the original one made of the original inputs.
    change = np.linalg.solve(damped(known, _DAMPING), (cross - second) @ original)
    target = (original + change).reshape(kernel.values.shape)
    factors = option.decomposition.factors(target, option.ranks, known)
    new = composed(factors).reshape(original.shape)
    values = numpy_value(kernel.variable)
    kernel.variable.assign(weight.from_matrices(new[None], values).astype(values.dtype))
    if bias is not None:
        shift = moments.first_crossed[0] @ original - moments.first[0] @ new
        bias.assign(numpy_value(bias) + (shift / max(moments.count, 1)).reshape(bias.shape))
    return SolvedLayer(factors, relative_error(target, factors, known))


def _shrunk(moments):
    """The mean second moments, with those of as many rows of independent inputs of one size as there are inputs.

    What few rows have not shown is not cut off, and of many rows they change next to nothing.
    """
    count = max(moments.count, 1)
    return damped(moments.second[0] / count, moments.second.shape[-1] / count)


def alone(kernel: Kernel, option: Option) -> SolvedLayer:
    """What stands for a kernel by itself, whatever the inputs."""
    factors = option.decomposition.factors(kernel.values, option.ranks)
    return SolvedLayer(factors, relative_error(kernel.values, factors))
