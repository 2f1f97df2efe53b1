"""The kinds of recipes that a search tries, and the recipe that a kind and a size lead to."""

import dataclasses
import re
from collections.abc import Sequence

from keras_mot.recipes.fine_tuning import FineTune
from keras_mot.recipes.recipe import Recipe
from keras_mot.recipes.searching.allocation import Option, allocate, undominated
from keras_mot.recipes.stages import Cluster, PostTraining, Prune, QuantizeAware, RemoveChannels

FAMILIES = {
    "dense": (),
    "pruned": ("sparsity",),
    "clustered": ("values",),
    "pruned-clustered": ("sparsity", "values"),
    "channels": ("channels",),
}
"""What each kind of recipe does before it quantizes: zeros and shared values are chosen for each layer."""
_LEAST_CHANNELS = 0.1


@dataclasses.dataclass(frozen=True)
class LayerOptions:
    """The ways to store the kernels of a layer, which are pruned and clustered alike.

    Args:
        layer: its path.
        options: list of `Option`s.
    """

    layer: str
    options: Sequence[Option]


@dataclasses.dataclass(frozen=True)
class Proposal:
    """What a trial is to try.

    Args:
        family: one of `FAMILIES`.
        kernels: bytes, zipped, that all kernels together should take; of no meaning for "dense".
        learning_rate: of the stages that prune and cluster; a tenth of it when quantized.
    """

    family: str
    kernels: float
    learning_rate: float = 1e-3


def recipe_of(
    proposal: Proposal, layers: Sequence[LayerOptions], fine_tune: FineTune | None, name: str, dense: float
) -> tuple[Recipe, float]:
    """The recipe of a proposal.

    Args:
        proposal: a `Proposal`.
        layers: the `LayerOptions` of all layers.
        fine_tune: how stages train; `None` for no training.
        name: of the recipe.
        dense: bytes, zipped, of all kernels in 8 bits with nothing else done.

    Returns:
        The `Recipe`, and the bytes of the kernels that it is expected to come to.
    """
    techniques = FAMILIES[proposal.family]
    long = None if fine_tune is None else dataclasses.replace(fine_tune, learning_rate=proposal.learning_rate)
    last = PostTraining()
    if fine_tune is not None:
        short = max(1, fine_tune.epochs // 2) if techniques else fine_tune.epochs
        tuned = dataclasses.replace(fine_tune, learning_rate=proposal.learning_rate / 10, epochs=short)
        last = QuantizeAware(fine_tune=tuned)
    if "channels" in techniques:
        # Kernels between pruned layers lose inputs as well as outputs.
        share = max(_LEAST_CHANNELS, min(1.0, proposal.kernels / dense)) ** 0.5
        stages = [Prune(1 - share, channels=True, scope="model", min_density=0.25, fine_tune=long), RemoveChannels()]
        return Recipe([*stages, last], name), share**2 * dense
    stages, chosen = [], _chosen(techniques, layers, proposal.kernels)
    sparsities = {layer: option.settings["sparsity"] for layer, option in chosen.items()}
    values = {layer: option.settings.get("values") for layer, option in chosen.items()}
    if any(sparsities.values()):
        stages.append(Prune(**_split("sparsity", sparsities), fine_tune=long))
    if any(values.values()):
        tuned = long if not stages else last.fine_tune
        stages.append(Cluster(**_split("number_of_clusters", values), fine_tune=tuned))
    return Recipe([*stages, last], name), sum(option.size for option in chosen.values())


def _chosen(techniques, layers, size):
    """The option of each layer, by the programme; only what the techniques allow."""
    allowed = [
        [each for each in layer.options if all(name in techniques or not each.settings.get(name) for name in _NAMES)]
        for layer in layers
    ]
    allocation = allocate([undominated(options) for options in allowed], size)
    best = [undominated(options) for options in allowed]
    return {layer.layer: options[place] for layer, options, place in zip(layers, best, allocation.chosen, strict=True)}


_NAMES = ("sparsity", "values")


def _split(setting, by_layer):
    """A stage's main setting, what is another for some layers, and what is left alone."""
    given = {layer: value for layer, value in by_layer.items() if value}
    main = max(set(given.values()), key=list(given.values()).count)
    others = {selector(layer): value for layer, value in given.items() if value != main}
    skip = tuple(selector(layer) for layer, value in by_layer.items() if not value)
    return {setting: main, "overrides": others or None, "skip": skip}


def selector(layer: str) -> str:
    """The regular expression that matches the path of one layer alone."""
    return f"^{re.escape(layer)}$"
