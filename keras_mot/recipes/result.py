"""What a run of a recipe gave: values first, a table second."""

import dataclasses
import pathlib
from typing import Any

import keras

from keras_mot._tables import markdown_table, text_table


@dataclasses.dataclass(frozen=True)
class StageResult:
    """What was measured after a stage.

    Attributes:
        name: of the stage; "float" for the model that the recipe began with.
        keras_metric: the metric of the Keras model, which simulates what the file computes.
        metric: the metric of the file, computed by its runtime.
        samples: number of samples that the metrics were computed over.
        bytes: size of the file.
        zipped_bytes: size of a zip archive (DEFLATE, level 9) that holds the file.
        sparsity: share of zeros among the kernels in the file.
        values: most different values of a kernel in the file.
        values_of_kernels: dictionary from the name of each kernel in the file to how many different values it has.
        latency_ms: median milliseconds for one sample in the runtime, one thread; `None` if nothing was timed.
        seconds: that the stage took, training included, measuring not.
        artifact: path of the `.tflite` file.
        model_path: path of the `.keras` file, with the transforms of the stage.
    """

    name: str
    keras_metric: float
    metric: float
    samples: int
    bytes: int
    zipped_bytes: int
    sparsity: float
    values: int
    values_of_kernels: dict[str, int]
    latency_ms: float | None
    seconds: float
    artifact: pathlib.Path
    model_path: pathlib.Path

    def to_dict(self) -> dict[str, Any]:
        """The result as JSON values; paths as names within the folder of the run."""
        return {
            **dataclasses.asdict(self),
            "artifact": self.artifact.name,
            "model_path": self.model_path.name,
        }


@dataclasses.dataclass(frozen=True)
class CompressionResult:
    """The result of `compress`; `print(result)` shows it stage by stage.

    Attributes:
        model: the Keras model after the last stage: a plain one, or a quantized one, which `keras_mot.export` takes.
        stages: a `StageResult` for the float model and each stage.
        recipe: name of the recipe.
        metric_name: name of the metric.
        output_dir: folder with all files.
    """

    model: keras.Model
    stages: tuple[StageResult, ...]
    recipe: str
    metric_name: str
    output_dir: pathlib.Path

    @property
    def artifact(self) -> pathlib.Path:
        """Path of the last `.tflite` file."""
        return self.stages[-1].artifact

    @property
    def samples(self) -> int:
        """Number of samples that the metric was computed over."""
        return self.stages[-1].samples

    @property
    def ratio(self) -> float:
        """How many times smaller than the float file the last one is, both zipped."""
        return self.stages[0].zipped_bytes / self.stages[-1].zipped_bytes

    def __getitem__(self, name: str) -> StageResult:
        for stage in self.stages:
            if stage.name == name:
                return stage
        raise KeyError(f"No stage is named {name!r}. Expected one of {[stage.name for stage in self.stages]}.")

    def to_dict(self) -> dict[str, Any]:
        """The result as JSON values."""
        return {
            "recipe": self.recipe,
            "metric_name": self.metric_name,
            "samples": self.samples,
            "output_dir": str(self.output_dir),
            "ratio": self.ratio,
            "stages": [stage.to_dict() for stage in self.stages],
        }

    def to_markdown(self) -> str:
        """The result as a Markdown table, followed by a line on how it was measured."""
        return markdown_table(*self._table(), caption=self._caption())

    def __str__(self) -> str:
        return text_table(*self._table(), caption=self._caption())

    def _table(self):
        columns = {
            "stage": [stage.name for stage in self.stages],
            f"{self.metric_name}, Keras": [f"{stage.keras_metric:.4f}" for stage in self.stages],
            f"{self.metric_name}, runtime": [f"{stage.metric:.4f}" for stage in self.stages],
            "bytes": [f"{stage.bytes:,}" for stage in self.stages],
            "zipped": [f"{stage.zipped_bytes:,}" for stage in self.stages],
            "sparsity": [f"{stage.sparsity:.1%}" for stage in self.stages],
            "values": [f"{stage.values:,}" for stage in self.stages],
            "ms": ["-" if stage.latency_ms is None else f"{stage.latency_ms:.3f}" for stage in self.stages],
            "s": [f"{stage.seconds:.0f}" for stage in self.stages],
        }
        return list(columns), [list(row) for row in zip(*columns.values(), strict=True)]

    def _caption(self):
        return (
            f"recipe '{self.recipe}': {self.ratio:.1f} times smaller, zipped (DEFLATE, level 9); {self.metric_name} "
            f"over {self.samples:,} samples; sparsity: zeros in kernels; values: most different ones in a kernel; ms: "
            "one sample, one thread, LiteRT; s: of the stage."
        )
