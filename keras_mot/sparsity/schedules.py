"""Pruning schedules: when masks are updated, and to which sparsity.

Steps are training batches. Step 0 is the moment before the first one; step `n`, the moment after the `n`-th.
"""

import abc
import dataclasses

import keras

from keras_mot._config import Config, EqualByConfig
from keras_mot._messages import describe


class PruningSchedule(EqualByConfig, abc.ABC):
    """Base class of schedules; a user's own implements `__call__`, and, to be saved, `get_config` (`keras_mot.Config`).

    A schedule should not change: weights with equal settings are updated together. It should have an attribute
    `end_step` (-1 for none), so that stripping can warn if training ended early.

    Example:

    ```python
    @keras.saving.register_keras_serializable()
    @dataclasses.dataclass(frozen=True)
    class OneShot(keras_mot.Config, keras_mot.sparsity.PruningSchedule):
        sparsity: float

        def __call__(self, step):
            return step == 100, self.sparsity
    ```
    """

    end_step = -1

    @abc.abstractmethod
    def __call__(self, step: int) -> tuple[bool, float]:
        """What to do once `step` training steps have ended.

        Args:
            step: Python integer, 0 before the first step.

        Returns:
            A pair: whether to update the masks now, and the sparsity to reach, in [0, 1).
        """

    @staticmethod
    def _should_prune_in_step(step, begin_step, end_step, frequency):
        """Whether `step` is `begin_step`, a multiple of `frequency` after it, or `end_step`."""
        if step < begin_step or (end_step >= 0 and step > end_step):
            return False
        return (step - begin_step) % frequency == 0 or step == end_step


def _check_steps(begin_step, end_step, frequency):
    for name, value in (("begin_step", begin_step), ("end_step", end_step), ("frequency", frequency)):
        if isinstance(value, bool) or not hasattr(value, "__index__"):
            raise TypeError(f"`{name}` should be an integer number of steps; received {describe(value)}.")
    if begin_step < 0:
        raise ValueError(f"`begin_step` should be >= 0; received {begin_step}.")
    if end_step < -1:
        raise ValueError(f"`end_step` should be -1 (never) or >= 0; received {end_step}.")
    if end_step != -1 and end_step < begin_step:
        raise ValueError(
            f"`begin_step` should be <= `end_step`; received begin_step={begin_step}, end_step={end_step}."
        )
    if frequency <= 0:
        raise ValueError(f"`frequency` should be > 0; received {frequency}.")


def _check_sparsity(name, value):
    try:
        valid = 0.0 <= value < 1.0
    except TypeError:
        raise TypeError(f"`{name}` should be a number in [0, 1); received {describe(value)}.") from None
    if not valid:
        raise ValueError(
            f"`{name}` must be in range [0, 1): the fraction of weights that are zero; received {describe(value)}."
        )


@keras.saving.register_keras_serializable("keras_mot")
@dataclasses.dataclass(frozen=True)
class ConstantSparsity(Config, PruningSchedule):
    """The same sparsity from `begin_step` on.

    Args:
        target_sparsity: fraction of weights that are zero, in [0, 1).
        begin_step: step of the first update; 0 is before the first training step.
        end_step: step of the last update, or -1 to go on as long as training lasts.
        frequency: steps between updates.

    Raises:
        ValueError: if an argument is out of its range.

    Example:

    ```python
    ConstantSparsity(0.5, begin_step=0, frequency=100)
    ```
    """

    target_sparsity: float
    begin_step: int = 0
    end_step: int = -1
    frequency: int = 100

    def __post_init__(self):
        _check_sparsity("target_sparsity", self.target_sparsity)
        _check_steps(self.begin_step, self.end_step, self.frequency)

    def __call__(self, step: int) -> tuple[bool, float]:
        """Whether to update at `step`, and the target sparsity."""
        due = self._should_prune_in_step(step, self.begin_step, self.end_step, self.frequency)
        return due, self.target_sparsity


@keras.saving.register_keras_serializable("keras_mot")
@dataclasses.dataclass(frozen=True)
class PolynomialDecay(Config, PruningSchedule):
    """Sparsity that rises quickly at first, then ever more slowly, from `begin_step` to `end_step`.

    Zhu and Gupta, 2017, "To prune, or not to prune" (arXiv:1710.01878), equation 1, with the exponent free:
    `final + (initial - final) * (1 - progress) ** power`. The last update is made at `end_step` whatever
    `frequency` is, so the final sparsity is reached exactly.

    Args:
        initial_sparsity: sparsity at `begin_step`, in [0, 1).
        final_sparsity: sparsity at `end_step`, in [0, 1).
        begin_step: step of the first update; 0 is before the first training step.
        end_step: step of the last update.
        power: exponent of the decay; 1 is linear.
        frequency: steps between updates.

    Raises:
        ValueError: if an argument is out of its range, or `end_step` is -1.

    Example:

    ```python
    PolynomialDecay(initial_sparsity=0.5, final_sparsity=0.9, begin_step=0, end_step=2000, frequency=100)
    ```
    """

    initial_sparsity: float
    final_sparsity: float
    begin_step: int
    end_step: int
    power: float = 3
    frequency: int = 100

    def __post_init__(self):
        _check_sparsity("initial_sparsity", self.initial_sparsity)
        _check_sparsity("final_sparsity", self.final_sparsity)
        _check_steps(self.begin_step, self.end_step, self.frequency)
        if self.end_step == -1:
            raise ValueError("`end_step` of `PolynomialDecay` cannot be -1: the decay needs an end.")
        if not self.power > 0:
            raise ValueError(f"`power` should be > 0; received {describe(self.power)}.")

    def __call__(self, step: int) -> tuple[bool, float]:
        """Whether to update at `step`, and the sparsity of that moment."""
        due = self._should_prune_in_step(step, self.begin_step, self.end_step, self.frequency)
        span = max(self.end_step - self.begin_step, 1)
        progress = min(max((step - self.begin_step) / span, 0.0), 1.0)
        if step >= self.end_step:
            progress = 1.0
        remaining = (1.0 - progress) ** self.power
        return due, self.final_sparsity + (self.initial_sparsity - self.final_sparsity) * remaining
