"""Replacing kernels by products of smaller ones, in models of any kind: `factorize`."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np

from keras_mot._messages import describe
from keras_mot.graph import rewrite
from keras_mot.graph.agreement import outputs_to_judge_by, set_apart, warn_if_lost
from keras_mot.graph.flat_copy import apart, check_plain, flat_and_origins
from keras_mot.graph.rewrite import operations_of
from keras_mot.layers import find_weights
from keras_mot.layers.selecting import check_selectors_match, checked_overrides, matches
from keras_mot.low_rank._kernels import Kernel, chain, kernel_of
from keras_mot.low_rank.aware import alone, matrices_for, second_moments, solved_layers
from keras_mot.low_rank.decompositions import DECOMPOSITIONS, Decomposition, Factor, Option, OutputChannels
from keras_mot.low_rank.plan import FactorizationPlan, FactorizedLayer
from keras_mot.low_rank.ranks import RankRule
from keras_mot.quantization.calibration import calibration_of
from keras_mot.quantization.estimators.samples import Samples
from keras_mot.second_order import WeightMatrices

_WAY_OUT = (
    "Train it from here; ask for more parameters; or leave out, by `overrides`, the layers that lose most: "
    "`plan_factorization` prints them."
)
_SAVES_NOTHING = "no rank that is low enough to save parameters is chosen"


def factorize(
    model: keras.Model,
    ranks: RankRule | None,
    *,
    calibration_data: Any = None,
    decomposition: Decomposition | None = None,
    overrides: Mapping[Any, RankRule | None] | None = None,
    progress: bool | None = None,
) -> keras.Model:
    """Replaces kernels by chains of smaller ones, of lower rank: fewer parameters, and fewer products to compute.

    A dense layer becomes two (so do `EinsumDense`, embeddings and the pointwise part of separable convolutions), a
    convolution two or three. The last of them keeps the layer's name, bias and activation; the others are called
    `NAME_factor1` and so on. A layer is replaced only where that saves parameters. All are ordinary Keras layers: once
    saved, the model loads without keras-mot, and can be trained, pruned, clustered and quantized like any other.

    Factorize first, and prune or cluster what comes of it: the products of a kernel with zeros have none.

    Args:
        model: a trained model: sequential, functional, nested, or subclassed and traceable, without weight transforms.
            It is not changed.
        ranks: an `EnergyShare`, a `FixedRank`, a `ParameterShare`, or a `RankRule` of your own; `None` to leave all
            layers alone but those of `overrides`.
        calibration_data: some hundred typical inputs, or a `Calibration` of them: what is small then is the error of
            each layer's outputs on these, given what the layers before make of them, instead of that of its kernel.
        decomposition: how convolutions are decomposed: `OutputChannels()`, `InputChannels()`, `Spatial()`, `Tucker()`,
            or a `Decomposition` of your own; by default, of these, what is best for each layer. Layers whose kernel is
            a matrix have one decomposition alone, that by singular values.
        overrides: dictionary from a selector (a layer, a layer class, a predicate, a regular expression on the path) to
            another `RankRule`, or to `None` to leave layers alone. The first that matches applies.
        progress: whether to show a progress bar where there are data; by default, on a terminal.

    Returns:
        A functional model of the same name, not compiled, without nested models, that shares no variables with `model`.

    Warns if nothing is factorized, with the reasons; `plan_factorization` says what becomes of each layer. With
    calibration data, warns if the outputs are of no use any more, before any training: a quarter of the decisions are
    others, or noise has half of the signal's energy. Every eighth batch of the data is kept for that, if there are
    four.

    Raises:
        TypeError: if an argument is of the wrong type.
        ValueError: if the model is not built, carries weight transforms or cannot be traced; if a kernel holds NaN or
            infinite values, a share of parameters cannot be reached, or a selector matches no layer.

    Example:

    ```python
    small = factorize(model, ParameterShare(0.25), calibration_data=x_train[:512], overrides={"stem": None})
    small.compile("adam", "sparse_categorical_crossentropy")
    small.fit(x_train, y_train)
    ```

    References: Denton et al., 2014, "Exploiting Linear Structure Within Convolutional Networks for Efficient
    Evaluation" (arXiv:1404.0736), and those of the decompositions.
    """
    plan = plan_factorization(
        model,
        ranks,
        calibration_data=calibration_data,
        decomposition=decomposition,
        overrides=overrides,
        progress=progress,
    )
    return plan.build()


def plan_factorization(
    model: keras.Model,
    ranks: RankRule | None,
    *,
    calibration_data: Any = None,
    decomposition: Decomposition | None = None,
    overrides: Mapping[Any, RankRule | None] | None = None,
    progress: bool | None = None,
) -> FactorizationPlan:
    """What `factorize` does with the same arguments: which layers, which ranks, what is lost, and what is skipped.

    Returns:
        A `FactorizationPlan`, which prints as a table; its `build()` is the factorized model.

    Raises:
        TypeError, ValueError: as `factorize`.

    Example:

    ```python
    plan = plan_factorization(model, EnergyShare(0.95))
    print(plan)
    small = plan.build()
    ```
    """
    check_plain(model, "factorize")
    overrides = _checked(ranks, decomposition, overrides)
    weights = find_weights(model)[0]
    check_selectors_match(overrides, weights)
    flat, origins = flat_and_origins(model)
    owners = {id(weight.owner): weight for weight in weights}
    rules = {}
    for layer in operations_of(flat):
        if isinstance(layer, keras.layers.Layer) and find_weights(layer)[0]:
            user = origins.of(layer)
            path = (user.path or user.name).removeprefix(f"{model.name}/")
            rules[layer] = path, _rule(owners.get(id(user)), ranks, overrides)
    chosen, skipped = _candidates(rules, _tied(flat))
    judged = batches = None
    if calibration_data is not None and chosen:
        judged, batches = set_apart(_batches(flat, calibration_data))
    candidates = _with_options(flat, chosen, decomposition, batches)
    options = _chosen(candidates)
    skipped += [(each.path, _SAVES_NOTHING) for each, option in zip(candidates, options, strict=True) if option is None]
    taken = [(each, option) for each, option in zip(candidates, options, strict=True) if option is not None]
    expected = outputs_to_judge_by(flat, judged) if judged and taken else None
    solved = _solved(flat, taken, batches, progress)
    made = {}

    def call(operation, *args, **kwargs):
        found = solved.get(id(operation))
        if found is None:
            return operation(*args, **kwargs)
        if id(operation) not in made:  # a layer that is called several times stays one
            made[id(operation)] = chain(operation, found.candidate.kernel, found.factors)
        return made[id(operation)](args[0] if args else kwargs["inputs"])

    def build():
        made.clear()
        small = apart(rewrite(flat, call))
        warn_if_lost(small, judged, expected, f"'{small.name}' with kernels of lower rank", _WAY_OUT)
        return small

    return FactorizationPlan(tuple(each.row() for each in solved.values()), tuple(skipped), build)


@dataclasses.dataclass(frozen=True, eq=False)
class _Candidate:
    """A layer that may be factorized; `matrices` are its kernel where its inputs are looked at."""

    layer: keras.layers.Layer
    path: str
    kernel: Kernel
    rule: RankRule
    matrices: WeightMatrices | None = None
    options: tuple[Option, ...] = ()


@dataclasses.dataclass(frozen=True, eq=False)
class _Solved:
    candidate: _Candidate
    option: Option
    factors: list[Factor]
    error: float

    def row(self):
        kernel = self.candidate.kernel
        return FactorizedLayer(
            self.candidate.path,
            tuple(kernel.variable.shape),
            type(self.option.decomposition).__name__,
            self.option.ranks,
            kernel.values.size,
            sum(factor.kernel.size for factor in self.factors),
            self.error,
        )


def _checked(ranks, decomposition, overrides):
    """The overrides; refuses what is no rule and no decomposition."""
    overrides = checked_overrides(overrides)
    for name, rule in {"ranks": ranks, **{f"overrides[{key!r}]": rule for key, rule in overrides.items()}}.items():
        if rule is not None and not isinstance(rule, RankRule):
            raise TypeError(
                f"`{name}` should be a `RankRule`, such as `EnergyShare(0.95)`, or `None` to leave layers alone; "
                f"received {describe(rule)}."
            )
    if decomposition is not None and not isinstance(decomposition, Decomposition):
        raise TypeError(
            f"`decomposition` should be a `Decomposition`, such as `Tucker()`; received {describe(decomposition)}."
        )
    return overrides


def _rule(weight, ranks, overrides):
    if weight is None:
        return ranks
    return next((rule for selector, rule in overrides.items() if matches(selector, weight)), ranks)


def _candidates(rules, tied):
    """The layers to factorize as `_Candidate`s, and pairs of (path, why not) of the others.

    Args:
        rules: dictionary from layers to (path, `RankRule` or `None`).
        tied: the ids of the variables that several layers hold.
    """
    chosen, skipped = [], []
    for layer, (path, rule) in rules.items():
        kernel = "it is not selected" if rule is None else kernel_of(layer)
        if isinstance(kernel, str):
            skipped.append((path, kernel))
        elif id(kernel.variable) in tied:
            skipped.append((path, "another layer shares its kernel"))
        elif not np.isfinite(kernel.values).all():
            raise ValueError(f"The kernel of layer '{path}' contains NaN or infinite values: it cannot be factorized.")
        else:
            chosen.append(_Candidate(layer, path, kernel, rule))
    return chosen, skipped


def _tied(model):
    """The ids of the variables that several layers of a model hold."""
    counts = {}
    for layer in operations_of(model):
        for variable in getattr(layer, "variables", ()):
            counts[id(variable)] = counts.get(id(variable), 0) + 1
    return {key for key, count in counts.items() if count > 1}


def _batches(model, data):
    """The calibration data as a list of inputs."""
    calibration = calibration_of(data, {}, "factorize")
    return list(Samples(model, calibration.data, calibration.batch_size, most=calibration.max_samples))


def _with_options(model, candidates, decomposition, batches):
    """The candidates with their options, by the second moments of their inputs where there are data."""
    if batches is not None:
        candidates = [dataclasses.replace(each, matrices=matrices_for(each.layer, each.kernel)) for each in candidates]
    found = {}
    weights = {id(each.matrices): each for each in candidates if each.matrices is not None}
    for matrices, second in second_moments(model, [each.matrices for each in weights.values()], batches):
        found[id(matrices)] = options_of(weights[id(matrices)].kernel.values, decomposition, second)
    return [
        dataclasses.replace(each, options=found.get(id(each.matrices)) or options_of(each.kernel.values, decomposition))
        for each in candidates
    ]


def options_of(
    kernel: np.ndarray, decomposition: Decomposition | None = None, moments: np.ndarray | None = None
) -> tuple[Option, ...]:
    """The `Option`s of a kernel (positions..., inputs, outputs), of one decomposition or all; of a matrix, of one."""
    tried = DECOMPOSITIONS if decomposition is None else (decomposition,)
    if math.prod(kernel.shape[:-2]) == 1:
        tried = (OutputChannels(),)
    return tuple(option for each in tried for option in each.options(kernel, moments))


def _solved(model, taken, batches, progress):
    """Dictionary from the ids of layers to `_Solved`."""
    aware = [(each.matrices, each.kernel, option) for each, option in taken if each.matrices is not None]
    results = iter(solved_layers(model, aware, batches, progress) if aware else ())
    found = {}
    for candidate, option in taken:
        result = alone(candidate.kernel, option) if candidate.matrices is None else next(results)
        found[id(candidate.layer)] = _Solved(candidate, option, result.factors, result.error)
    return found


def _chosen(candidates):
    """The option for each candidate, those of one rule chosen together."""
    groups, found = {}, [None] * len(candidates)
    for place, candidate in enumerate(candidates):
        groups.setdefault(candidate.rule, []).append(place)
    for rule, places in groups.items():
        options = rule.choose(
            [candidates[place].options for place in places],
            [candidates[place].kernel.values.size for place in places],
        )
        for place, option in zip(places, options, strict=True):
            found[place] = option
    return found
