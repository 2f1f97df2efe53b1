"""Second moments of the inputs of weights, in the shape of the weights, as criteria want them."""

from collections.abc import Iterator, Sequence

import keras
import numpy as np

from keras_mot._keras import flatten_layers
from keras_mot.layers.transformed_weight import TransformedWeight
from keras_mot.second_order import WeightMatrices, damped, gather_moments, matrices_of, thinned
from keras_mot.sparsity.evidence import PruningEvidence

_TOGETHER = 1 << 28  # bytes of H of the layers that are looked at in one pass over the data
_SHARE = 0.01


def collect_moments(
    model: keras.Model, weights: Sequence[TransformedWeight], needed: Sequence[str], evidence: PruningEvidence
) -> dict[int, dict[str, np.ndarray]]:
    """Mean squares of the inputs of some weights, and the diagonals of the inverses of their H.

    Args:
        model: the model with the weights, as it is: masks that zero something change inputs of layers behind.
        weights: the weights.
        needed: names among `input_square` and `inverse_moment`.
        evidence: the data.

    Returns:
        Dictionary from the id of each variable to a dictionary from `needed` to arrays of its shape.

    Raises:
        ValueError: if the inputs of a weight are not known.
    """
    batches = [inputs for inputs, _ in evidence.next_batches(model)]
    matrices = [thinned(each, len(batches)) for each in _matrices_of(model, weights)]
    result = {
        id(weight.variable): {name: np.zeros(tuple(weight.variable.shape), "float32") for name in needed}
        for weight in weights
    }
    for group in _groups(matrices):
        for each, moments in zip(group, gather_moments(model, group, batches), strict=True):
            if not moments.count:
                raise ValueError(f"The model does not use '{each.path}' on these data: leave it out by `overrides`.")
            for name in needed:
                values = np.stack([_FIELDS[name](second / moments.count) for second in moments.second])
                own = result[id(each.variable)]
                own[name] = each.from_matrices(np.broadcast_to(values[:, :, None], each.shape), own[name])
    return result


def _matrices_of(model, weights):
    wanted = {id(weight.variable): weight for weight in weights}
    found = [each for layer in flatten_layers(model) for each in matrices_of(layer) if id(each.variable) in wanted]
    missing = set(wanted) - {id(each.variable) for each in found}
    if missing:
        paths = [weight.path for key, weight in wanted.items() if key in missing]
        raise ValueError(
            f"What multiplies the weights {paths} is not known, so that no criterion can go by their inputs. Choose "
            "another criterion for these layers by `overrides`."
        )
    return found


def _groups(matrices: Sequence[WeightMatrices]) -> Iterator[list[WeightMatrices]]:
    """Kernels whose H are kept at the same time."""
    group, size = [], 0
    for each in matrices:
        own = 8 * each.shape[0] * each.shape[1] ** 2
        if group and size + own > _TOGETHER:
            yield group
            group, size = [], 0
        group.append(each)
        size += own
    if group:
        yield group


def _inverse_diagonal(second):
    return np.linalg.inv(damped(second, _SHARE)).diagonal()


_FIELDS = {"input_square": np.diagonal, "inverse_moment": _inverse_diagonal}
