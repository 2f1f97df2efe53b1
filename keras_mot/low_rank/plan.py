"""What a factorization does to the layers of a model: a table, and the model that is made of it."""

import dataclasses
from collections.abc import Callable

import keras

from keras_mot._tables import ShownAsTable
from keras_mot._warnings import warn
from keras_mot.graph.flat_copy import reasons_text


@dataclasses.dataclass(frozen=True)
class FactorizedLayer:
    """One layer whose kernel is replaced by a chain of smaller ones.

    Attributes:
        layer: the path of the layer in the model, without the model's own name.
        shape: of its kernel.
        decomposition: the name of the class of its `Decomposition`.
        ranks: the ranks.
        parameters_before: numbers in the kernel.
        parameters_after: numbers in the chain.
        error: the share of the kernel's energy that is lost, see `Option`.
    """

    layer: str
    shape: tuple[int, ...]
    decomposition: str
    ranks: tuple[int, ...]
    parameters_before: int
    parameters_after: int
    error: float


@dataclasses.dataclass(frozen=True)
class FactorizationPlan(ShownAsTable):
    """Which layers of a model are factorized, with which ranks, and which are not; prints as a table.

    Attributes:
        rows: tuple of `FactorizedLayer`.
        skipped: tuple of (path of a layer, reason) pairs: layers with kernels that stay as they are.
    """

    rows: tuple[FactorizedLayer, ...]
    skipped: tuple[tuple[str, str], ...]
    _make: Callable[[], keras.Model] = dataclasses.field(repr=False, compare=False)

    @property
    def parameters_before(self) -> int:
        """Numbers in the kernels of `rows`."""
        return sum(row.parameters_before for row in self.rows)

    @property
    def parameters_after(self) -> int:
        """Numbers in what replaces them."""
        return sum(row.parameters_after for row in self.rows)

    def build(self) -> keras.Model:
        """The factorized model: functional, not compiled, of plain Keras layers; it shares no variables.

        Warns if nothing is factorized, and, with calibration data, if its outputs are of no use before training.
        """
        if not self.rows:
            reasons = reasons_text(dict(self.skipped)) or "it has no kernels"
            warn(f"Nothing is factorized: {reasons}.")
        return self._make()

    def _table(self):
        rows = [
            (
                row.layer,
                "x".join(map(str, row.shape)),
                row.decomposition,
                ", ".join(map(str, row.ranks)),
                f"{row.parameters_before:,}",
                f"{row.parameters_after:,}",
                f"{row.error:.2%}",
            )
            for row in self.rows
        ]
        rows += [(layer, "", f"as it is: {reason}", "", "", "", "") for layer, reason in self.skipped]
        return ("layer", "kernel", "decomposition", "ranks", "before", "after", "lost"), rows

    def _caption(self):
        return (
            f"{self.parameters_after:,} of {self.parameters_before:,} parameters stay in {len(self.rows)} layers; "
            "lost: the share of the kernel's squares, or, with calibration data, of those of the layer's outputs."
        )
