"""How a weight is pruned: the four axes in one object, which also updates the masks."""

import dataclasses
import math

import keras
import numpy as np

from keras_mot._arrays import numpy_value
from keras_mot._config import Config, check_hashable
from keras_mot._messages import describe
from keras_mot._warnings import warn
from keras_mot.sparsity._gradients import collect_gradients
from keras_mot.sparsity._moments import collect_moments
from keras_mot.sparsity._selection import NonFiniteScoreError, count_to_zero, keep_largest_with_floors
from keras_mot.sparsity.criteria import Criterion, Magnitude
from keras_mot.sparsity.evidence import GRADIENTS, MOMENTS, WeightEvidence, gathered, require
from keras_mot.sparsity.granularity import Element, Granularity, NofM
from keras_mot.sparsity.schedules import ConstantSparsity, PruningSchedule
from keras_mot.transforms import Mask

_COLLECTORS = {GRADIENTS: collect_gradients, MOMENTS: collect_moments}


@keras.saving.register_keras_serializable("keras_mot")
@dataclasses.dataclass(frozen=True)
class PerLayer(Config):
    """Each weight tensor reaches the target sparsity by itself."""


@keras.saving.register_keras_serializable("keras_mot")
@dataclasses.dataclass(frozen=True)
class WholeModel(Config):
    """One ranking over all weights with the same settings: layers that matter more keep more.

    The target is a fraction of all units (weights, blocks or channels) together.

    Args:
        min_density: fraction of units that each weight tensor keeps at least, in (0, 1).
    """

    min_density: float = 0.02

    def __post_init__(self):
        if not isinstance(self.min_density, int | float) or not 0.0 < self.min_density < 1.0:
            raise ValueError(f"`min_density` must be in range (0, 1); received {describe(self.min_density)}.")


@keras.saving.register_keras_serializable("keras_mot")
@dataclasses.dataclass(frozen=True)
class PruningConfig(Config):
    """How weights are pruned: schedule x granularity x criterion x scope.

    Args:
        schedule: a `PruningSchedule`, when and how much.
        granularity: a `Granularity`, what is pruned together: `Element()`, `Block((1, 2))`, `NofM(2, 4)`, `Channel()`.
        criterion: a `Criterion`, what scores a weight.
        scope: `PerLayer()` or `WholeModel()`, what is ranked together.

    Raises:
        TypeError: if an argument is of another type.
        ValueError: if an N:M pattern, which is per group by nature, is combined with `WholeModel`.
    """

    schedule: PruningSchedule = dataclasses.field(default_factory=lambda: ConstantSparsity(0.5))
    granularity: Granularity = dataclasses.field(default_factory=Element)
    criterion: Criterion = dataclasses.field(default_factory=Magnitude)
    scope: PerLayer | WholeModel = dataclasses.field(default_factory=PerLayer)

    def __post_init__(self):
        for name, kind in (
            ("schedule", PruningSchedule),
            ("granularity", Granularity),
            ("criterion", Criterion),
            ("scope", PerLayer | WholeModel),
        ):
            value = getattr(self, name)
            if not isinstance(value, kind):
                expected = getattr(kind, "__name__", str(kind))
                raise TypeError(f"`{name}` should be a `{expected}` object; received {describe(value)}.")
            check_hashable(name, value)
        if isinstance(self.granularity, NofM) and isinstance(self.scope, WholeModel):
            raise ValueError("N:M sparsity is the same in every group: it cannot be combined with `WholeModel`.")

    def sparsity_at(self, step):
        """The target sparsity of the schedule, or of the pattern if that fixes it, at `step`."""
        fixed = self.granularity.fixed_sparsity
        if fixed is not None:
            return fixed
        sparsity = float(self._ask_schedule(step)[1])
        if not 0.0 <= sparsity < 1.0:
            raise ValueError(f"{self.schedule!r} returned sparsity {sparsity} for step {step}; expected [0, 1).")
        return sparsity

    def _ask_schedule(self, step):
        answer = self.schedule(step)
        if not isinstance(answer, tuple | list) or len(answer) != 2:
            raise TypeError(
                f"{self.schedule!r} should return a pair, whether to update the masks and the sparsity; "
                f"for step {step} it returned {describe(answer)}."
            )
        return answer

    # The three methods below are what `keras_mot.transforms.WeightTransform` asks of an updater.

    def due(self, step):
        """Whether masks are updated at `step`."""
        return bool(self._ask_schedule(step)[0])

    def update(self, weights, step):
        """Chooses the masks of `weights` anew, at the sparsity of `step`.

        Args:
            weights: list of `keras_mot.layers.TransformedWeight` with a mask each.
            step: training steps that have ended.

        Raises:
            ValueError: if a weight is NaN or infinite, which means that training has diverged; or if the criterion
                needs data, and there are none.
        """
        sparsity = self.sparsity_at(step)
        evidence = gathered(self.criterion, weights, _COLLECTORS)
        if isinstance(self.scope, PerLayer):
            for weight in weights:
                # No name for the scores: they are gone before the mask is assigned.
                mask = self._guarded(
                    lambda w=weight: self.granularity.select(self._unit_scores(w, step, evidence), sparsity),
                    [weight],
                    step,
                )
                self._assign(weight, mask)
            return
        scores = [lambda w=weight: self._unit_scores(w, step, evidence) for weight in weights]
        sizes = [self.granularity.unit_count(tuple(w.variable.shape), w.axes) for w in weights]
        floors = self._floors(sizes)
        keep = max(sum(sizes) - count_to_zero(sum(sizes), sparsity), sum(floors))
        masks = self._guarded(lambda: keep_largest_with_floors(scores, keep, floors), weights, step)
        for index, weight in enumerate(weights):
            self._assign(weight, masks[index])
            masks[index] = None

    def before_training(self, weights):
        """Refuses to train without the data that the criterion needs, unless all updates have been made.

        Args:
            weights: list of `keras_mot.layers.TransformedWeight`.

        Raises:
            ValueError: naming the criterion.
        """
        end, masks = getattr(self.schedule, "end_step", -1), [mask_of(weight) for weight in weights]
        over = end != -1 and all(mask.updated_at >= 0 and mask.step >= end for mask in masks)
        if self.criterion.needs and not over:
            require(self.criterion)

    def check(self, weights):
        """Raises a `ValueError` if weights of these shapes cannot be pruned this way.

        Args:
            weights: list of (path, shape, axes) of all weights with these settings.
        """
        for path, shape, axes in weights:
            self.granularity.check(shape, axes, path)
        if isinstance(self.scope, WholeModel):
            sizes = [self.granularity.unit_count(shape, axes) for _, shape, axes in weights]
            final = self.sparsity_at(max(getattr(self.schedule, "end_step", -1), 0))
            if sum(self._floors(sizes)) > sum(sizes) - count_to_zero(sum(sizes), final):
                raise ValueError(
                    f"A sparsity of {final} over the whole model cannot be reached if each weight keeps "
                    f"`min_density={self.scope.min_density}` of its units; use `WholeModel(min_density=...)` with less."
                )

    def keeps_loaded(self, weights, step):
        """Whether masks that were loaded without their progress stay as they are at `step`.

        `set_weights` and PyTorch's `load_state_dict` bring masks, but not the number of steps that trained them. The
        schedule begins anew; until it asks for as many zeros as there are, an update would only take some away.

        Args:
            weights: list of `keras_mot.layers.TransformedWeight` whose masks were never updated in this model.
            step: training steps that have ended.
        """
        reached, tolerance = _reached([mask_of(weight) for weight in weights])
        return reached > 0 and self.sparsity_at(step) < reached - tolerance

    def before_strip(self, weights):
        """Refuses to strip weights that were never pruned; warns if they have fewer zeros than the schedule aims at.

        Raises:
            ValueError: if a mask has not been updated yet.
        """
        masks = [(weight, mask_of(weight)) for weight in weights]
        waiting = [weight.path for weight, mask in masks if mask.updated_at < 0]
        # A mask with zeros has been pruned, even if `set_weights` brought it here without its progress.
        if waiting and not any(mask.zeros() for _, mask in masks):
            raise ValueError(
                f"Nothing has been pruned yet after {max(mask.step for _, mask in masks)} training steps, for example "
                f"'{waiting[0]}': train the model first (at least up to the schedule's `begin_step`), with `fit`, or "
                "with `update_pruning_step(model)` after every step of a custom loop."
            )
        for step in sorted({mask.updated_at for _, mask in masks}):
            self._warn_unfinished([(weight, mask) for weight, mask in masks if mask.updated_at == step], step)

    def _warn_unfinished(self, members, step):
        end = max(getattr(self.schedule, "end_step", -1), step, 0)
        target = self.sparsity_at(end)
        reached, tolerance = _reached([mask for _, mask in members])
        if reached < target - tolerance:
            last = f"the last update was at step {step}, or other masks were loaded since"
            warn(
                f"'{members[0][0].path}' and {len(members) - 1} more weights are stripped at sparsity {reached:.3f}, "
                f"below the schedule's final {target:.3f} of step {end}: "
                f"{'the masks were loaded without their progress' if step < 0 else last}."
            )

    def _floors(self, sizes):
        return [max(1, int(np.ceil(self.scope.min_density * size))) for size in sizes]

    @staticmethod
    def logs(weights):
        """`{"sparsity": fraction}` of zeros among the weights that have masks."""
        return {"sparsity": _reached([mask_of(weight) for weight in weights])[0]}

    def _unit_scores(self, weight, step, evidence):
        values = numpy_value(weight.value_before(mask_of(weight)))
        mask = numpy_value(mask_of(weight).mask)
        known = WeightEvidence(values, weight.path, step, mask, weight.axes, **evidence[id(weight.variable)])
        return self.criterion.unit_scores(known, lambda scores: self.granularity.unit_scores(scores, weight.axes))

    def _assign(self, weight, unit_mask):
        mask = self.granularity.expand(unit_mask, tuple(weight.variable.shape), weight.axes)
        anew = getattr(self.criterion, "regrown_value", None)
        if anew is not None:
            before = numpy_value(mask_of(weight).mask)
            regrown = mask & ~before
            if regrown.any():
                values = np.array(numpy_value(weight.variable))
                values[regrown] = anew
                weight.variable.assign(values)
        mask_of(weight).assign(mask)

    @staticmethod
    def _guarded(select, weights, step):
        try:
            return select()
        except NonFiniteScoreError as error:
            bad = [w.path for w in weights if not np.isfinite(numpy_value(w.variable)).all()]
            raise ValueError(
                f"Cannot update the pruning masks after {step} steps: "
                + (
                    f"weights {bad} are NaN or infinite. Training has diverged; lower the learning rate."
                    if bad
                    else f"{error}, among {[w.path for w in weights]}, as the criterion scores them."
                )
            ) from error


def _reached(masks):
    """The sparsity of some masks together, and how much a target may lie beside it.

    Rounding in each weight, and smaller blocks at the edges, make a little difference.
    """
    total = sum(math.prod(mask.mask.shape) for mask in masks)
    return sum(mask.zeros() for mask in masks) / total, max(0.005, len(masks) / total)


def mask_of(weight):
    """The `Mask` in the stack of a `TransformedWeight`, or `None`."""
    return weight.transform_of(Mask)
