"""Pruning of layers and models while they train: `prune_low_magnitude`, `update_pruning_step`, `strip_pruning`."""

import contextlib
import math
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np

from keras_mot._keras import forget_compilation
from keras_mot.layers import attach, copy_model, find_weights, strip, transformed_weights
from keras_mot.layers._attach import ANY, numpy_value
from keras_mot.layers._copy import strategy_scope
from keras_mot.layers._find import left_alone_unknown, require_built
from keras_mot.layers._select import check_selectors_match, matches
from keras_mot.layers._updates import TransformSchedule
from keras_mot.sparsity.config import PerLayer, PruningConfig, WholeModel, mask_of
from keras_mot.sparsity.criteria import Criterion, Magnitude
from keras_mot.sparsity.granularity import Block, Element, Granularity, NofM
from keras_mot.sparsity.policies import PruningPolicy
from keras_mot.sparsity.schedules import ConstantSparsity, PruningSchedule
from keras_mot.transforms import Mask


def prune_low_magnitude(
    to_prune: keras.layers.Layer | Sequence[keras.layers.Layer],
    pruning_schedule: PruningSchedule | None = None,
    block_size: tuple[int, int] = (1, 1),
    block_pooling_type: str = "AVG",
    pruning_policy: PruningPolicy | None = None,
    sparsity_m_by_n: tuple[int, int] | None = None,
    *,
    granularity: Granularity | None = None,
    criterion: Criterion | None = None,
    scope: PerLayer | WholeModel | None = None,
    overrides: Mapping[Any, PruningConfig | None] | None = None,
    inplace: bool = False,
    input_shape: tuple[int | None, ...] | None = None,
) -> Any:
    """Makes a copy of a model, layer or list of layers whose weights are pruned as it trains.

    Compile the result and train it with `fit` as usual, then call `strip_pruning`. The names, paths and
    classes of layers stay; each pruned weight gains a mask of one byte per weight. Nothing is pruned
    before training begins: the copy predicts what the model did.

    Args:
        to_prune: a built Keras model of any kind, a layer (which need not be built), or a list of layers.
        pruning_schedule: a `PruningSchedule`. Defaults to `ConstantSparsity(0.5, begin_step=0)`.
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
    config = PruningConfig(
        ConstantSparsity(0.5) if pruning_schedule is None else pruning_schedule,
        _granularity(granularity, block_size, block_pooling_type, sparsity_m_by_n),
        Magnitude() if criterion is None else criterion,
        PerLayer() if scope is None else scope,
    )
    overrides = _check_overrides(overrides)
    _check_policy(pruning_policy)
    if isinstance(to_prune, list | tuple):
        if not to_prune:
            raise ValueError("`to_prune` is an empty list: there is no layer to prune.")
        return _prune_list(to_prune, config, overrides, pruning_policy, inplace)
    return _prune(to_prune, config, overrides, pruning_policy, inplace, input_shape)


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
    _check_layer(model, "strip_pruning")
    masks = [(weight, mask_of(weight)) for weight in transformed_weights(model) if mask_of(weight)]
    if not masks:
        raise ValueError(f"'{model.name}' has no pruned weights: pass the result of `prune_low_magnitude`, trained.")
    scheduled = [(weight, mask) for weight, mask in masks if mask.updater is not None]
    waiting = [weight.path for weight, mask in scheduled if mask.updated_at < 0]
    if waiting:
        step = max(mask.step for _, mask in scheduled)
        raise ValueError(
            f"Nothing has been pruned yet after {step} training steps, for example '{waiting[0]}': train the model "
            "first (at least up to the schedule's `begin_step`), with `fit`, or with `update_pruning_step(model)` "
            "after every step of a custom loop."
        )
    _warn_unfinished(scheduled)
    stripped = strip(model if inplace else copy_model(model))
    if inplace:
        forget_compilation(stripped)
    return stripped


def update_pruning_step(model: keras.layers.Layer, steps: int = 1) -> bool:
    """The one call that a custom training loop makes: after every training step.

    Counts the step, and updates the masks where the schedule says so. `fit` does it by itself.

    Args:
        model: a model or layer with pruned weights.
        steps: training steps that have ended since the last call; 0 makes the update that is due before the
            first step, which also prunes a model in one shot without any training.

    Returns:
        Whether masks have been updated. A stateless JAX loop must put its weights into the variables before
        the call, and take the masks from them after it, on the steps where this is true (`pruning_due`).

    Raises:
        ValueError: if nothing in `model` is pruned by a schedule.

    Example:

    ```python
    for x, y in batches:
        train_step(x, y)
        update_pruning_step(pruned)
    ```
    """
    _check_layer(model, "update_pruning_step")
    steps = _check_steps_argument(steps)
    schedule = TransformSchedule(model)
    if not schedule:
        raise ValueError(f"'{model.name}' has no pruned weights: pass the result of `prune_low_magnitude`.")
    return schedule.advance_to(steps)


def pruning_due(model: keras.layers.Layer, steps: int = 1) -> bool:
    """Whether `update_pruning_step(model, steps)` would update masks; reads and writes no variable."""
    _check_layer(model, "pruning_due")
    return TransformSchedule(model).due_at(_check_steps_argument(steps))


def _check_steps_argument(steps):
    if isinstance(steps, bool) or not hasattr(steps, "__index__"):
        raise TypeError(f"`steps` should be an integer number of training steps; received {steps!r}.")
    if steps < 0:
        raise ValueError(f"`steps` should be >= 0; received {steps}.")
    return int(steps)


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
            raise ValueError(f"`sparsity_m_by_n` should be two integers (zeros, group); received {m_by_n!r}.")
        return NofM(*m_by_n)
    if granularity is not None:
        return granularity
    return Element() if block.size == (1, 1) else block


def _check_overrides(overrides):
    overrides = {} if overrides is None else overrides
    if not isinstance(overrides, Mapping):
        raise TypeError(f"`overrides` should be a dictionary from selectors to settings; received {overrides!r}.")
    for selector, config in overrides.items():
        if config is not None and not isinstance(config, PruningConfig):
            raise TypeError(
                f"`overrides[{selector!r}]` should be a `PruningConfig`, or `None` to leave the layer alone; "
                f"received {config!r}."
            )
    return overrides


def _check_policy(policy):
    if policy is not None and not hasattr(policy, "allow_pruning"):
        raise TypeError(f"`pruning_policy` should be a `PruningPolicy`; received {policy!r}.")


def _check_layer(layer, function):
    if not isinstance(layer, keras.layers.Layer):
        raise TypeError(
            f"`{function}` expects a Keras 3 model or layer (`keras.Model`, `keras.layers.Layer`); received "
            f"{layer!r} of type {type(layer).__module__}.{type(layer).__name__}."
        )


class _NothingToPruneError(ValueError):
    pass


def _prune_list(items, config, overrides, policy, inplace):
    """Prunes what can be pruned; layers without weights, such as `Flatten`, are only copied."""
    for item in items:
        _check_layer(item, "prune_low_magnitude")
    check_selectors_match(overrides, [weight for item in items if item.built for weight in find_weights(item)[0]])
    pruned, count = {}, 0
    for item in items:
        if id(item) in pruned:  # a layer that is there twice stays one layer
            continue
        try:
            pruned[id(item)] = _prune(item, config, overrides, policy, inplace, None, check_selectors=False)
            count += 1
        except _NothingToPruneError:
            pruned[id(item)] = item if inplace else copy_model(item)
    if not count:
        names = [item.name for item in items]
        raise ValueError(f"There is nothing to prune in the layers {names}.")
    return [pruned[id(item)] for item in items]


def _prune(layer, config, overrides, policy, inplace, input_shape, check_selectors=True):
    _check_layer(layer, "prune_low_magnitude")
    if not layer.built and not isinstance(layer, keras.Model):
        return _prune_when_built(layer, config, overrides, policy, inplace, input_shape)
    if input_shape is not None:
        raise ValueError(f"`input_shape` is for layers that are not built; '{layer.name}' is.")
    require_built(layer, "prune_low_magnitude")
    if policy is not None and isinstance(layer, keras.Model):
        policy.ensure_model_supports_pruning(layer)
    found, left_alone = find_weights(layer)
    if check_selectors:
        check_selectors_match(overrides, found)
    plan = [_config_for(weight, config, overrides, policy) for weight in found]
    _check_plan(layer, found, plan)
    for item in left_alone_unknown(left_alone):
        warnings.warn(f"Not pruned: layer '{item.path}'. {item.reason}.", stacklevel=3)
    target = layer if inplace else copy_model(layer)
    with strategy_scope(layer):
        for weight, chosen in zip(find_weights(target)[0], plan, strict=True):
            if chosen is not None:
                name = weight.key.replace("/", "_") + "_mask"
                attach(weight.host, {weight.place: [Mask(chosen, name=name)]})
    if inplace:
        forget_compilation(target)
    return target


def _config_for(weight, config, overrides, policy):
    if any(current.variable is weight.variable and mask_of(current) for current in transformed_weights(weight.owner)):
        return None  # already pruned: it goes on as it was
    if policy is not None and not policy.allow_pruning(weight.owner):
        return None
    for selector, override in overrides.items():
        if matches(selector, weight):
            return override
    return config


def _check_plan(layer, found, plan):
    chosen = [(weight, config) for weight, config in zip(found, plan, strict=True) if config is not None]
    if not chosen:
        raise _NothingToPruneError(
            f"There is nothing to prune in '{layer.name}': it has {len(found)} prunable weights, and none is selected "
            "and not pruned yet. Layers of your own are made prunable by `keras_mot.layers.register_weights`."
        )
    problems, groups = [], {}
    for weight, config in chosen:
        path = f"{weight.owner.path or weight.owner.name}/{weight.key}"
        groups.setdefault(config, []).append((path, tuple(weight.variable.shape), weight.axes))
        if not np.isfinite(numpy_value(weight.variable)).all():
            problems.append(f"Weight '{path}' contains NaN or infinite values: a broken model is not worth pruning.")
    for config, weights in groups.items():
        # Where each weight is judged by itself, all that do not fit are named at once.
        parts = [weights] if isinstance(config.scope, WholeModel) else [[weight] for weight in weights]
        for part in parts:
            try:
                config.check(part)
            except ValueError as error:
                problems.append(str(error))
    if problems:
        raise ValueError("\n".join(problems))


def _prune_when_built(layer, config, overrides, policy, inplace, input_shape):
    if getattr(layer.build, "_is_default", False):
        raise _NothingToPruneError(
            f"Layer '{layer.name}' ({type(layer).__name__}) is not built, and has no `build` method of its own: it has "
            "no weights to prune, or creates them when it is called; then call it once on data first."
        )
    if overrides:
        raise ValueError(
            f"`overrides` need layers whose weights exist; '{layer.name}' is not built. Give it settings of its own."
        )
    if policy is not None and not policy.allow_pruning(layer):
        raise _NothingToPruneError(f"The pruning policy does not allow pruning of layer '{layer.name}'.")
    target = layer if inplace else copy_model(layer)
    if input_shape is not None:
        target._input_shape_arg = tuple(input_shape)
    return attach(target, {ANY: [Mask(config, name="mask")]})


def _warn_unfinished(scheduled):
    """Warns if the masks hold fewer zeros than the schedules aim at, as counted now."""
    groups = {}
    for weight, mask in scheduled:
        groups.setdefault((mask.updater, mask.updated_at), []).append((weight, mask))
    for (config, step), members in groups.items():
        end = max(getattr(config.schedule, "end_step", -1), step)
        target = config.sparsity_at(end)
        total = sum(math.prod(weight.variable.shape) for weight, _ in members)
        reached = sum(mask.zeros() for _, mask in members) / total
        # Rounding in each weight, and smaller blocks at the edges, may leave a little less.
        if reached < target - max(0.005, len(members) / total):
            warnings.warn(
                f"'{members[0][0].path}' and {len(members) - 1} more weights are stripped at sparsity {reached:.3f}, "
                f"below the schedule's final {target:.3f} of step {end}: the last update was at step {step}, or "
                "other masks were loaded since.",
                stacklevel=3,
            )
