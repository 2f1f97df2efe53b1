"""Pruning of layers and models while they train: `prune_low_magnitude`, `update_pruning_step`, `strip_pruning`."""

import contextlib
import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import keras

from keras_mot._messages import describe
from keras_mot._numbers import is_number
from keras_mot.layers import transformed_weights
from keras_mot.layers.finding import check_layer
from keras_mot.layers.technique import Technique, strip_model, transform_name
from keras_mot.layers.updates import update_due, update_step
from keras_mot.sparsity.config import PerLayer, PruningConfig, WholeModel, mask_of
from keras_mot.sparsity.criteria import Criterion, Magnitude
from keras_mot.sparsity.evidence import PruningEvidence, using
from keras_mot.sparsity.granularity import Block, Channel, Element, Granularity, NofM
from keras_mot.sparsity.policies import PruningPolicy
from keras_mot.sparsity.schedules import ConstantSparsity, PruningSchedule
from keras_mot.transforms import Mask


def prune_low_magnitude(
    to_prune: keras.layers.Layer | Sequence[keras.layers.Layer],
    pruning_schedule: PruningSchedule | float | None = None,
    block_size: tuple[int, int] = (1, 1),
    block_pooling_type: str = "AVG",
    pruning_policy: PruningPolicy | None = None,
    sparsity_m_by_n: tuple[int, int] | None = None,
    *,
    granularity: Granularity | None = None,
    criterion: Criterion | None = None,
    scope: PerLayer | WholeModel | None = None,
    overrides: Mapping[Any, PruningConfig | None] | None = None,
    include_depthwise: bool | None = None,
    inplace: bool = False,
    input_shape: tuple[int | None, ...] | None = None,
) -> Any:
    """Makes a copy of a model, layer or list of layers whose weights are pruned as it trains.

    Compile the result and train it with `fit` as usual, then call `strip_pruning`. The names, paths and
    classes of layers stay; each pruned weight gains a mask of one byte per weight. Nothing is pruned
    before training begins: the copy predicts what the model did.

    Args:
        to_prune: a built Keras model of any kind, a layer (which need not be built), or a list of layers.
        pruning_schedule: a `PruningSchedule`, or the fraction of zeros, in [0, 1), of a `ConstantSparsity` from
            the first step on. Defaults to 0.5.
        block_size: (inputs, outputs) of the blocks that are pruned together, in dense and convolution kernels.
        block_pooling_type: `"AVG"` or `"MAX"`, how a block is scored.
        pruning_policy: a `PruningPolicy` that says which layers may be pruned.
        sparsity_m_by_n: `(2, 4)` for two zeros in every four consecutive inputs, and so on; the pattern then
            fixes the sparsity, and the schedule only says when the choice is made.
        granularity: a `Granularity` object instead of the two arguments above, for example `Channel()`.
        criterion: a `Criterion`, what scores a weight. Defaults to `Magnitude()`.
        scope: `PerLayer()`, the default, or `WholeModel()` for one ranking over all layers.
        overrides: dictionary from a selector to a `PruningConfig`, or to `None` to leave layers alone. A selector is
            a layer of the given model, a layer class, a predicate, or a regular expression on the layer's
            path. The first that matches applies.
        include_depthwise: whether depthwise kernels are pruned, too. As in TFMOT, by default they are not: they are
            a few hundredths of the weights, and the model needs each of them. Asked for are those of a layer that is
            passed by itself, or that a selector of `overrides` points at; and whole channels, with `Channel()`.
        inplace: whether to change the given model or layer itself, for models that cannot be rebuilt from
            their configuration.
        input_shape: shape of a sample without the batch, for an unbuilt first layer of a sequential model.

    Returns:
        A model, layer or list like `to_prune`, not compiled, that shares no variables with it.

    Raises:
        TypeError: if an argument is of the wrong type.
        ValueError: if the model is not built, holds nothing to prune, a weight is NaN or infinite, or a weight
            does not fit the blocks or the N:M pattern. The given model is then unchanged.

    Example:

    ```python
    schedule = PolynomialDecay(0.5, 0.9, begin_step=0, end_step=1000)
    pruned = prune_low_magnitude(model, schedule, overrides={"classifier": None})
    pruned.compile("adam", "sparse_categorical_crossentropy")
    pruned.fit(x, y, epochs=2)
    small = strip_pruning(pruned)
    ```

    Reference: Zhu and Gupta, 2017, "To prune, or not to prune" (arXiv:1710.01878).
    """
    schedule = 0.5 if pruning_schedule is None else pruning_schedule
    config = PruningConfig(
        ConstantSparsity(schedule) if is_number(schedule) else schedule,
        _granularity(granularity, block_size, block_pooling_type, sparsity_m_by_n),
        Magnitude() if criterion is None else criterion,
        PerLayer() if scope is None else scope,
    )
    technique = PRUNING if pruning_policy is None else _with_policy(pruning_policy)
    return technique.apply(to_prune, config, overrides, inplace, input_shape, include_depthwise)


PRUNING = Technique(
    function="prune_low_magnitude",
    verb="prune",
    done="pruned",
    config_class=PruningConfig,
    transform_class=Mask,
    transforms=lambda config, weight, stack: [Mask(config, name=transform_name(weight, "mask"))],
    wholly=lambda config: isinstance(config.scope, WholeModel),
    # A depthwise channel goes with the one that it reads, and keeps that one from being cut out if it stays.
    takes_depthwise=lambda config: isinstance(config.granularity, Channel),
    suits=lambda config, weight: not isinstance(config.granularity, Channel) or _channels(weight) > 1,
)
"""What pruning is, as a `Technique`."""


def _channels(weight):
    return math.prod(weight.variable.shape[axis] for axis in weight.axes.outputs)


def _with_policy(policy):
    if not hasattr(policy, "allow_pruning"):
        raise TypeError(f"`pruning_policy` should be a `PruningPolicy`; received {describe(policy)}.")
    return dataclasses.replace(PRUNING, allows=policy.allow_pruning, check_model=policy.ensure_model_supports_pruning)


def strip_pruning(model: keras.layers.Layer, inplace: bool = False) -> keras.layers.Layer:
    """Makes pruning permanent: returns a plain model whose pruned weights are zeros.

    Args:
        model: a model or layer from `prune_low_magnitude`, after training.
        inplace: whether to change the given model itself, for models that cannot be rebuilt.

    Returns:
        A plain Keras model without masks, not compiled; once saved, it loads without keras-mot.

    Raises:
        TypeError: if `model` is not a Keras model or layer.
        ValueError: if nothing in it is pruned, or no mask has been updated yet.

    Example:

    ```python
    strip_pruning(pruned).save("small.keras")
    ```
    """
    check_layer(model, "strip_pruning")
    if not any(mask_of(weight) for weight in transformed_weights(model)):
        raise ValueError(f"'{model.name}' has no pruned weights: pass the result of `prune_low_magnitude`, trained.")
    return strip_model(model, inplace)


def update_pruning_step(model: keras.layers.Layer, steps: int = 1, evidence: PruningEvidence | None = None) -> bool:
    """The one call that a custom training loop makes: after every training step; `keras_mot.update_step`.

    Counts the step, and updates the masks where the schedule says so. `fit` does it by itself.

    Args:
        model: a model or layer with pruned weights.
        steps: training steps that have ended since the last call; 0 makes the update that is due before the
            first step, which also prunes a model in one shot without any training (see `prune_at_once`).
        evidence: a `PruningEvidence`, for criteria that go by data; the same object for all steps.

    Returns:
        Whether masks have been updated. A stateless JAX loop must put its weights into the variables before
        the call, and take the masks from them after it, on the steps where this is true (`pruning_due`).

    Raises:
        ValueError: if nothing in `model` is pruned by a schedule, or a criterion needs data that are not given.

    Example:

    ```python
    for x, y in batches:
        train_step(x, y)
        update_pruning_step(pruned)
    ```
    """
    with using(model, evidence):
        return update_step(model, steps)


def pruning_due(model: keras.layers.Layer, steps: int = 1) -> bool:
    """Whether `update_pruning_step(model, steps)` would update masks; reads and writes no variable."""
    return update_due(model, steps)


def prune_scope() -> contextlib.AbstractContextManager:
    """Under TFMOT's name, a scope for loading models in the middle of pruning.

    Importing this package is all that loading needs, so that the scope does nothing.
    """
    return contextlib.nullcontext()


def _granularity(granularity, block_size, pooling, m_by_n):
    block = Block(block_size, pooling)  # validates both, also where they are the defaults
    given = [granularity is not None, block.size != (1, 1), m_by_n is not None]
    if sum(given) > 1:
        raise ValueError("Give at most one of `granularity`, `block_size` and `sparsity_m_by_n`.")
    if m_by_n is not None:
        if not isinstance(m_by_n, list | tuple) or len(m_by_n) != 2:
            raise ValueError(f"`sparsity_m_by_n` should be two integers (zeros, group); received {describe(m_by_n)}.")
        return NofM(*m_by_n)
    if granularity is not None:
        return granularity
    return Element() if block.size == (1, 1) else block
