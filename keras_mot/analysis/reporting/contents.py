"""What a report says: numbers first, the page second."""

import dataclasses
import json
import math
import os
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from keras_mot._files import writable_file, write_text
from keras_mot._packages import require_matplotlib
from keras_mot.analysis._drift import DriftReport
from keras_mot.analysis._tensors import TensorStats
from keras_mot.analysis.activation_ranges import ActivationRange
from keras_mot.analysis.operator_times import OperatorTime
from keras_mot.analysis.sensitivity_report import Sensitivity
from keras_mot.analysis.weight_histograms import WeightHistogram

_SUFFIXES = (".html", ".htm")


@dataclasses.dataclass(frozen=True)
class Variant:
    """A form of the model: a file, and what was measured of it.

    Attributes:
        name: of the stage, the trial, or the file.
        kind: "keras", or the format of the file.
        bytes: size of the file.
        zipped_bytes: size of a zip archive (DEFLATE, level 9) that holds it.
        sparsity: share of zeros among the kernels.
        values: most different values of a kernel.
        metric: in the runtime; `None` if it was not measured.
        metrics: of a model of several outputs, dictionary from output to metric.
        latency_ms: median milliseconds for one sample; `None` if it was not timed.
        keras_metric: of the Keras model that simulates the file; `None` if it was not measured.
        seconds: that it took to make it; `None` if that is not known.
        file: name of the file; empty if there is none.
        weights: how the weights are stored, in words.
        group: what it is a variant by, such as the family of a search's trial.
        collapsed: whether it has lost more than a recipe that suits a model loses.
        brotli_bytes: size of the file compressed by Brotli; `None` where that is not installed.
        arena_bytes: of a file for microcontrollers, the smallest arena that it runs in; `None` of others.
        verification: what of the file was compared with the model when it was written, in words.
    """

    name: str
    kind: str
    bytes: int
    zipped_bytes: int
    sparsity: float
    values: int
    metric: float | None = None
    metrics: Mapping[str, float] = dataclasses.field(default_factory=dict)
    latency_ms: float | None = None
    keras_metric: float | None = None
    seconds: float | None = None
    file: str = ""
    weights: str = ""
    group: str = ""
    collapsed: bool = False
    brotli_bytes: int | None = None
    arena_bytes: int | None = None
    verification: str = ""


@dataclasses.dataclass(frozen=True)
class Candidate:
    """Something that was tried: a stage, a file, or a trial of a search.

    Attributes:
        name: what it is called.
        zipped_bytes: of its file.
        metric: in the runtime.
        group: those of one group have one colour.
        chosen: whether the report is about it.
    """

    name: str
    zipped_bytes: int
    metric: float
    group: str = ""
    chosen: bool = False


@dataclasses.dataclass(frozen=True)
class KernelChange:
    """A kernel before and after.

    Attributes:
        name: of the weight, as in the file.
        before: `TensorStats` of it in the float model; `None` where it cannot be told which one it was.
        after: `TensorStats`.
        bits: of a stored value.
        histogram: how its values lie; those that are not finite are counted as zeros.
        finite: whether all of them are.
        picture: the share of weights that are left, point by point, 0 to 1; `None` without zeros.
    """

    name: str
    before: TensorStats | None
    after: TensorStats
    bits: int
    histogram: WeightHistogram
    finite: bool = True
    picture: np.ndarray | None = dataclasses.field(default=None, repr=False, compare=False)

    def to_dict(self) -> dict[str, Any]:
        """The change as JSON values, without the picture."""
        sides = {
            side: None if stats is None else {**dataclasses.asdict(stats), "sparsity": stats.sparsity}
            for side, stats in (("before", self.before), ("after", self.after))
        }
        own = {"name": self.name, "bits": self.bits, "finite": self.finite}
        return {**own, **sides, "histogram": dataclasses.asdict(self.histogram)}


@dataclasses.dataclass(frozen=True)
class Advice:
    """Something that the reader should know.

    Attributes:
        what: what was found.
        then: what to do.
        serious: whether the result should not be used as it is.
    """

    what: str
    then: str
    serious: bool = False


@dataclasses.dataclass(frozen=True)
class ModelReport:
    """All that a report says. `save("report.html")` writes the page, `to_json("report.json")` the same numbers.

    Attributes:
        title: name of the model.
        headline: one sentence: how much smaller and faster, and what it cost.
        details: what belongs to it, sentence by sentence.
        variants: the `Variant`s, first what others are compared with, last what the report is about.
        candidates: all that was tried, as `Candidate`s: the variants, or the trials of a search.
        metric_name: name of the metric; `None` if none was computed.
        greater_is_better: whether more of it is better.
        samples: number of samples that it was computed over.
        runtime: what was timed, in words; empty if nothing was.
        kernels: a `KernelChange` for each weight of two or more dimensions.
        operators: triples of (operator, type of what it computes, how often) in the last file.
        in_floats: triples of (operator, layer, reason) of what an integer file computes in floats.
        left_alone: triples of (technique, weight, reason).
        ranges: an `ActivationRange` for each place where activations are rounded.
        drift: a `DriftReport`, or `None`.
        sensitivity: a `Sensitivity`, or `None`.
        advice: tuple of `Advice`, the serious first.
        settings: dictionary of texts: what it takes to repeat the run.
        missing: dictionary from what the report could have, to why it has not.
        operator_times: an `OperatorTime` for each operator of the last file, if files were timed.
    """

    title: str
    headline: str
    details: tuple[str, ...]
    variants: tuple[Variant, ...]
    candidates: tuple[Candidate, ...]
    metric_name: str | None
    greater_is_better: bool
    samples: int
    runtime: str
    kernels: tuple[KernelChange, ...]
    operators: tuple[tuple[str, str, int], ...]
    in_floats: tuple[tuple[str, str, str], ...]
    left_alone: tuple[tuple[str, str, str], ...]
    ranges: tuple[ActivationRange, ...]
    drift: DriftReport | None
    sensitivity: Sensitivity | None
    advice: tuple[Advice, ...]
    settings: Mapping[str, str]
    missing: Mapping[str, str]
    operator_times: tuple[OperatorTime, ...] = ()

    @property
    def before(self) -> Variant:
        """What others are compared with."""
        return self.variants[0]

    @property
    def after(self) -> Variant:
        """What the report is about."""
        return self.variants[-1]

    def to_dict(self) -> dict[str, Any]:
        """The report as a dictionary of JSON values; numbers that are not finite are `None`."""
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        for name in ("variants", "candidates", "ranges", "advice", "operator_times"):
            values[name] = [dataclasses.asdict(each) for each in values[name]]
        values["kernels"] = [kernel.to_dict() for kernel in self.kernels]
        for name in ("drift", "sensitivity"):
            values[name] = None if values[name] is None else values[name].to_dict()
        return _finite(values)

    def to_json(self, path: str | os.PathLike | None = None) -> str:
        """The report as JSON text, which is also written to `path`, if one is given."""
        text = json.dumps(self.to_dict(), indent=1, allow_nan=False)
        if path is not None:
            write_text(writable_file(path, (".json",), exact=True), text + "\n")
        return text

    def to_html(self) -> str:
        """The page: one HTML document of less than 2 MB, without scripts, that loads nothing.

        Raises:
            ImportError: if Matplotlib is not installed.
        """
        from keras_mot.analysis.reporting.page import page_of

        return page_of(self)

    def save(self, path: str | os.PathLike) -> pathlib.Path:
        """Writes the page, as a whole or not at all.

        Args:
            path: of the page, ending in `.html`; a file of that name is replaced.

        Returns:
            The path.

        Raises:
            ImportError: if Matplotlib is not installed.
            ValueError: if no such file can be written.
        """
        path = check_page(path)
        write_text(path, self.to_html())
        return path

    def __str__(self) -> str:
        return "\n".join([self.headline, *self.details, *(f"{each.what} {each.then}" for each in self.advice)])


def check_page(path: str | os.PathLike) -> pathlib.Path:
    """The path of a page that can be written and drawn; raises an error before any work otherwise."""
    require_matplotlib()
    return writable_file(path, _SUFFIXES, exact=True)


def _finite(value):
    """JSON values, `None` in the place of what JSON has no number for."""
    if isinstance(value, Mapping):
        return {str(key): _finite(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(each) for each in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
