"""Channels as numbers that can be joined."""

import dataclasses

import keras
import numpy as np

STAYS = 0
"""The slot of channels that stay."""


class Slots:
    """Numbers that can be joined: those that were joined are one (union-find). Number 0 stands for what stays."""

    def __init__(self):
        self._parents = [STAYS]
        self._reasons = {STAYS: "they are channels of the model's inputs, or joined with what has no rule"}

    def new(self, count: int, reason: str | None = None) -> np.ndarray:
        """Further numbers, none of which is joined with another; they stay, if a reason for that is given."""
        first = len(self._parents)
        self._parents.extend(range(first, first + count))
        if reason is not None:
            self._reasons.update(dict.fromkeys(range(first, first + count), reason))
        return np.arange(first, first + count)

    def root(self, slot: int) -> int:
        """The least of the numbers that a number was joined with."""
        while self._parents[slot] != slot:
            self._parents[slot] = slot = self._parents[self._parents[slot]]
        return slot

    def join(self, first: np.ndarray, second: np.ndarray) -> None:
        """Joins the numbers of two arrays, each with its counterpart."""
        for one, other in zip(first, second, strict=True):
            least, other = sorted((self.root(one), self.root(other)))
            self._parents[other] = least  # `STAYS` is the least of all
            if least != other and other in self._reasons:
                self._reasons.setdefault(least, self._reasons.pop(other))

    def keep(self, slots: np.ndarray, reason: str = "another layer reads them") -> None:
        """Lets numbers stay, and says why; the first reason counts."""
        for slot in slots:
            self._reasons.setdefault(self.root(slot), reason)

    def stay(self, slots: np.ndarray) -> np.ndarray:
        """Boolean array: which numbers stay."""
        return np.array([self.root(slot) in self._reasons for slot in slots], bool)

    def reason(self, slot: int) -> str | None:
        """Why a number stays, or `None` if it does not have to."""
        return self._reasons.get(self.root(slot))


def named_axis(axis: int, rank: int) -> int:
    """An axis as `Channels` has it: -1 for the last of so many, or a positive number."""
    return -1 if axis % rank == rank - 1 else axis % rank


@dataclasses.dataclass(frozen=True, eq=False)
class Channels:
    """The channels of a tensor, those of one of its axes.

    Attributes:
        slots: integer array: the slot of each channel; equal slots are one group.
        constants: float64 array: the value that the channel has everywhere, or NaN.
        axis: which axis: -1 for the last one, or a positive number.
    """

    slots: np.ndarray
    constants: np.ndarray
    axis: int = -1

    def __len__(self):
        return len(self.slots)

    def like(self, slots: np.ndarray, constants: np.ndarray) -> "Channels":
        """Other channels of the same axis."""
        return Channels(slots, constants, self.axis)

    def of_axis(self, axis: int, rank: int) -> "Channels":
        """The same channels as those of another axis of a tensor with so many axes."""
        return Channels(self.slots, self.constants, named_axis(axis, rank))

    @classmethod
    def unknown(cls, tensor: keras.KerasTensor, axis: int = -1) -> "Channels":
        """Channels of a tensor that stay, and of which nothing is known."""
        count = (tensor.shape[axis] or 0) if len(tensor.shape) > 1 else 0
        return cls(np.full(count, STAYS), np.full(count, np.nan), axis)

    @classmethod
    def that_stay(cls, slots: Slots, tensor: keras.KerasTensor, reason: str) -> "Channels":
        """The same, with the reason why they stay."""
        unknown = cls.unknown(tensor)
        return cls(slots.new(len(unknown), reason), unknown.constants)
