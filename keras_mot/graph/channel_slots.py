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

    def new(self, count: int) -> np.ndarray:
        """Further numbers, none of which is joined with another."""
        first = len(self._parents)
        self._parents.extend(range(first, first + count))
        return np.arange(first, first + count)

    def root(self, slot: int) -> int:
        """The least of the numbers that a number was joined with."""
        while self._parents[slot] != slot:
            self._parents[slot] = slot = self._parents[self._parents[slot]]
        return slot

    def join(self, first: np.ndarray, second: np.ndarray) -> None:
        """Joins the numbers of two arrays, each with its counterpart."""
        for one, other in zip(first, second, strict=True):
            one, other = self.root(one), self.root(other)
            self._parents[max(one, other)] = min(one, other)  # `STAYS` is the least

    def keep(self, slots: np.ndarray) -> None:
        """Joins numbers with what stays."""
        self.join(slots, np.full(len(slots), STAYS))

    def stay(self, slots: np.ndarray) -> np.ndarray:
        """Boolean array: which numbers are joined with what stays."""
        return np.array([self.root(slot) == STAYS for slot in slots], bool)


@dataclasses.dataclass(frozen=True, eq=False)
class Channels:
    """The channels of a tensor, those of its last axis.

    Attributes:
        slots: integer array: the slot of each channel; equal slots are one group.
        constants: float64 array: the value that the channel has everywhere, or NaN.
    """

    slots: np.ndarray
    constants: np.ndarray

    def __len__(self):
        return len(self.slots)

    @classmethod
    def unknown(cls, tensor: keras.KerasTensor) -> "Channels":
        """Channels of a tensor that stay, and of which nothing is known."""
        count = (tensor.shape[-1] or 0) if len(tensor.shape) > 1 else 0
        return cls(np.full(count, STAYS), np.full(count, np.nan))
