"""The stage that makes kernels products of smaller ones."""

import dataclasses
from typing import Any, ClassVar

import keras

from keras_mot._messages import describe, nearest
from keras_mot.low_rank import (
    EnergyShare,
    FactorizationPlan,
    FixedRank,
    InputChannels,
    OutputChannels,
    ParameterShare,
    Spatial,
    Tucker,
    plan_factorization,
)
from keras_mot.recipes._stage import Stage, check_fine_tune, check_skip
from keras_mot.recipes.fine_tuning import FineTune, check_whole

_DECOMPOSITIONS = {
    "output_channels": OutputChannels(),
    "input_channels": InputChannels(),
    "spatial": Spatial(),
    "tucker": Tucker(),
}


@keras.saving.register_keras_serializable("keras_mot")
@dataclasses.dataclass(frozen=True)
class Factorize(Stage):
    """Replaces kernels by products of smaller ones; see `keras_mot.low_rank.factorize`.

    Give one of `parameters`, `energy` and `fixed_rank`.

    Args:
        parameters: share of the parameters of the kernels that stay, over all layers together; by default 0.5.
        energy: share of the energy of each layer's outputs that stays.
        fixed_rank: of each layer.
        decomposition: of convolutions: "output_channels", "input_channels", "spatial" or "tucker"; by default what is
            best for each layer.
        calibration_samples: samples of the training data that outputs are approximated on; 0 approximates kernels.
        skip: regular expressions of the layers to leave alone.
        fine_tune: a `FineTune`, or `None` for no training.
    """

    key: ClassVar[str] = "factorize"
    plain: ClassVar[bool] = True

    parameters: float | None = None
    energy: float | None = None
    fixed_rank: int | None = None
    decomposition: str | None = None
    calibration_samples: int = 512
    skip: tuple[str, ...] = ()
    fine_tune: FineTune | None = dataclasses.field(default_factory=FineTune)

    def __post_init__(self):
        given = [name for name in ("parameters", "energy", "fixed_rank") if getattr(self, name) is not None]
        if len(given) > 1:
            raise ValueError(f"Give one of `parameters`, `energy` and `fixed_rank`; received {' and '.join(given)}.")
        self._rule()
        if self.decomposition is not None and self.decomposition not in _DECOMPOSITIONS:
            raise ValueError(
                f"`decomposition` should be one of {', '.join(_DECOMPOSITIONS)}; received "
                f"{describe(self.decomposition)}.{nearest(self.decomposition, _DECOMPOSITIONS)}"
            )
        check_whole("calibration_samples", self.calibration_samples, 0)
        check_skip(self)
        check_fine_tune(self.fine_tune)

    def _rule(self):
        if self.energy is not None:
            return _named("energy", EnergyShare, self.energy)
        if self.fixed_rank is not None:
            return FixedRank(self.fixed_rank)
        return _named("parameters", ParameterShare, 0.5 if self.parameters is None else self.parameters)

    def apply(self, model, run):
        """A model with more layers, and smaller kernels."""
        return self.plan(model, run).build()

    def plan(self, model: keras.Model, run: Any) -> FactorizationPlan:
        """What becomes of each layer; arguments as of `apply`."""
        return plan_factorization(
            model,
            self._rule(),
            calibration_data=run.calibration(self.calibration_samples) if self.calibration_samples else None,
            decomposition=None if self.decomposition is None else _DECOMPOSITIONS[self.decomposition],
            overrides=dict.fromkeys(self.skip),
            progress=run.progress,
        )


def _named(name, rule, share):
    """A rule of a share, with errors that call it by the name of the setting."""
    try:
        return rule(share)
    except ValueError as error:
        raise ValueError(str(error).replace("`share`", f"`{name}`")) from error
