"""The time of each operator of a `.tflite` file, each by itself: the runtime tells Python that of whole files alone."""

import dataclasses
import os
import statistics

import numpy as np

from keras_mot._messages import describe, shortened
from keras_mot._numbers import check_whole
from keras_mot.analysis._latency import WARM_UP_RUNS
from keras_mot.export.dependencies import require
from keras_mot.export.litert.integers.operators import named_operators
from keras_mot.export.litert.isolation import is_trusted, open_interpreter, trust
from keras_mot.export.litert.layer_names import LayerNames
from keras_mot.export.litert.litert_file import enum_name, parse_content, read_content
from keras_mot.export.litert.single_operators import constant_bytes, kind_of, repeated, why_not_alone
from keras_mot.export.protocol import Export

_COPIES = 8  # in a row, which makes the time of a call small beside theirs
_MOST_BYTES = 8_000_000  # of constants, which XNNPACK packs for each copy


@dataclasses.dataclass(frozen=True)
class OperatorTime:
    """An operator of a file.

    Attributes:
        operator: such as "CONV_2D".
        computes: type of what it computes, such as "int8".
        layer: that it belongs to, as far as the file's names tell.
        milliseconds: for one sample, by itself; `None` if it cannot run by itself.
        reason: why it has no time; empty if it has one.
    """

    operator: str
    computes: str
    layer: str
    milliseconds: float | None
    reason: str = ""


def operator_times(
    file: str | os.PathLike | Export, *, runs: int = 20, num_threads: int = 1
) -> tuple[OperatorTime, ...]:
    """Times each operator of a `.tflite` file in the LiteRT runtime.

    Each is cut out into a file of its own, a few times in a row, and runs on random values, with a batch of one sample
    where the batch is open. Operators that differ in the values of their constants alone are timed once. What the
    runtime would fuse or find in the cache is not seen, so that the sum differs from the time of the file: it says
    where the time goes, not how much it is.

    A file that this process has not exported runs in child processes.

    Args:
        file: the path of a `.tflite` file, or what `export_litert` returned.
        runs: timed runs of each operator, of which the median is taken; at least 1.
        num_threads: of the runtime.

    Returns:
        Tuple of an `OperatorTime` for each operator of the file's main graph, in its order.

    Raises:
        TypeError: `file`, `runs` or `num_threads` is of the wrong type.
        ValueError: the file is damaged, or of another format, or a number is below 1.
        ImportError: `ai-edge-litert` is not installed.

    Example:

        result = keras_mot.export.export_litert(model, "model.tflite")
        slowest = max(keras_mot.analysis.operator_times(result), key=lambda row: row.milliseconds or 0)
    """
    check_whole("runs", runs)
    check_whole("num_threads", num_threads)
    path = file.path if isinstance(file, Export) else file
    if not isinstance(path, str | os.PathLike):
        raise TypeError(
            f"Expected the path of a `.tflite` file, or what `export_litert` returned; received {describe(file)}."
        )
    if not os.path.isfile(path):
        raise ValueError(f"There is no file '{path}'.")
    content, label = read_content(path)
    parsed, ours = parse_content(content, label), is_trusted(content)
    graph, known = parsed.subgraphs[0], {}
    names, rows = LayerNames(graph), []
    for _, name, operator in (each for each in named_operators(parsed) if each[0] is graph):
        kind = kind_of(parsed, graph, operator)
        if kind not in known:
            known[kind] = _timed(parsed, graph, operator, runs, num_threads, ours)
        computes = _type_of(graph.tensors[operator.outputs[0]]) if len(operator.outputs) else ""
        rows.append(OperatorTime(name, computes, names.of(operator), *known[kind]))
    return tuple(rows)


def _type_of(tensor):
    return enum_name(require("ai_edge_litert.schema_py_generated").TensorType, tensor.type).lower()


def _timed(parsed, graph, operator, runs, threads, ours):
    """(milliseconds, reason), one of which says nothing."""
    reason = why_not_alone(graph, operator)
    if reason:
        return None, reason
    copies = min(_COPIES, max(1, _MOST_BYTES // max(1, constant_bytes(parsed, graph, operator))))
    content = repeated(parsed, graph, operator, copies)
    if ours:
        trust(content)
    try:
        interpreter = open_interpreter(content, threads, "default")
        inputs = interpreter.inputs.values()
        interpreter.set_inputs([details["index"] for details in inputs], [_values(details) for details in inputs])
        for _ in range(WARM_UP_RUNS):
            interpreter.invoke()
        seconds = statistics.median(interpreter.timed_invoke() for _ in range(runs))
    except (ValueError, RuntimeError) as error:  # the runtime's, which are of many kinds
        return None, shortened(str(error))
    return 1000 * seconds / copies, ""


def _values(details):
    """Random values for an input; zeros for what may be places or conditions."""
    shape, dtype = details["shape"], np.dtype(details["dtype"])
    generator = np.random.default_rng(0)
    if dtype.itemsize < 4 and dtype.kind in "iu":
        limits = np.iinfo(dtype)
        return generator.integers(limits.min, limits.max, shape, dtype, endpoint=True)
    return generator.normal(size=shape).astype(dtype) if dtype.kind == "f" else np.zeros(shape, dtype)
