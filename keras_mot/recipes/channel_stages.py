"""The stage that removes whole channels at once."""

import dataclasses
from typing import ClassVar

import keras

from keras_mot._numbers import check_whole
from keras_mot.recipes._stage import Stage, check_fine_tune, check_skip, place_of
from keras_mot.recipes.fine_tuning import FineTune, check_number
from keras_mot.sparsity import prune_channels, remove_pruned_channels
from keras_mot.transforms import Mask


@keras.saving.register_keras_serializable("keras_mot")
@dataclasses.dataclass(frozen=True)
class PruneChannels(Stage):
    """Cuts out the channels of least weight at once; those that the model joins have one score, and go together.

    `Prune` with `channels` makes channels zero little by little instead, each layer's by themselves.

    Args:
        sparsity: the share of the channels of each layer that goes, from 0 to below 1.
        round_to: layers keep a multiple of this many channels, as far as they have so many.
        skip: regular expressions of the layers to leave alone.
        fine_tune: a `FineTune`, or `None` for no training.
    """

    key: ClassVar[str] = "prune_channels"
    rank: ClassVar[float] = place_of(Mask.kind) / 2  # the model has no transforms yet

    sparsity: float = 0.5
    round_to: int = 1
    skip: tuple[str, ...] = ()
    fine_tune: FineTune | None = dataclasses.field(default_factory=lambda: FineTune(2, 1e-3))

    def __post_init__(self):
        check_number("sparsity", self.sparsity, 0.0, 1.0)
        if self.sparsity == 1.0:
            raise ValueError("`sparsity` should be below 1; received 1.0.")
        check_whole("round_to", self.round_to, 1)
        check_skip(self)
        check_fine_tune(self.fine_tune)

    def apply(self, model, run):
        """A smaller model."""
        thinner = prune_channels(model, self.sparsity, round_to=self.round_to, overrides=dict.fromkeys(self.skip))
        return remove_pruned_channels(thinner)
