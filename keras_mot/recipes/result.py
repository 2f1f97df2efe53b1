"""What a run of a recipe gave: values first, a table second."""

import dataclasses
import math
import os
import pathlib
from typing import Any

import keras

from keras_mot import analysis
from keras_mot._formats import DEFAULT
from keras_mot._tables import ShownAsTable, markdown_table
from keras_mot.analysis.brotli import BROTLI, brotli_column
from keras_mot.export import EthosUFile
from keras_mot.recipes.fine_tuning import check_number

_MARK = " (!)"
_ROUNDING = 1e-9  # 0.99 - 0.98 is more than 0.01 in binary


@dataclasses.dataclass(frozen=True)
class StageResult:
    """What was measured after a stage.

    Attributes:
        name: of the stage; "float" for the model that the recipe began with.
        keras_metric: the metric of the Keras model, which simulates what the file computes.
        metric: the metric of the file, computed by its runtime; where there is none, of the Keras model.
        samples: number of samples that the metrics were computed over.
        bytes: size of the file.
        zipped_bytes: size of a zip archive (DEFLATE, level 9) that holds the file.
        sparsity: share of zeros among the kernels in the file.
        values: most different values of a kernel in the file.
        values_of_kernels: dictionary from the name of each kernel in the file to how many different values it has.
        latency_ms: median milliseconds for one sample in the runtime, one thread; `None` if nothing was timed.
        seconds: that the stage took, training included, measuring not.
        artifact: path of the exported file; the `.keras` file of a stage in floats that LiteRT has no kernels for.
        model_path: path of the `.keras` file, with the transforms of the stage.
        metrics: of a model of several outputs, dictionary from output to the metric of the file.
        collapsed: whether the file has lost more than a tenth of the float file's metric, or, where less is better, has
            more than twice its error; of several outputs, whether one has.
        weights: of the file: "float32", "float16", "int8" beside float activations, or "integer".
        sparse_encoding: whether the file leaves out its zeros.
        float_operators: of an integer file, what it computes in floats: (operator, layer, reason) of each.
        brotli_bytes: size of the file compressed by Brotli, as of `keras_mot.analysis.Measurement`; `None` where that
            is not installed.
        arena_bytes: of a file for microcontrollers, the smallest arena that it runs in; `None` of others.
        verification: what of the file was compared with the model when it was written, and how near it is, in words.
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
    metrics: dict[str, float] = dataclasses.field(default_factory=dict)
    collapsed: bool = False
    weights: str = "float32"
    sparse_encoding: bool = False
    float_operators: tuple[tuple[str, str, str], ...] = ()
    brotli_bytes: int | None = None
    arena_bytes: int | None = None
    verification: str = ""

    @property
    def has_file(self) -> bool:
        """Whether there is a file for the runtime; without, what is measured is the Keras model."""
        return self.artifact != self.model_path

    def to_dict(self) -> dict[str, Any]:
        """The result as JSON values; paths as names within the folder of the run."""
        return {
            **dataclasses.asdict(self),
            "artifact": self.artifact.name,
            "model_path": self.model_path.name,
        }


@dataclasses.dataclass(frozen=True)
class CompressionResult(ShownAsTable):
    """The result of `compress`; `print(result)` shows it stage by stage.

    Attributes:
        model: the Keras model after the last stage: a plain one, or a quantized one, which `keras_mot.export` takes.
        stages: a `StageResult` for the float model and each stage.
        recipe: name of the recipe.
        metric_name: name of the metric.
        output_dir: folder with all files.
        greater_is_better: whether more of the metric is better.
        compiled: for a target with an NPU, the `keras_mot.export.EthosUFile` made of the last file, or `None`.
        examples: some inputs that ranges were calibrated on, arrays in the structure of the model's inputs, for
            `report`; `None` in a result that was read from a folder.
    """

    model: keras.Model
    stages: tuple[StageResult, ...]
    recipe: str
    metric_name: str
    output_dir: pathlib.Path
    greater_is_better: bool = True
    compiled: EthosUFile | None = None
    examples: Any = dataclasses.field(default=None, repr=False, compare=False, kw_only=True)

    @property
    def artifact(self) -> pathlib.Path:
        """Path of the last exported file: what the recipe leads to, whether it is the best or not. See `best`."""
        return self.stages[-1].artifact

    def best(self, max_drop: float | None = None, *, zipped: bool = True) -> StageResult:
        """The smallest file among those whose metric, in the runtime, is near enough to the float file's.

        Args:
            max_drop: how much less than the float file's the metric may be, in its own unit: 0.01 is a point of
                accuracy. Where less is better, how much more. By default 0.01, or a tenth of the float file's error.
                For several outputs it is about the one number, `metric`; files of which another output has collapsed
                are left out.
            zipped: whether files are compared as zip archives, as they are downloaded, or as they are stored.

        Returns:
            The `StageResult`, which may be that of the float model if no other that is near enough is smaller.

        Raises:
            TypeError: if `max_drop` is no number.
            ValueError: if it is negative, or no stage but the float model is near enough.

        Example:

        ```python
        small = result.best(max_drop=0.02)
        print(small.name, small.artifact)
        ```
        """
        if max_drop is None:
            max_drop = 0.01 if self.greater_is_better else 0.1 * abs(self.stages[0].metric)
        check_number("max_drop", max_drop, 0.0, math.inf)
        near = [stage for stage in self.stages if self.drop(stage) <= max_drop + _ROUNDING]
        if any(stage.metrics for stage in near):  # the one number may hide that another output is lost
            near = [stage for stage in near if not stage.collapsed]
        if all(stage is self.stages[0] for stage in near):
            drops = ", ".join(f"'{stage.name}' {self.drop(stage):.4g}" for stage in self.stages[1:])
            raise ValueError(
                f"No stage stays within {max_drop:.4g} of the float file's {self.metric_name}, "
                f"{self.stages[0].metric:.4g}. They are worse by: {drops}. Allow a larger `max_drop`, or compress less."
            )
        return min(near, key=lambda stage: stage.zipped_bytes if zipped else stage.bytes)

    def drop(self, stage: StageResult) -> float:
        """By how much the metric of a stage's file is worse than that of the float file; below 0 if it is better.

        Args:
            stage: one of `stages`.

        Returns:
            The difference, in the unit of the metric; infinite if the stage's is no number.
        """
        difference = self.stages[0].metric - stage.metric
        if math.isnan(difference):
            return math.inf
        return difference if self.greater_is_better else -difference

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
        """The result as JSON values; `best` is the name of the stage that `best()` returns, or `None`."""
        try:
            best = self.best().name
        except ValueError:
            best = None
        return {
            "recipe": self.recipe,
            "metric_name": self.metric_name,
            "samples": self.samples,
            "output_dir": str(self.output_dir),
            "ratio": self.ratio,
            "greater_is_better": self.greater_is_better,
            "best": best,
            "stages": [stage.to_dict() for stage in self.stages],
            "compiled": None if self.compiled is None else self.compiled.to_dict(),
        }

    def report(
        self,
        path: str | os.PathLike | None = None,
        *,
        data: Any = None,
        sensitivity: analysis.Sensitivity | None = None,
    ) -> analysis.ModelReport:
        """The result on one page, to be sent: what was gained, what it cost, where, and how to repeat it.

        The page is one HTML file without scripts that loads nothing: for a phone, for print, for a dark screen.

        Args:
            path: of the page, ending in `.html`; `None` writes nothing.
            data: typical inputs (or a tuple (x, y), of which x is taken), by which ranges of activations and the drift
                of the last file are looked at; by default `examples`.
            sensitivity: what `keras_mot.analysis.sensitivity` found for the float model, to be shown; by default what a
                search has found.

        Returns:
            A `ModelReport`: `save("report.html")`, `to_json("report.json")`, `to_dict()`.

        Raises:
            ImportError: if Matplotlib is not installed, and a page is asked for.
            TypeError: if `sensitivity` or the data are of the wrong type.
            ValueError: if files of the run are gone or damaged, the data do not fit the model, or no page can be
                written at `path`.

        Example:

        ```python
        result = keras_mot.compress(model, "balanced", (x_train, y_train), (x_test, y_test))
        result.report("report.html")
        ```
        """
        from keras_mot.recipes.reporting import report_of

        return report_of(self, path, data, sensitivity)

    def to_markdown(self) -> str:
        """The result as a Markdown table, followed by a line on how it was measured."""
        compiled = "" if self.compiled is None else f"\n```\n{self.compiled}\n```\n"
        return markdown_table(*self._table(), caption=self._caption()) + compiled

    def __str__(self) -> str:
        return super().__str__() + ("" if self.compiled is None else f"\n{self.compiled}")

    def _table(self):
        metric = self.metric_name.split(" of ")[0]  # of which output the caption says
        columns = {
            "stage": [stage.name for stage in self.stages],
            f"{metric}, Keras": [f"{stage.keras_metric:.4f}" for stage in self.stages],
            f"{metric}, runtime": [f"{stage.metric:.4f}{_MARK if stage.collapsed else ''}" for stage in self.stages],
            **{f"'{name}'": [f"{stage.metrics[name]:.4f}" for stage in self.stages] for name in self.stages[0].metrics},
            "bytes": [f"{stage.bytes:,}" for stage in self.stages],
            "zipped": [f"{stage.zipped_bytes:,}" for stage in self.stages],
            **brotli_column(self.stages),
            "sparsity": [f"{stage.sparsity:.1%}" for stage in self.stages],
            "values": [f"{stage.values:,}" for stage in self.stages],
            **self._arenas(),
            "ms": ["-" if stage.latency_ms is None else f"{stage.latency_ms:.3f}" for stage in self.stages],
            "s": [f"{stage.seconds:.0f}" for stage in self.stages],
        }
        return list(columns), [list(row) for row in zip(*columns.values(), strict=True)]

    def _arenas(self):
        """The column of arenas, where there are any."""
        arenas = [stage.arena_bytes for stage in self.stages]
        return {"arena": ["-" if each is None else f"{each:,}" for each in arenas]} if any(arenas) else {}

    def _caption(self):
        mark = ""
        if any(stage.collapsed for stage in self.stages):
            lost = "less than nine tenths of the float's" if self.greater_is_better else "more than twice the float's"
            outputs = ", of an output at least" if self.stages[0].metrics else ""
            mark = f"{_MARK.strip()}: {lost}{outputs}; "
        brotli = f"{BROTLI}; " if brotli_column(self.stages) else ""
        arena, elsewhere = "", ""
        if self._arenas():
            arena = "arena: bytes of memory in TFLM; "
            elsewhere = " on the machine that measured, not on the microcontroller"
        elif not all(stage.has_file for stage in self.stages):
            elsewhere = ", or Keras where that cannot run a stage in floats"
        names = "'...': the outputs, in the runtime; " if self.stages[0].metrics else ""
        return (
            f"recipe '{self.recipe}': {self.ratio:.1f} times smaller, zipped (DEFLATE, level 9); {self.metric_name} "
            f"over {self.samples:,} samples; {mark}{names}sparsity: zeros in kernels; values: most different ones in a "
            f"kernel; {brotli}{arena}ms: one sample, one thread, {DEFAULT.runtime}{elsewhere}; s: of the stage."
        )
