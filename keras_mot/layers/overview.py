"""What a technique has done to a model, and why not to the rest: what its report lists."""

import dataclasses
import math

from keras_mot.layers.finding import find_weights
from keras_mot.layers.technique import DEPTHWISE
from keras_mot.layers.transformed import transformed_weights


@dataclasses.dataclass(frozen=True)
class Overview:
    """What a report lists.

    Args:
        weights: the `TransformedWeight`s with the technique's transform.
        frozen: ids of those of their variables that are not trained.
        left_alone: (path, reason) pairs.
        by_kind: (kind, number of weights, number of values) of what is left alone in every layer.
    """

    weights: list
    frozen: set
    left_alone: tuple
    by_kind: tuple


def overview(model, technique):
    """The `Overview` of a model."""
    attached = {id(weight.variable): weight for weight in transformed_weights(model)}
    attached = {key: weight for key, weight in attached.items() if weight.transform_of(technique.transform_class)}
    found, items = find_weights(model)
    weights = [attached[id(item.variable)] for item in found if id(item.variable) in attached]
    left = [(item.path, _reason(item, technique)) for item in found if id(item.variable) not in attached]
    left += [(item.path, item.reason) for item in items if not item.usual]
    kinds = {}
    for item in items:
        if item.usual:
            kinds.setdefault(item.reason, []).extend(item.variables)
    by_kind = [(kind, len(each), sum(math.prod(variable.shape) for variable in each)) for kind, each in kinds.items()]
    frozen = {id(each.variable) for each in weights if not (model.trainable and each.variable.trainable)}
    return Overview(weights, frozen, tuple(left), tuple(by_kind))


def _reason(found, technique):
    if found.techniques is not None and technique.verb not in found.techniques:
        return f"its layer does not offer it to be {technique.done}"
    return DEPTHWISE if found.depthwise else "not selected"


def kinds_caption(by_kind, done):
    """One line on what is left alone in every layer, for the caption of a report; empty if there is nothing."""
    parts = [f"{kind} ({weights} weights, {values:,} values)" for kind, weights, values in by_kind]
    return f"never {done}: {', '.join(parts)}" if parts else ""
