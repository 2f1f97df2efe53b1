"""`report`: a model and its files, measured and told on one page."""

import os
import platform
from collections.abc import Callable, Mapping
from typing import Any

import keras

from keras_mot._formats import FORMATS
from keras_mot._messages import describe
from keras_mot._packages import installed_version
from keras_mot._version import __version__
from keras_mot.analysis._measure import measure
from keras_mot.analysis.metrics import make_metric
from keras_mot.analysis.reporting.contents import Candidate, ModelReport, Variant, check_page
from keras_mot.analysis.reporting.gathering import Made, gather
from keras_mot.analysis.sensitivity_report import Sensitivity
from keras_mot.analysis.subjects import Subject
from keras_mot.data.pairs import check_data, head_of, is_pair
from keras_mot.export import LiteRTExport
from keras_mot.layers.activation_quantizer import is_quantized

_SAMPLES = 256  # that ranges and drift are looked at with


def report(
    model: keras.Model,
    artifacts: Mapping[str, Subject] | Subject,
    data: Any = None,
    path: str | os.PathLike | None = None,
    *,
    metric: str | keras.metrics.Metric | Callable[[Any, Any], float] | Mapping[str, Any] | None = "accuracy",
    sensitivity: Sensitivity | None = None,
    latency_runs: int = 50,
    progress: bool = True,
) -> ModelReport:
    """Measures a model's files, and tells on one page what was gained, what it cost, and where.

    The page is one HTML file without scripts that loads nothing: for a phone, for print, for a dark screen. What
    `compress` and `search` return has a `report` of its own, which knows the stages.

    Args:
        model: the Keras model that the last artifact was made from: quantized, or with masks and codebooks attached, if
            it has them. It is not changed.
        artifacts: dictionary of names and files, results of exports, or Keras models. The first is what the others are
            compared with, such as the file of the float model; the last is what the report is about.
        data: a tuple (x, y) of arrays, or batches (x, y) that can be gone through more than once: what the metric is
            computed on. By their inputs, ranges of activations and the drift of integer files are looked at. None, the
            default, leaves all of that out.
        path: of the page, ending in `.html`; `None` writes nothing.
        metric: as of `measure`.
        sensitivity: what `keras_mot.analysis.sensitivity` found for the float model, to be shown.
        latency_runs: number of timed runs of each file; 0 to time nothing.
        progress: whether to show a progress bar.

    Returns:
        A `ModelReport`: `save("report.html")`, `to_json("report.json")`, `to_dict()`.

    Raises:
        ImportError: Matplotlib is not installed, and a page is asked for.
        TypeError: an argument is of the wrong type.
        ValueError: a file is damaged, the data do not fit, or no page can be written at `path`.

    Example:

    ```python
    files = {"float": export_litert(model, "float.tflite"), "int8": export_litert(quantized, "int8.tflite")}
    keras_mot.analysis.report(quantized, files, (x_test, y_test), "report.html")
    ```
    """
    if path is not None:
        path = check_page(path)
    if not isinstance(model, keras.Model):
        raise TypeError(f"`report` expects a Keras model; received {describe(model)}.")
    if sensitivity is not None and not isinstance(sensitivity, Sensitivity):
        raise TypeError(f"`sensitivity` should be what `sensitivity` returned; received {describe(sensitivity)}.")
    named = dict(artifacts) if isinstance(artifacts, Mapping) else {_name_of(artifacts): artifacts}
    if data is not None:
        check_data(data)
        if not is_pair(data) and iter(data) is data:
            raise ValueError("`data` can be gone through once only: pass arrays, or batches that can be repeated.")
    measured = measure(named, data=data, metric=metric, latency_runs=latency_runs, progress=progress)
    exports = list(named.values())
    variants = [_variant(row, export) for row, export in zip(measured, exports, strict=True)]
    made = Made(
        title=model.name,
        before=exports[0],
        after=exports[-1],
        model=model,
        inputs=None if data is None or not is_quantized(model) else head_of(data, _SAMPLES)[0],
        in_floats=tuple(getattr(exports[-1], "float_operators", ())),
        settings=environment(),
        sensitivity=sensitivity,
    )
    better = measured.metric_name is None or make_metric(metric).greater_is_better
    found = gather(
        made,
        variants,
        candidates_of(variants),
        metric_name=measured.metric_name,
        greater_is_better=better,
        samples=measured.samples,
        runtime=_runtime(measured),
    )
    if path is not None:
        found.save(path)
    return found


def candidates_of(variants: list[Variant]) -> list[Candidate]:
    """The variants that have a metric, as candidates."""
    return [
        Candidate(each.name, each.zipped_bytes, each.metric, each.group, each is variants[-1])
        for each in variants
        if each.metric is not None
    ]


def environment() -> dict[str, str]:
    """The versions that a result depends on."""
    names = {"TensorFlow": "tensorflow", "JAX": "jax", "PyTorch": "torch", "LiteRT": "ai_edge_litert"}
    names |= {"ONNX Runtime": "onnxruntime", "NumPy": "numpy"}
    versions = {label: installed_version(module) for label, module in names.items()}
    known = {"keras-mot": __version__, "Keras": keras.__version__, **versions, "Python": platform.python_version()}
    told = ", ".join(f"{name} {version}" for name, version in known.items() if version)
    return {
        "Versions": told,
        "Backend": keras.backend.backend(),
        "Machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} processors",
    }


def timed_in(kinds: Any, runs: int | None, threads: int) -> str:
    """How latencies were taken, in words; `runs` may not be known."""
    runtimes = " and ".join(FORMATS[kind].runtime for kind in dict.fromkeys(kinds))
    median = "median" if runs is None else f"median of {runs} runs"
    return f"{runtimes}, {median}, {threads} thread{'s' if threads > 1 else ''}, on the machine that measured"


def _runtime(measured):
    kinds = [row.kind for row in measured if row.latency_ms is not None]
    return timed_in(kinds, measured.latency_runs, measured.num_threads) if kinds else ""


def _name_of(artifact):
    path = getattr(artifact, "path", artifact)
    if isinstance(artifact, keras.Model):
        return artifact.name
    return os.path.basename(path) if isinstance(path, str | os.PathLike) else describe(artifact)


def _variant(row, export):
    kernels = [tensor.unique_values for tensor in row.tensors if tensor.is_kernel]
    return Variant(
        name=row.name,
        kind=row.kind,
        bytes=row.bytes,
        zipped_bytes=row.zipped_bytes,
        sparsity=row.sparsity,
        values=max(kernels, default=0),
        metric=row.metric,
        metrics=dict(row.metrics),
        latency_ms=row.latency_ms,
        file="" if row.path is None else row.path.name,
        weights=export.weights if isinstance(export, LiteRTExport) else _weights(row),
        brotli_bytes=row.brotli_bytes,
        arena_bytes=getattr(export, "arena_bytes", None),
        verification=getattr(export, "verification", ""),
    )


def _weights(row):
    """How the weights of a file are stored, by the types of its kernels."""
    kinds = {tensor.dtype for tensor in row.tensors if tensor.is_kernel}
    if kinds and all(kind.startswith(("int", "uint")) for kind in kinds):
        return "integer"
    return ", ".join(sorted(kinds))
