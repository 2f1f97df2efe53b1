"""Which ranks layers get: by the energy that stays, by number, or by the number of parameters that stay."""

import abc
import dataclasses
from collections.abc import Sequence

import keras

from keras_mot._config import Config
from keras_mot._messages import describe
from keras_mot._numbers import is_number, is_whole
from keras_mot.low_rank.decompositions import Option

EXACT = 1e-12
"""An error that is none: kernels of less than full rank have the energy of what float32 rounds."""


@dataclasses.dataclass(frozen=True)
class RankRule(Config, abc.ABC):
    """Chooses among the options of all layers that it is given for."""

    @abc.abstractmethod
    def choose(self, options: Sequence[Sequence[Option]], sizes: Sequence[int]) -> list[Option | None]:
        """What becomes of each layer.

        Args:
            options: of each layer, its `Option`s, each of fewer parameters than its kernel; a list may be empty.
            sizes: the number of parameters of each layer's kernel.

        Returns:
            List of one `Option` for each layer, or `None` to leave its kernel as it is.
        """


@keras.saving.register_keras_serializable("keras_mot")
@dataclasses.dataclass(frozen=True)
class EnergyShare(RankRule):
    """The fewest parameters that keep a share of each kernel's energy.

    Args:
        share: from above 0 to 1, of the sum of squares of the kernel; with calibration data, of the mean squares of
            the layer's outputs.
    """

    share: float

    def __post_init__(self):
        if not is_number(self.share) or not 0 < self.share <= 1:
            raise ValueError(f"`share` should be from above 0 to 1; received {describe(self.share)}.")

    def choose(self, options, sizes):
        """As of `RankRule`."""
        lost = 1 - self.share + EXACT
        enough = [[option for option in found if option.error <= lost] for found in options]
        return [min(found, key=lambda option: option.parameters, default=None) for found in enough]


@keras.saving.register_keras_serializable("keras_mot")
@dataclasses.dataclass(frozen=True)
class FixedRank(RankRule):
    """One rank for all layers, as far as they have so many.

    Args:
        rank: a positive integer.
    """

    rank: int

    def __post_init__(self):
        if not is_whole(self.rank) or self.rank < 1:
            raise ValueError(f"`rank` should be a positive integer; received {describe(self.rank)}.")

    def choose(self, options, sizes):
        """As of `RankRule`: of several decompositions, that of the least error."""
        return [self._of(found) for found in options]

    def _of(self, options):
        fitting = [option for option in options if max(option.ranks) <= self.rank]
        best = min(fitting, key=lambda option: (option.error, option.parameters), default=None)
        # A lower rank is as good if nothing is lost by it; else the rank that was asked for would save nothing.
        return best if best is not None and (max(best.ranks) == self.rank or best.error <= EXACT) else None


@keras.saving.register_keras_serializable("keras_mot")
@dataclasses.dataclass(frozen=True)
class ParameterShare(RankRule):
    """The least sum of relative errors that leaves a share of the parameters, over all layers together.

    Args:
        share: from above 0 to below 1, of the parameters of those kernels that can be factorized.
    """

    share: float

    def __post_init__(self):
        if not is_number(self.share) or not 0 < self.share < 1:
            raise ValueError(f"`share` should be from above 0 to below 1; received {describe(self.share)}.")

    def choose(self, options, sizes):
        """As of `RankRule`.

        Raises:
            ValueError: if the least ranks are too many parameters.
        """
        places = [place for place, found in enumerate(options) if found]
        whole = sum(sizes[place] for place in places)
        budget = self.share * whole
        # Of each layer (parameters, error, option); kernels as they are lose nothing.
        choices = {
            place: [(each.parameters, each.error, each) for each in options[place]] + [(sizes[place], 0.0, None)]
            for place in places
        }
        least = sum(min(each[0] for each in choices[place]) for place in places)
        if least > budget:
            raise ValueError(
                f"`share` {self.share:g} is below what is possible: the kernels of rank 1 have {least / whole:.2g} of "
                f"the {whole:,} parameters. Give more, or leave out layers."
            )
        chosen = _cheapest(choices, budget)
        return [chosen[place][2] if place in chosen else None for place in range(len(options))]


def _cheapest(choices, budget):
    """For each layer a choice, of the least sum of errors that fits: the price of a parameter is found by bisection."""

    def at(price):
        return {
            place: min(found, key=lambda each: (each[1] + price * each[0], each[0])) for place, found in choices.items()
        }

    low, high = 0.0, 1.0 / min((each[0] for found in choices.values() for each in found), default=1)
    while _size(at(high)) > budget:
        high *= 2
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if _size(at(middle)) > budget else (low, middle)
    # Prices reach the corners of each curve alone: between two of them, both ways are tried.
    found = [_filled(choices, at(high), budget), _filled(choices, _cut(choices, at(low), budget), budget)]
    return min(found, key=lambda chosen: sum(each[1] for each in chosen.values()))


def _filled(choices, chosen, budget):
    """The same, with what is left of the budget given to where it helps most."""
    while True:
        left = budget - _size(chosen)
        better = [
            (each[1] - chosen[place][1], place, number)
            for place, found in choices.items()
            for number, each in enumerate(found)
            if each[1] < chosen[place][1] and each[0] - chosen[place][0] <= left
        ]
        if not better:
            return chosen
        _, place, number = min(better)
        chosen = {**chosen, place: choices[place][number]}


def _cut(choices, chosen, budget):
    """The same, with less where it harms least for what it saves, until it fits."""
    while (surplus := _size(chosen) - budget) > 0:
        worse = [
            ((each[1] - chosen[place][1]) / min(chosen[place][0] - each[0], surplus), each[1], place, number)
            for place, found in choices.items()
            for number, each in enumerate(found)
            if each[0] < chosen[place][0]
        ]
        *_, place, number = min(worse)
        chosen = {**chosen, place: choices[place][number]}
    return chosen


def _size(chosen):
    return sum(each[0] for each in chosen.values())
