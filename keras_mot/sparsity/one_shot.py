"""Pruning at once, without training: masks, then least squares for what they leave."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import keras

from keras_mot._keras import flatten_layers
from keras_mot._messages import describe
from keras_mot._numbers import is_number, is_whole
from keras_mot.data.arrays import sample_count
from keras_mot.graph.agreement import unjudged
from keras_mot.layers import strip
from keras_mot.layers.finding import check_layer
from keras_mot.layers.selecting import checked_overrides
from keras_mot.sparsity.config import PruningConfig, WholeModel
from keras_mot.sparsity.criteria_by_inputs import OptimalBrainSurgeon
from keras_mot.sparsity.evidence import PruningEvidence
from keras_mot.sparsity.granularity import NofM
from keras_mot.sparsity.prune import PRUNING, update_pruning_step
from keras_mot.sparsity.refitting import refit
from keras_mot.sparsity.schedules import ConstantSparsity


def prune_at_once(
    model: keras.Model,
    calibration_data: Any,
    how: float | PruningConfig = 0.5,
    *,
    overrides: Mapping[Any, PruningConfig | None] | None = None,
    include_depthwise: bool | None = None,
    loss: Any = None,
    rounds: int = 3,
    samples: int = 1024,
    damping: float = 0.01,
    progress: bool | None = None,
) -> keras.Model:
    """Prunes a trained model without training it: `prune_low_magnitude`, all masks at once, and `refit`.

    Args:
        model: a trained model of any kind that can be traced and copied. It is not changed.
        calibration_data: some hundred to some thousand typical inputs, with labels if a criterion goes by gradients.
        how: the share of zeros, ranked over the whole model; or a `PruningConfig`, of which the schedule's final
            sparsity counts: another granularity, criterion or scope.
        overrides: as of `prune_low_magnitude`.
        include_depthwise: as of `prune_low_magnitude`.
        loss: a Keras loss, its name, or a function of labels and outputs, for criteria that go by gradients; by
            default, that of the compiled model.
        rounds: in how many steps the sparsity is reached; after each, what is left is refitted, and ranked anew for the
            next, since weights that have taken over from others are worth more. N:M patterns take N at most; with
            `OptimalBrainSurgeon`, their zeros are moved within their groups in the last one.
        samples: how many samples are used at most, as of `refit`.
        damping: as of `refit`.
        progress: as of `refit`.

    Returns:
        A model with masks, not compiled, that shares no variables with `model`: to be stripped by `strip_pruning`, or
        trained from there, with the masks as they are.

    Warns as `refit`.

    Raises:
        TypeError: if an argument is of the wrong type.
        ValueError: as `prune_low_magnitude` and `refit`.

    Example:

    ```python
    small = strip_pruning(prune_at_once(model, x_train[:1024], 0.5))
    two_of_four = PruningConfig(granularity=NofM(2, 4), criterion=OptimalBrainSurgeon())
    pattern = prune_at_once(model, x_train[:1024], two_of_four, overrides={"stem": None})
    ```
    """
    check_layer(model, "prune_at_once")
    config = _config(how)
    if not is_whole(rounds) or rounds < 1:
        raise ValueError(f"`rounds` should be a positive integer; received {describe(rounds)}.")
    rounds = _fewer_for_patterns(rounds, [config, *checked_overrides(overrides).values()])
    calibration_data = _kept(calibration_data, samples)
    evidence = PruningEvidence(calibration_data, loss, samples=samples)
    evidence.compiled = model  # copies with masks are not
    work = model
    for number in range(1, rounds + 1):
        part = number / rounds
        others = _for_copy(overrides, model, work)
        masked = PRUNING.apply(
            work,
            _at_once(config, part),
            {selector: each and _at_once(each, part) for selector, each in others.items()},
            include_depthwise=include_depthwise,
        )
        update_pruning_step(masked, 0, evidence)
        with unjudged(number < rounds):
            masked = refit(
                masked,
                calibration_data,
                reference=model,
                samples=samples,
                damping=damping,
                move_zeros=number == rounds and isinstance(config.criterion, OptimalBrainSurgeon),
                inplace=True,
                progress=progress,
            )
        if number < rounds:
            work = strip(masked, inplace=True)
    return masked


def _for_copy(overrides, model, work):
    """The overrides with the layers of a copy in place of those of the model."""
    copies = dict(zip(map(id, flatten_layers(model)), flatten_layers(work), strict=True))
    return {copies.get(id(selector), selector): each for selector, each in checked_overrides(overrides).items()}


def _config(how):
    if isinstance(how, PruningConfig):
        return how
    if not is_number(how):
        raise TypeError(f"`how` should be a share of zeros, or a `PruningConfig`; received {describe(how)}.")
    return PruningConfig(ConstantSparsity(float(how)), scope=WholeModel())


def _fewer_for_patterns(rounds, configs):
    """Where all is pruned in patterns, no more rounds than there are patterns on the way."""
    patterns = [each.granularity for each in configs if each is not None]
    if all(isinstance(pattern, NofM) for pattern in patterns):
        return min(rounds, max(pattern.zeros for pattern in patterns))
    return rounds


def _kept(data, samples):
    """What an iterator yields, so that it can be gone through in each round."""
    if not hasattr(data, "__next__"):
        return data
    kept, count = [], 0
    for batch in data:
        kept.append(batch)
        count += sample_count(batch)
        if count >= samples:
            break
    return kept


def _at_once(config, part):
    """The settings with a schedule that prunes once, to what is due after a part of the rounds."""
    pattern = config.granularity
    if isinstance(pattern, NofM):
        pattern = dataclasses.replace(pattern, zeros=math.ceil(part * pattern.zeros))
    final = config.sparsity_at(max(getattr(config.schedule, "end_step", -1), 0))
    share = 1 - (1 - part) ** 3  # most in the first rounds, as `PolynomialDecay`
    return dataclasses.replace(config, schedule=ConstantSparsity(share * final, 0, 0), granularity=pattern)
