"""The kinds of recipes that a search tries, and the recipe that a kind and a size lead to."""

import dataclasses
from collections.abc import Sequence

from keras_mot.recipes.fine_tuning import FineTune
from keras_mot.recipes.recipe import Recipe
from keras_mot.recipes.searching.allocation import Option, allocate, undominated
from keras_mot.recipes.searching.budget import Budget
from keras_mot.recipes.searching.layer_options import Choice, LayerChoices
from keras_mot.recipes.stages import Cluster, Factorize, PostTraining, Prune, QuantizeAware, RemoveChannels

FAMILIES = {
    "dense": (),
    "pruned-clustered": ("sparsity", "values"),
    "pruned": ("sparsity",),
    "clustered": ("values",),
    "channels": ("channels",),
    "low-rank": ("rank",),
}
"""What each kind of recipe does before it quantizes. Zeros and shared values are chosen for each layer."""
_LEAST_SHARE = 0.05
_EDGE = 0.25  # of the channels, that each layer keeps at least


@dataclasses.dataclass(frozen=True)
class Proposal:
    """What a trial is to try.

    Args:
        family: one of `FAMILIES`.
        kernels: bytes, zipped, that all kernels together should take; of no meaning for "dense".
        learning_rate: of the stages that prune, cluster or cut; a tenth of it where the model is quantized.
        balance: what a loss by zeros counts beside one by shared values: training makes up for more of it.
    """

    family: str
    kernels: float
    learning_rate: float = 1e-3
    balance: float = 0.25


def recipe_of(
    proposal: Proposal, layers: Sequence[LayerChoices], fine_tune: FineTune | None, name: str
) -> tuple[Recipe, float]:
    """The recipe of a proposal.

    Args:
        proposal: a `Proposal`.
        layers: the `LayerChoices` of all layers.
        fine_tune: how stages train; `None` for no training.
        name: of the recipe.

    Returns:
        The `Recipe`, and the bytes that its kernels are expected to take.
    """
    techniques, dense = FAMILIES[proposal.family], sum(layer.dense for layer in layers)
    long, last = None, PostTraining()
    if fine_tune is not None:
        long = dataclasses.replace(fine_tune, learning_rate=proposal.learning_rate)
        epochs = max(1, fine_tune.epochs // 2) if techniques else fine_tune.epochs
        short = dataclasses.replace(fine_tune, learning_rate=proposal.learning_rate / 10, epochs=epochs)
        last = QuantizeAware(fine_tune=short)
    share = max(_LEAST_SHARE, min(1.0, proposal.kernels / dense)) if dense else 1.0
    if "channels" in techniques:
        kept = share**0.5  # kernels between pruned layers lose inputs as well as outputs
        pruned = Prune(1 - kept, channels=True, scope="model", min_density=_EDGE, fine_tune=long)
        return Recipe([pruned, RemoveChannels(), last], name), share * dense
    if "rank" in techniques:
        return Recipe([Factorize(parameters=share, fine_tune=long), last], name), share * dense
    chosen, stages = _chosen(techniques, layers, proposal), []
    sparsities = {layer: choice.sparsity for layer, choice in chosen.items()}
    values = {layer: choice.values for layer, choice in chosen.items()}
    if any(sparsities.values()):
        # Solved for by least squares at once, where nothing can be trained.
        stages.append(Prune(**_split("sparsity", sparsities), fine_tune=long, refit=long is None))
    if any(values.values()):
        tuned = last.fine_tune if stages else long
        stages.append(Cluster(**_split("number_of_clusters", values), fine_tune=tuned))
    return Recipe([*stages, last], name), sum(choice.size for choice in chosen.values())


def useful(families: Sequence[str], budget: Budget) -> list[str]:
    """Those of the families that can help to keep to a budget; all, if none can.

    Zeros and shared values make files smaller once they are zipped, and nothing faster.
    """
    if budget.zipped is not None or (budget.bytes is None and budget.latency_ms is None):
        return list(families)
    found = [name for name in families if not {"sparsity", "values"} & set(FAMILIES[name])]
    return found if any(FAMILIES[name] for name in found) else list(families)


def smallest(family: str, layers: Sequence[LayerChoices]) -> float:
    """The least bytes that the kernels can take in a family."""
    techniques = FAMILIES[family]
    if "channels" in techniques or "rank" in techniques:
        return _LEAST_SHARE * sum(layer.dense for layer in layers)
    return sum(min(choice.size for choice in _allowed(techniques, layer)) for layer in layers)


def _allowed(techniques, layer):
    return [
        choice
        for choice in layer.choices
        if ("sparsity" in techniques or not choice.sparsity) and ("values" in techniques or choice.values is None)
    ]


def _chosen(techniques, layers, proposal) -> dict[str, Choice]:
    """The choice of each layer, by the integer programme."""
    options = [
        undominated(
            Option(choice.size, proposal.balance * choice.sparsity_loss + choice.values_loss, choice)
            for choice in _allowed(techniques, layer)
        )
        for layer in layers
    ]
    allocation = allocate(options, proposal.kernels)
    return {
        layer.selector: each[place].choice
        for layer, each, place in zip(layers, options, allocation.chosen, strict=True)
    }


def _split(setting, by_layer):
    """A stage's main setting, what is another for some layers, and what is left alone."""
    given = {layer: value for layer, value in by_layer.items() if value}
    main = max(set(given.values()), key=list(given.values()).count)
    others = {selector: value for selector, value in given.items() if value != main}
    skip = tuple(selector for selector, value in by_layer.items() if not value)
    return {setting: main, "overrides": others or None, "skip": skip}
