"""Measures models and files side by side."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import keras

from keras_mot._formats import DEFAULT
from keras_mot._numbers import check_whole
from keras_mot._progress import progress_bar
from keras_mot._retracing import without_retracing_warnings
from keras_mot.analysis._latency import median_latencies
from keras_mot.analysis._sizes import zipped_bytes
from keras_mot.analysis._tensors import TensorStats, share_of_zeros
from keras_mot.analysis.brotli import brotli_bytes
from keras_mot.analysis.measurements import Measurement, Report
from keras_mot.analysis.metrics import make_metric
from keras_mot.analysis.subjects import Subject, collect, open_subject, start
from keras_mot.data.arrays import part, sample_count
from keras_mot.data.pairs import batches, check_data, count_batches
from keras_mot.export.litert.sparse.speed import sparse_speed

_OF_KERNELS = 0.02
"""Share of the values of all kernels below which those with many zeros are not spoken of."""


def measure(
    *subjects: Subject | Mapping[str, Subject],
    data: tuple[Any, Any] | Iterable[tuple[Any, Any]] | None = None,
    metric: str | keras.metrics.Metric | Callable[[Any, Any], float] | Mapping[str, Any] | None = "accuracy",
    batch_size: int = 32,
    latency_runs: int = 50,
    num_threads: int = 1,
    progress: bool = True,
) -> Report:
    """Measures size, sparsity, quality and latency of models and files, side by side.

    A file is judged by what its runtime computes, not by the model that it was made from. A `.tflite` file that
    this process has not exported runs in a child process, where it is timed too; without data and with
    `latency_runs=0`, files are read but not run.

    A `.tflite` file with weights that are compressed for microcontrollers runs in TFLM, as by `MicroRunner`, and is not
    timed.

    Latency is given for runtime artifacts only, which are `.tflite` files here; for Keras models, in memory
    or in `.keras` files, it is None. The time of a Keras model is that of Python and of the backend it
    happens to run on, says nothing about the device it is deployed to, and beside the time of a runtime it
    would invite a comparison of the two.

    Args:
        *subjects: Keras models, paths of `.keras`, `.tflite` or `.onnx` files, or results of `export_litert`; or one
            dictionary of names and these.
        data: A tuple (x, y) of arrays, or an iterable of batches (x, y), which is gone through once. For
            several inputs, x is a list in the model's order or a dictionary of input names, and for several outputs so
            is y. None, the default, computes no metric.
        metric: "accuracy" (the largest score wins; a single score above 0.5 means class 1); "f1", "precision",
            "recall" or "auc" (of several classes, the mean over classes; of one score, class 1 begins above 0.5, or
            above 0 if it is no probability); "top5" or another number; "mae", "mse", "rmse" or "r2"; the name of a
            Keras metric; a `keras.metrics.Metric`; a function (y_true, y_pred) -> float over all samples; or None.
            For several outputs: a name is computed for each, and the report's one number is the mean; a
            dictionary from output names to metrics gives each its own (one number: the mean if all are the same,
            else the first); a function or `keras.metrics.Metric` is given dictionaries of output names.
        batch_size: Batch size for arrays. Defaults to 32. A model or file that prescribes a batch size is run
            with that one; its last batch is filled up, and the surplus is not counted.
        latency_runs: Number of timed runs of each `.tflite` file, interleaved; 0 to time nothing. Keras models
            are not timed.
        num_threads: Number of threads of the runtime. Defaults to 1.
        progress: Whether to show a progress bar, on stderr where that is a terminal. Defaults to True.

    Returns:
        A `Report` with a `Measurement` for each subject.

    Raises:
        TypeError: A subject or the data is of the wrong type.
        ValueError: A file is damaged, a model is not built or still carries weight transforms, the data is
            empty, uneven or holds NaN, or an option has a wrong value.

    Example:

        result = keras_mot.export.export_litert(model, "model.tflite")
        report = keras_mot.analysis.measure({"keras": model, "litert": result}, data=(x_test, y_test))
        print(report)
        report["litert"].metric
    """
    check_whole("batch_size", batch_size, 1)
    check_whole("latency_runs", latency_runs, 0)
    check_whole("num_threads", num_threads, 1)
    resolved = None if data is None or metric is None else make_metric(metric)
    if data is not None:
        check_data(data)
    named = collect(subjects)
    if data is not None or latency_runs:
        start([subject for _, subject in named], num_threads)
    with progress_bar(progress) as bar, without_retracing_warnings():
        metrics, samples, sample = _evaluate(named, data, resolved, batch_size, bar)
        latencies = _time(named, sample, latency_runs, bar)
    rows = tuple(
        _row(name, subject, value, latency)
        for (name, subject), value, latency in zip(named, metrics, latencies, strict=True)
    )
    name, names = (None, {}) if resolved is None else (resolved.name, dict(resolved.names))
    return Report(rows, name, samples, latency_runs, num_threads, names)


def tensor_stats(subject: Subject) -> tuple[TensorStats, ...]:
    """Counts the zeros of every weight tensor.

    Args:
        subject: A Keras model, the path of a `.keras`, `.tflite` or `.onnx` file, or the result of an export.

    Returns:
        A tuple of `TensorStats`.

    Raises:
        TypeError: The subject is none of these.
        ValueError: The file is damaged, or the model is not built or still carries weight transforms.

    Example:

        for tensor in keras_mot.analysis.tensor_stats("model.tflite"):
            print(tensor.name, tensor.shape, tensor.sparsity)
    """
    return open_subject(subject).tensors


def sparsity(subject: Subject, kernels_only: bool = True) -> float:
    """Share of zeros among the weights, from 0 to 1.

    Args:
        subject: A Keras model, the path of a `.keras`, `.tflite` or `.onnx` file, or the result of an export.
        kernels_only: Whether to count only weights of two or more dimensions (kernels and embeddings), as
            pruning targets are stated, or all parameters. Defaults to True.

    Returns:
        The share of zeros.

    Raises:
        TypeError: The subject is none of these.
        ValueError: The file is damaged, or the model is not built or still carries weight transforms.

    Example:

        keras_mot.analysis.sparsity(model)
    """
    return share_of_zeros(tensor_stats(subject), kernels_only)


def _evaluate(named, data, metric, batch_size, bar):
    """Goes through the data once, through all subjects with each batch.

    Returns:
        The metrics of the subjects, as pairs of one number and a dictionary of outputs; the number of samples; and one
        sample to time with.
    """
    if data is None:
        return [(None, {})] * len(named), 0, None
    accumulators = [] if metric is None else [metric.start() for _ in named]
    samples, sample = 0, None
    task = bar.add_task("evaluating", total=count_batches(data, batch_size))
    for x, y in batches(data, batch_size):
        sample = part(x, slice(1)) if sample is None else sample
        if not accumulators:
            break
        samples += sample_count(y)
        for (name, subject), accumulator in zip(named, accumulators, strict=True):
            try:
                accumulator.add(y, subject.predict(x))
            except ValueError as error:
                raise ValueError(f"'{name}' cannot be evaluated on `data`: {error}") from error
        bar.advance(task)
    values = [(accumulator.result(), accumulator.parts()) for accumulator in accumulators]
    return values or [(None, {})] * len(named), samples, sample


def _time(named, sample, runs, bar):
    """Median latencies of the subjects that have a runtime which is that of their device; None for the others."""
    runners = [subject for _, subject in named if subject.runner is not None] if runs else []
    timed = [subject for subject in runners if getattr(subject.runner, "is_timed", True)]
    for subject in timed:
        subject.runner.set_inputs(subject.example() if sample is None else sample)
    task = bar.add_task("timing", total=runs if timed else 0)
    latencies = iter(median_latencies([s.runner for s in timed], runs, lambda: bar.advance(task)))
    return [next(latencies) if subject in timed else None for _, subject in named]


def _with_many_zeros(tensors):
    """The kernels of which more than two thirds are zero, where they count: other constants have zeros, too."""
    kernels = [tensor for tensor in tensors if tensor.is_kernel]
    many = [tensor for tensor in kernels if 3 * tensor.zeros > 2 * tensor.size and tensor.zeros < tensor.size]
    enough = _OF_KERNELS * sum(tensor.size for tensor in kernels)
    return many if sum(tensor.size for tensor in many) >= enough else []


def _row(name, subject, metric, latency):
    content = subject.content()
    many, speed = _with_many_zeros(subject.tensors), None
    if many and subject.kind == DEFAULT.name:
        in_floats = any(tensor.dtype.startswith("float") for tensor in many)
        speed = sparse_speed(content, in_floats, any(tensor.sparse_encoding for tensor in subject.tensors))
    zipped = zipped_bytes(content)
    return Measurement(
        name=name,
        kind=subject.kind,
        path=subject.path,
        bytes=len(content),
        zipped_bytes=zipped,
        parameters=sum(tensor.size for tensor in subject.tensors),
        metric=metric[0],
        latency_ms=latency,
        tensors=subject.tensors,
        metrics=metric[1],
        sparse_speed=speed,
        brotli_bytes=brotli_bytes(content, zipped),
    )
