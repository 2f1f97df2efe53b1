"""Replacing kernels by products of smaller ones, in models of any kind: `factorize`."""

import dataclasses
import math
import warnings
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np

from keras_mot._messages import describe
from keras_mot.graph import rewrite
from keras_mot.graph.flat_copy import apart, check_plain, flat_and_origins, reasons_text
from keras_mot.graph.rewrite import operations_of
from keras_mot.layers import find_weights
from keras_mot.layers.selecting import check_selectors_match, checked_overrides, matches
from keras_mot.low_rank._kernels import Kernel, chain, kernel_of
from keras_mot.low_rank.decompositions import DECOMPOSITIONS, Decomposition, Option, OutputChannels, relative_error
from keras_mot.low_rank.plan import FactorizationPlan, FactorizedLayer
from keras_mot.low_rank.ranks import RankRule

_SAVES_NOTHING = "no rank that is low enough to save parameters is chosen"


def factorize(
    model: keras.Model,
    ranks: RankRule | None,
    *,
    calibration_data: Any = None,
    decomposition: Decomposition | None = None,
    overrides: Mapping[Any, RankRule | None] | None = None,
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
        calibration_data: some hundred typical inputs: what is small then is the error of each layer's outputs on
            these, instead of that of its kernel, and biases take back by how much the mean is off. It needs as much
            memory as the square of the inputs of one output, of the layer with most of them.
        decomposition: how convolutions are decomposed: `OutputChannels()`, `InputChannels()`, `Spatial()`, `Tucker()`,
            or a `Decomposition` of your own; by default, of these, what is best for each layer. Layers whose kernel is
            a matrix have one decomposition alone, that by singular values.
        overrides: dictionary from a selector (a layer, a layer class, a predicate, a regular expression on the path) to
            another `RankRule`, or to `None` to leave layers alone. The first that matches applies.

    Returns:
        A functional model of the same name, not compiled, without nested models, that shares no variables with `model`.

    Warns if nothing is factorized, with the reasons; `plan_factorization` says what becomes of each layer.

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
    )
    if not plan.rows:
        reasons = reasons_text(dict(plan.skipped)) or "it has no kernels"
        warnings.warn(f"Nothing is factorized in '{model.name}': {reasons}.", stacklevel=2)
    return plan.build()


def plan_factorization(
    model: keras.Model,
    ranks: RankRule | None,
    *,
    calibration_data: Any = None,
    decomposition: Decomposition | None = None,
    overrides: Mapping[Any, RankRule | None] | None = None,
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
    tied, chosen, skipped = _tied(flat), [], []
    for layer in operations_of(flat):
        if not isinstance(layer, keras.layers.Layer) or not find_weights(layer)[0]:
            continue
        user = origins.of(layer)
        path, rule = user.path or user.name, _rule(owners.get(id(user)), ranks, overrides)
        kernel = kernel_of(layer)
        if rule is None:
            skipped.append((path, "it is not selected"))
        elif isinstance(kernel, str):
            skipped.append((path, kernel))
        elif id(kernel.variable) in tied:
            skipped.append((path, "another layer shares its kernel"))
        elif not np.isfinite(kernel.values).all():
            raise ValueError(f"The kernel of layer '{path}' contains NaN or infinite values: it cannot be factorized.")
        else:
            chosen.append(_Candidate(layer, path, kernel, rule))
    moments = {}
    candidates = [_with_options(each, decomposition, moments.get(id(each.layer))) for each in chosen]
    options = _chosen(candidates)
    taken = [(each, option) for each, option in zip(candidates, options, strict=True) if option is not None]
    skipped += [(each.path, _SAVES_NOTHING) for each, option in zip(candidates, options, strict=True) if option is None]
    made = {id(each.layer): _Chain(each, option) for each, option in taken}

    def call(operation, *args, **kwargs):
        found = made.get(id(operation))
        return operation(*args, **kwargs) if found is None else found.layers()(args[0] if args else kwargs["inputs"])

    rows = tuple(found.row() for found in made.values())
    return FactorizationPlan(rows, tuple(skipped), lambda: apart(rewrite(flat, call)))


@dataclasses.dataclass(frozen=True, eq=False)
class _Candidate:
    layer: keras.layers.Layer
    path: str
    kernel: Kernel
    rule: RankRule
    moments: Any = None
    options: tuple[Option, ...] = ()


class _Chain:
    """The chain of kernels for a layer, which is computed once."""

    def __init__(self, candidate, option):
        self._candidate, self._option = candidate, option
        moments = None if candidate.moments is None else candidate.moments.second
        self._factors = option.decomposition.factors(candidate.kernel.values, option.ranks, moments)
        self._error = relative_error(candidate.kernel.values, self._factors, moments)
        self._layers = None

    def layers(self):
        """The function that calls the new layers, the same ones wherever the layer was called."""
        if self._layers is None:
            self._layers = chain(self._candidate.layer, self._candidate.kernel, self._factors)
        return self._layers

    def row(self):
        """The `FactorizedLayer`."""
        kernel = self._candidate.kernel
        return FactorizedLayer(
            self._candidate.path,
            tuple(kernel.variable.shape),
            type(self._option.decomposition).__name__,
            self._option.ranks,
            kernel.values.size,
            sum(factor.kernel.size for factor in self._factors),
            self._error,
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


def _tied(model):
    """The ids of the variables that several layers of a model hold."""
    counts = {}
    for layer in operations_of(model):
        for variable in getattr(layer, "variables", ()):
            counts[id(variable)] = counts.get(id(variable), 0) + 1
    return {key for key, count in counts.items() if count > 1}


def _with_options(candidate, decomposition, moments):
    kernel = candidate.kernel.values
    is_matrix = math.prod(kernel.shape[:-2]) == 1
    tried = DECOMPOSITIONS if decomposition is None else (decomposition,)
    tried = (OutputChannels(),) if is_matrix else tried
    second = None if moments is None else moments.second
    options = tuple(option for each in tried for option in each.options(kernel, second))
    return dataclasses.replace(candidate, moments=moments, options=options)


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
