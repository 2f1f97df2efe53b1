"""The results of measurements: values first, tables second."""

import dataclasses
import math
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

from keras_mot._formats import FORMATS
from keras_mot._tables import ShownAsTable, markdown_table, wrapped
from keras_mot.analysis._tensors import TensorStats, share_of_zeros
from keras_mot.analysis.brotli import BROTLI, brotli_column
from keras_mot.export.litert.sparse.speed import SparseSpeed


@dataclasses.dataclass(frozen=True)
class Measurement:
    """What was measured of one model or file.

    Attributes:
        name: Name of the row.
        kind: "keras", or the format of an exported file, such as "litert".
        path: Path of the file, or None for a model in memory.
        bytes: Size of the file. For a model in memory: of the `.keras` file that it saves to, without the
            state of its optimizer.
        zipped_bytes: Size of a zip archive (DEFLATE, level 9) that holds the file.
        parameters: Number of weight values.
        metric: Value of the metric over the data, computed by the model or by the runtime, or None.
        latency_ms: Median milliseconds for one sample in the LiteRT runtime; None for Keras models, which no
            such runtime runs, and where nothing was timed.
        tensors: A `TensorStats` for each weight tensor.
        metrics: For a model of several outputs, dictionary from output to the value of its metric.
        sparse_speed: Of a `.tflite` file with a kernel of more than two thirds of zeros, whether XNNPACK's sparse
            kernels make use of them on Arm, and what of that can be measured here; None of others.
        brotli_bytes: Size of the file compressed by Brotli, at quality 10, or at 9 where it is larger than 4 MB or zip
            saves less than a tenth; None where Brotli (the extra `pack`) is not installed.
    """

    name: str
    kind: str
    path: pathlib.Path | None
    bytes: int
    zipped_bytes: int
    parameters: int
    metric: float | None
    latency_ms: float | None
    tensors: tuple[TensorStats, ...]
    metrics: Mapping[str, float] = dataclasses.field(default_factory=dict)
    sparse_speed: SparseSpeed | None = None
    brotli_bytes: int | None = None

    @property
    def sparsity(self) -> float:
        """Share of zeros among the values of the kernels: the weights of two or more dimensions."""
        return share_of_zeros(self.tensors, kernels_only=True)

    @property
    def overall_sparsity(self) -> float:
        """Share of zeros among all parameters, biases and normalization included."""
        return share_of_zeros(self.tensors, kernels_only=False)

    @property
    def palette_bytes(self) -> int:
        """Bytes of all weight tensors, each as a palette and indices where that is less than its values."""
        return sum(tensor.palette_bytes for tensor in self.tensors)

    @property
    def has_palettes(self) -> bool:
        """Whether palettes would save a tenth of the weights' bytes or more, as they do after clustering."""
        return self.palette_bytes < 0.9 * sum(tensor.bytes for tensor in self.tensors)

    def to_dict(self) -> dict[str, Any]:
        """The measurement as a dictionary of JSON values."""
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        values["path"] = None if self.path is None else str(self.path)
        values["metric"] = _finite_or_none(self.metric)
        values["metrics"] = {name: _finite_or_none(value) for name, value in self.metrics.items()}
        values["sparsity"], values["overall_sparsity"] = self.sparsity, self.overall_sparsity
        values["palette_bytes"] = self.palette_bytes
        values["sparse_speed"] = None if self.sparse_speed is None else self.sparse_speed.to_dict()
        values["tensors"] = [
            {
                **dataclasses.asdict(tensor),
                "shape": list(tensor.shape),
                "sparsity": tensor.sparsity,
                "palette_bytes": tensor.palette_bytes,
            }
            for tensor in self.tensors
        ]
        return values


@dataclasses.dataclass(frozen=True)
class Report(ShownAsTable):
    """Measurements side by side; `print(report)` shows them as a table, `report["name"]` finds one.

    Attributes:
        measurements: The `Measurement` rows, in the order of the subjects.
        metric_name: Name of the metric, or None if none was computed.
        samples: Number of samples that the metric was computed over.
        latency_runs: Number of timed runs of each file.
        num_threads: Number of threads of the runtime.
        metric_names: For outputs that are judged by metrics of their own, dictionary from output to metric.
    """

    measurements: tuple[Measurement, ...]
    metric_name: str | None
    samples: int
    latency_runs: int
    num_threads: int
    metric_names: Mapping[str, str] = dataclasses.field(default_factory=dict)

    def __iter__(self) -> Iterator[Measurement]:
        return iter(self.measurements)

    def __len__(self) -> int:
        return len(self.measurements)

    def __getitem__(self, name: str) -> Measurement:
        for measurement in self.measurements:
            if measurement.name == name:
                return measurement
        raise KeyError(f"No measurement is named {name!r}. Expected one of {[row.name for row in self.measurements]}.")

    def to_dict(self) -> dict[str, Any]:
        """The report as a dictionary of JSON values."""
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        values["measurements"] = [measurement.to_dict() for measurement in self.measurements]
        return values

    def to_markdown(self) -> str:
        """The report as a Markdown table, followed by a line on how it was taken, and what is to be said of zeros."""
        notes = "".join(f"\n{note}\n" for note in self._notes())
        return markdown_table(*self._table(), caption=self._caption()) + notes

    def __str__(self) -> str:
        return "\n".join([super().__str__(), *map(wrapped, self._notes())])

    def _notes(self):
        return [f"{row.name}: {row.sparse_speed}." for row in self if row.sparse_speed is not None]

    def _table(self):
        """Headers and rows of text; columns that nobody has a value for are left out."""
        columns = {
            "model": [row.name for row in self],
            "bytes": [f"{row.bytes:,}" for row in self],
            "zipped": [f"{row.zipped_bytes:,}" for row in self],
            **brotli_column(self),
            "parameters": [f"{row.parameters:,}" for row in self],
            "sparsity": [f"{row.sparsity:.1%}" for row in self],
            "overall": [f"{row.overall_sparsity:.1%}" for row in self],
        }
        if any(row.has_palettes for row in self):
            columns["palettes"] = [f"{row.palette_bytes:,}" if row.has_palettes else "-" for row in self]
        if self.metric_name is not None:
            columns[self.metric_name] = [_shown(row.metric) for row in self]
            for output in dict.fromkeys(name for row in self for name in row.metrics):
                metric = f"{self.metric_names[output]} of " if output in self.metric_names else ""
                columns[f"{metric}'{output}'"] = [_shown(row.metrics.get(output)) for row in self]
        if any(row.latency_ms is not None for row in self):
            columns["ms"] = ["-" if row.latency_ms is None else f"{row.latency_ms:.3f}" for row in self]
        return list(columns), [list(row) for row in zip(*columns.values(), strict=True)]

    def _caption(self):
        parts = [
            "zipped: zip, DEFLATE level 9",
            "sparsity: zeros in kernels (two or more dimensions)",
            "overall: zeros in all parameters",
        ]
        if brotli_column(self):
            parts.insert(1, BROTLI)
        if any(row.has_palettes for row in self):
            parts.append("palettes: bytes of the weights as palettes and indices")
        if self.metric_name is not None:
            parts.append(f"{self.metric_name}: over {self.samples:,} samples")
        if any(row.latency_ms is not None for row in self):
            threads = f"{self.num_threads} thread" + ("s" if self.num_threads > 1 else "")
            kinds = dict.fromkeys(row.kind for row in self if row.latency_ms is not None)
            runtimes = " and ".join(FORMATS[kind].runtime for kind in kinds)
            parts.append(f"ms: median of {self.latency_runs} runs, one sample, {threads}, {runtimes}")
        return "; ".join(parts) + "."


def _shown(value):
    return "-" if value is None else f"{value:.4f}"


def _finite_or_none(value):
    return None if value is None or not math.isfinite(value) else value
