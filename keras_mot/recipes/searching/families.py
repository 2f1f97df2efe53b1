"""The kinds of recipes that a search tries, and the recipe that a kind and a size lead to."""

import dataclasses
from collections.abc import Sequence

from keras_mot.quantization import AdaRound
from keras_mot.recipes.channel_stages import PruneChannels
from keras_mot.recipes.fine_tuning import FineTune
from keras_mot.recipes.recipe import Recipe
from keras_mot.recipes.searching.allocation import Option, allocate, undominated
from keras_mot.recipes.searching.budget import Budget
from keras_mot.recipes.searching.layer_options import BITS, Choice, LayerChoices
from keras_mot.recipes.stages import Cluster, Factorize, PostTraining, Prune, QuantizeAware, RemoveChannels

FAMILIES = {
    "dense": (),
    "bits": ("bits",),
    "pruned-bits": ("sparsity", "bits"),
    "pruned-clustered": ("sparsity", "values"),
    "low-rank-bits": ("rank", "bits"),
    "low-rank-pruned-clustered": ("rank", "sparsity", "values"),
    "channels-pruned-clustered": ("channels", "sparsity", "values"),
    "pruned": ("sparsity",),
    "clustered": ("values",),
    "channels": ("channels",),
    "low-rank": ("rank",),
}
"""What each kind of recipe does. Zeros, shared values and bits are chosen for each layer, where the layers stay."""
_STRUCTURE = {"channels", "rank"}
_LEAST_SHARE, _MOST_SHARE = 0.05, 0.95  # of the parameters, that low rank leaves; with all of them there is none
_EDGE = 0.25  # of the channels, that each layer keeps at least
_LEAST_DENSITY = 0.02  # of a layer that is ranked with all others


@dataclasses.dataclass(frozen=True)
class Proposal:
    """What a trial is to try.

    Args:
        family: one of `FAMILIES`; `None` leaves it and the following settings to the sampler.
        kernels: bytes, zipped, that all kernels together should take, of no meaning for "dense"; or `None`, likewise.
        learning_rate: of the stages that prune, cluster or cut; a tenth of it where the model is quantized.
        balance: what a loss by zeros counts beside one by shared values: training makes up for more of it.
        cut: how much of the way to that size low rank or fewer channels go, before what they leave is pruned: an
            exponent of the share of the bytes that is to stay.
        gradual: whether zeros come little by little in training, not at once with the rest solved for before it.
        learned: whether few bits are rounded by `AdaRound`: instead of GPTQ, and of training in integers behind zeros
            that were trained. Behind low rank, rounding is as good on new data as training, or better.
        epochs: of those stages, and half as many where the model is quantized; 0: no training.
        after: number of the trial that this is the longer form of; `None` for a new one.
    """

    family: str | None
    kernels: float | None
    learning_rate: float = 1e-3
    balance: float = 0.25
    cut: float = 0.5
    gradual: bool = False
    learned: bool = False
    epochs: int = 0
    after: int | None = None


def recipe_of(
    proposal: Proposal, layers: Sequence[LayerChoices], fine_tune: FineTune | None, name: str
) -> tuple[Recipe, float]:
    """The recipe of a proposal.

    Args:
        proposal: a `Proposal`.
        layers: the `LayerChoices` of all layers.
        fine_tune: how stages train, but for what the proposal says; `None` for no training.
        name: of the recipe.

    Returns:
        The `Recipe`, and the bytes that its kernels are expected to take.
    """
    techniques, dense = FAMILIES[proposal.family], sum(layer.dense for layer in layers)
    long, short = _training(proposal, fine_tune, bool(techniques))
    share = max(_LEAST_SHARE, min(1.0, proposal.kernels / dense)) if dense else 1.0
    if not _STRUCTURE & set(techniques):
        stages, bits, size = _by_layer(techniques, layers, proposal, long, short)
        return Recipe([*stages, _quantized(short, proposal, stages, bits or None)], name), size
    stages, size, bits = [], share * dense, None
    if "bits" in techniques:
        whole = sum(min(choice.size for choice in _allowed({"bits"}, layer)) for layer in layers)
        share = max(_LEAST_SHARE, min(1.0, proposal.kernels / whole)) if whole else 1.0
        size, bits = share * whole, _bits_of_all(layers)
    if "sparsity" in techniques:
        share = _share_by_structure(proposal, dense)
        stages, size = _for_all(layers, proposal, proposal.kernels / share, long, short)
        size *= share
    stages = [*_structure(techniques, share, bool(stages), proposal, long), *stages]
    return Recipe([*stages, _quantized(None if bits else short, proposal, stages, bits)], name), size


def _share_by_structure(proposal: Proposal, dense: float) -> float:
    """The share of the kernels' parameters that structure leaves where other techniques follow."""
    return max(_LEAST_SHARE, min(1.0, proposal.kernels / dense) ** proposal.cut)


def _training(proposal, fine_tune, has_others):
    """How the stages of a recipe train: those that change the weights, and the last ones."""
    if fine_tune is None or not proposal.epochs:
        return None, None
    long = dataclasses.replace(fine_tune, learning_rate=proposal.learning_rate, epochs=proposal.epochs)
    epochs = max(1, proposal.epochs // 2) if has_others else proposal.epochs
    return long, dataclasses.replace(long, learning_rate=proposal.learning_rate / 10, epochs=epochs)


def _quantized(fine_tune, proposal, before, bits):
    """The last stage, behind others, with other bits than 8 for some layers."""
    settings = {"overrides": bits}
    if bits and proposal.learned:
        settings["rounding"] = AdaRound()
        fine_tune = None if before else fine_tune
    if fine_tune is None:
        return PostTraining(**settings)
    return QuantizeAware(fine_tune=fine_tune, **settings)


def _structure(techniques, share, goes_on, proposal, long):
    """The stages that leave a share of the parameters, by structure; they are not trained if others follow."""
    if goes_on:
        long = None
    if "rank" in techniques:
        return [Factorize(parameters=min(share, _MOST_SHARE), fine_tune=long)]
    kept = share**0.5  # kernels between pruned layers lose inputs as well as outputs
    if goes_on:  # masks come once: channels are cut out without
        return [PruneChannels(1 - kept, fine_tune=long)]
    refit = long is None or not proposal.gradual
    pruned = Prune(1 - kept, channels=True, scope="model", min_density=_EDGE, fine_tune=long, refit=refit)
    return [pruned, RemoveChannels()]


def _for_all(layers, proposal, size, long, short):
    """Stages with one setting for all layers, the gentlest that comes down to a size; and the size that it comes to."""
    options = []
    for setting in sorted({(each.sparsity, each.values) for layer in layers for each in layer.choices if each.values}):
        if not setting[0]:
            continue
        # What cannot be changed so stays as it is.
        taken = [
            next((each for each in layer.choices if (each.sparsity, each.values) == setting), layer.choices[0])
            for layer in layers
        ]
        loss = sum(proposal.balance * each.sparsity_loss + each.values_loss for each in taken)
        options.append(Option(sum(each.size for each in taken), loss, setting))
    if not options:
        return [], sum(layer.dense for layer in layers)
    options = undominated(options)  # the smallest first
    chosen = max((each for each in options if each.size <= size), default=options[0], key=lambda each: each.size)
    sparsity, values = chosen.choice
    refit = long is None or not proposal.gradual
    least = min(_LEAST_DENSITY, (1 - sparsity) / 2)
    prune = Prune(sparsity, scope="model", min_density=least, fine_tune=long, refit=refit)
    return [prune, Cluster(values, fine_tune=short)], chosen.size


def _bits_of_all(layers):
    """Overrides: the fewest bits for what structure leaves of layers that can have them; of one name all are meant."""
    names = {layer.pattern_of_name for layer in layers if any(choice.bits < 8 for choice in layer.choices)}
    return {f"(^|/)({'|'.join(sorted(names))})(_factor\\d+)?$": min(BITS)} if names else None


def _by_layer(techniques, layers, proposal, long, short):
    """Stages with settings for each layer, the bits of layers with others than 8, and the expected size."""
    chosen, stages = _chosen(techniques, layers, proposal), []
    sparsities = {layer: choice.sparsity for layer, choice in chosen.items()}
    values = {layer: choice.values for layer, choice in chosen.items()}
    bits = {layer: choice.bits for layer, choice in chosen.items() if choice.bits != 8}
    if any(sparsities.values()):
        refit = long is None or not proposal.gradual
        stages.append(Prune(**_split("sparsity", sparsities), fine_tune=long, refit=refit))
    if any(values.values()):
        stages.append(Cluster(**_split("number_of_clusters", values), fine_tune=short if stages else long))
    return stages, bits, sum(choice.size for choice in chosen.values())


def useful(families: Sequence[str], budget: Budget) -> list[str]:
    """Those of the families that can help to keep to a budget; all, if none can.

    Zeros and shared values make files smaller once they are zipped, fewer bits always, and none of them faster.
    """
    if budget.zipped is not None or (budget.bytes is None and budget.latency_ms is None):
        return list(families)
    idle = {"sparsity", "values"} | ({"bits"} if budget.bytes is None else set())
    found = [name for name in families if not idle & set(FAMILIES[name])]
    return found if any(FAMILIES[name] for name in found) else list(families)


def smallest(family: str, layers: Sequence[LayerChoices]) -> float:
    """The least bytes that the kernels can take in a family."""
    techniques = set(FAMILIES[family])
    least = sum(min(choice.size for choice in _allowed(techniques - _STRUCTURE, layer)) for layer in layers)
    return _LEAST_SHARE * least if techniques & _STRUCTURE else least


def _allowed(techniques, layer):
    return [
        choice
        for choice in layer.choices
        if ("sparsity" in techniques or not choice.sparsity)
        and ("values" in techniques or choice.values is None)
        and ("bits" in techniques or choice.bits == 8)
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
    if not options:
        return {}
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
