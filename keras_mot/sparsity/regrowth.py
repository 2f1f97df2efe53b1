"""Sparse training: at each update some weights go, and as many others come into use, at constant sparsity."""

import dataclasses
from collections.abc import Callable

import keras
import numpy as np

from keras_mot._config import Config
from keras_mot._messages import describe
from keras_mot._numbers import is_number, is_whole
from keras_mot.sparsity.criteria import Criterion, InformedCriterion, Magnitude, Random
from keras_mot.sparsity.criteria_by_gradients import Gradient
from keras_mot.sparsity.evidence import WeightEvidence

_SURVIVES = 1e30


@dataclasses.dataclass(frozen=True)
class _Regrowth(InformedCriterion, Config):
    """What `Regrow` and its named forms share."""

    regrown_value = 0.0
    """What weights start from that come into use anew."""

    @property
    def needs(self):
        """What both criteria need."""
        return tuple(dict.fromkeys((*self.drop_criterion.needs, *self.grow_criterion.needs)))

    def share_at(self, step: int) -> float:
        """The share of the weights in use that may go at a step."""
        if self.end_step is None:
            return self.fraction
        return self.fraction / 2 * (1 + np.cos(np.pi * min(step / self.end_step, 1.0)))

    def scores_from(self, evidence: WeightEvidence) -> np.ndarray:
        """The scores of single weights."""
        return self.unit_scores(evidence, np.asarray)

    def unit_scores(self, evidence: WeightEvidence, pool: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
        """Those that survive are far above all others, which are ranked by what they would grow by."""
        used = pool(evidence.mask.astype("float32")) > 0
        worth = np.abs(self.drop_criterion.unit_scores(evidence, pool)).astype("float32")
        if used.all():  # nothing is pruned yet
            return worth
        growth = np.abs(self.grow_criterion.unit_scores(evidence, pool)).astype("float32")
        if not np.isfinite(worth).all() or not np.isfinite(growth).all():
            return np.full(used.shape, np.nan, "float32")
        count = np.count_nonzero(used)
        survivors = count - round(self.share_at(evidence.step) * count)
        order = np.argsort(np.where(used, -worth, np.inf), axis=None, kind="stable")[:survivors]
        scores = np.minimum(growth, _SURVIVES / 2)
        scores.reshape(-1)[order] = _SURVIVES * (1 + worth.reshape(-1)[order] / max(float(worth.max()), 1e-30))
        return scores

    def _check_share(self):
        if not is_number(self.fraction) or not 0 <= self.fraction <= 1:
            raise ValueError(f"`fraction` should be a share from 0 to 1; received {describe(self.fraction)}.")
        end = self.end_step
        if end is not None and (not is_whole(end) or end < 1):
            raise ValueError(f"`end_step` should be a positive number of steps, or None; received {describe(end)}.")


@keras.saving.register_keras_serializable("keras_mot")
@dataclasses.dataclass(frozen=True)
class Regrow(_Regrowth):
    """At each update the least of the weights in use go, and those out of use that promise most come in their place.

    The schedule says when, and how sparse: `ConstantSparsity(0.9, 0, end_step, frequency=100)`. The first update prunes
    by `drop` alone. What comes into use starts from zero. Works with all granularities and scopes.

    Args:
        drop: a `Criterion`: the weights in use with the lowest scores go.
        grow: a `Criterion`: of all that are out of use then, those with the highest scores come.
        fraction: share of the weights in use that go, at the first step.
        end_step: the training step at which that share has fallen to none, along a cosine; `None`: it stays.
    """

    drop: Criterion = dataclasses.field(default_factory=Magnitude)
    grow: Criterion = dataclasses.field(default_factory=Gradient)
    fraction: float = 0.3
    end_step: int | None = None

    def __post_init__(self):
        self._check_share()
        for name in ("drop", "grow"):
            if not isinstance(getattr(self, name), Criterion) or isinstance(getattr(self, name), _Regrowth):
                raise TypeError(
                    f"`{name}` should be a `Criterion` that does not regrow itself; received "
                    f"{describe(getattr(self, name))}."
                )

    drop_criterion = property(lambda self: self.drop)
    grow_criterion = property(lambda self: self.grow)


@keras.saving.register_keras_serializable("keras_mot")
@dataclasses.dataclass(frozen=True)
class SET(_Regrowth):
    """Drops by magnitude, and grows at random.

    Args:
        fraction: share of the weights in use that go at each update.
        end_step: the training step at which that share has fallen to none, along a cosine; `None`: it stays.
        seed: integer; equal seeds give equal growth.

    Reference: Mocanu et al., 2018, "Scalable Training of Artificial Neural Networks with Adaptive Sparse Connectivity"
    (arXiv:1707.04780).
    """

    fraction: float = 0.3
    end_step: int | None = None
    seed: int = 0

    def __post_init__(self):
        self._check_share()
        Random(self.seed)

    drop_criterion = property(lambda self: Magnitude())
    grow_criterion = property(lambda self: Random(self.seed, anew=True))


@keras.saving.register_keras_serializable("keras_mot")
@dataclasses.dataclass(frozen=True)
class RigL(_Regrowth):
    """Drops by magnitude, and grows where the gradient is largest.

    Args:
        fraction: share of the weights in use that go, at the first step.
        end_step: the training step at which that share has fallen to none, along a cosine; about three quarters of the
            training. `None`: it stays.

    Reference: Evci et al., 2020, "Rigging the Lottery: Making All Tickets Winners" (arXiv:1911.11134).
    """

    fraction: float = 0.3
    end_step: int | None = None

    def __post_init__(self):
        self._check_share()

    drop_criterion = property(lambda self: Magnitude())
    grow_criterion = property(lambda self: Gradient())
