"""What each layer loses by each technique: rows, a table, JSON, and a plot."""

import dataclasses
import json
import os
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

from keras_mot._tables import ShownAsTable

TECHNIQUES = {
    "weight_bits": "bits of weights",
    "activation_bits": "bits of activations",
    "sparsity": "share of zeros",
    "values": "values",
    "rank": "share of parameters by low rank",
}
"""The techniques, and what their settings are."""


@dataclasses.dataclass(frozen=True)
class SensitivityRow:
    """What is lost when one layer alone is changed.

    Attributes:
        layer: the path of the layer in the user's model, without the model's own name; `layer + "$"` selects it.
        technique: one of "weight_bits", "activation_bits", "sparsity", "values" and "rank".
        setting: bits, the share of zeros, the number of values, or the share of the kernel's parameters.
        loss: what the model's outputs lose, at least 0, see `Sensitivity.measure`; over several layers, losses add up
            as long as they are small.
        snr_db: of the model's outputs, the ratio of signal to noise in dB; `None` where nothing changes.
        layer_error: the share of the energy of the layer's own outputs that is lost, tr(E'HE) / tr(W'HW); `None` where
            it is not known.
        parameters: numbers in the kernel; 0 for activations.
        bytes_saved: of the kernel's 4 bytes for each number, how many need not be stored: of zeros, as if stored at no
            cost but one bit for each weight; of values, indices and palette.
        estimated: whether `loss` follows from `layer_error`, instead of from a run.
        kernel: which kernel of the layer it is, if there are several, such as "pointwise_kernel"; of a quantized model,
            the name of the step that it was broken down into. Else "".
    """

    layer: str
    technique: str
    setting: float
    loss: float
    snr_db: float | None
    layer_error: float | None
    parameters: int
    bytes_saved: int
    estimated: bool = False
    kernel: str = ""

    @property
    def name(self) -> str:
        """The layer, with the kernel in brackets if it has several."""
        return f"{self.layer} ({self.kernel})" if self.kernel else self.layer


@dataclasses.dataclass(frozen=True)
class Sensitivity(ShownAsTable):
    """The sensitivities of a model; iterates over its rows, and prints as a table, the most harmful first.

    Attributes:
        rows: tuple of `SensitivityRow`.
        measure: what `loss` is: "KL divergence" of the predicted probabilities, in nats per sample; "relative error",
            the noise of the outputs by their variance; or "increase of the loss" per sample, for labels.
        samples: how many samples it was measured on.
        skipped: tuple of (layer, reason) pairs.
    """

    rows: tuple[SensitivityRow, ...]
    measure: str
    samples: int
    skipped: tuple[tuple[str, str], ...] = ()

    def __iter__(self) -> Iterator[SensitivityRow]:
        return iter(self.rows)

    def __len__(self) -> int:
        return len(self.rows)

    def worst(self, count: int = 5) -> tuple[SensitivityRow, ...]:
        """The rows with the largest losses: which layers to blame, or to spare."""
        return tuple(sorted(self.rows, key=lambda row: -row.loss)[:count])

    def of(self, technique: str, layer: str | None = None) -> tuple[SensitivityRow, ...]:
        """The rows of one technique, such as "weight_bits", or of one layer with it."""
        return tuple(row for row in self.rows if row.technique == technique and layer in (None, row.layer))

    def to_dict(self) -> dict[str, Any]:
        """The sensitivities as a dictionary of JSON values."""
        return {**dataclasses.asdict(self), "skipped": [list(pair) for pair in self.skipped]}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Sensitivity":
        """What `to_dict` described."""
        rows = tuple(SensitivityRow(**row) for row in values["rows"])
        return cls(rows, values["measure"], values["samples"], tuple(tuple(pair) for pair in values["skipped"]))

    def to_json(self, path: str | os.PathLike | None = None) -> str:
        """The sensitivities as JSON text, which is also written to `path`, if one is given."""
        text = json.dumps(self.to_dict(), indent=1)
        if path is not None:
            pathlib.Path(path).write_text(text + "\n", encoding="utf-8")
        return text

    def plot(self, path: str | os.PathLike) -> None:
        """Draws a panel for each technique, layers from input to output, a line for each setting.

        Args:
            path: of the picture, `.svg`, `.png` or `.pdf`; a file of that name is replaced.

        Raises:
            ImportError: if Matplotlib is not installed.
            ValueError: if no file can be written there.
        """
        from keras_mot.analysis import plots

        plots.save(plots.sensitivity(self), path)

    def _table(self):
        rows = [
            (
                row.name,
                TECHNIQUES[row.technique],
                f"{row.setting:g}",
                f"{'~' if row.estimated else ''}{row.loss:.3g}",
                "-" if row.snr_db is None else f"{row.snr_db:.1f}",
                "-" if row.layer_error is None else f"{row.layer_error:.2%}",
                f"{row.bytes_saved:,}",
            )
            for row in self.worst(len(self.rows))
        ]
        return ("layer", "technique", "setting", "loss", "SNR, dB", "layer's error", "bytes saved"), rows

    def _caption(self):
        return (
            f"loss: {self.measure} when the layer alone is changed, on {self.samples:,} samples (~: estimated from the "
            "layer's own error); SNR: of the model's outputs; layer's error: the share of the energy of its outputs; "
            "saved: of 4 bytes for each weight."
        )
