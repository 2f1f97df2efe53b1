"""Runs an `.onnx` file in ONNX Runtime."""

import contextlib
import os
import pathlib
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from keras_mot._messages import describe, shortened
from keras_mot.export.dependencies import check_installed, require
from keras_mot.export.running import FileRunner, RunnerTensor

_LARGEST_CHUNK = 64
_TYPES = {"tensor(float)": "float32", "tensor(int32)": "int32", "tensor(int64)": "int64", "tensor(bool)": "bool"}


class OnnxRunner(FileRunner):
    """Runs an `.onnx` file on batches of NumPy arrays, on the CPU.

    Args:
        source: path of an `.onnx` file, or its content as bytes.
        num_threads: number of threads. Defaults to 1.
        input_names: names of the inputs in the order in which a list of arrays is to be taken; by default that of the
            file.
        optimized: whether ONNX Runtime may fuse operators; without, it computes in floats between the quantizers.

    Attributes:
        inputs: name, shape (`None` where open) and type of each input.
        outputs: the same of each output.

    Raises:
        ValueError: the file is no ONNX file, is damaged, or the runtime refuses it.
        TypeError: `source` is neither a path nor bytes.
        ImportError: `onnxruntime` is not installed.

    Example:

        runner = OnnxRunner("model.onnx")
        probabilities = runner.run(images)["dense_1"]
    """

    def __init__(
        self,
        source: str | os.PathLike | bytes,
        num_threads: int = 1,
        input_names: Sequence[str] | None = None,
        optimized: bool = True,
    ):
        check_installed("onnxruntime", purpose="ONNX files")
        if isinstance(num_threads, bool) or not isinstance(num_threads, int) or num_threads < 1:
            raise ValueError(f"`num_threads` must be an integer of 1 or more. Received: {describe(num_threads)}.")
        content, self._label = _read(source)
        runtime = require("onnxruntime")
        options = runtime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads, options.log_severity_level = num_threads, 1, 4
        if not optimized:
            options.graph_optimization_level = runtime.GraphOptimizationLevel.ORT_DISABLE_ALL
        with self._blaming("load"):
            self._session = runtime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
            self.inputs = tuple(_described(item, number) for number, item in enumerate(self._session.get_inputs()))
            self.outputs = tuple(_described(item, number) for number, item in enumerate(self._session.get_outputs()))
        self._order_inputs(input_names)
        self._held = {}

    @property
    def batch_size(self) -> int | None:
        """The batch size that the file prescribes, or None if it takes any."""
        sizes = {tensor.shape[0] for tensor in self.inputs if tensor.shape}
        return next((size for size in sizes if size is not None), None)

    def run(self, inputs: np.ndarray | Sequence[np.ndarray] | Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Runs the model on a batch.

        Args:
            inputs: an array for a model of one input, a list of arrays in the order of `self.inputs`, or a dictionary
                of input names. The first dimension is the batch.

        Returns:
            A dictionary of output names and arrays, the batch first.

        Raises:
            ValueError: the arrays do not fit the inputs, or the runtime fails.
        """
        arrays = self._prepared(inputs)
        count = self._count(arrays)
        step, parts = self.batch_size or min(count, _LARGEST_CHUNK), []
        with self._blaming("run"):
            for start in range(0, count, step):
                parts.append(self._session.run(None, self._named([array[start : start + step] for array in arrays])))
        joined = [np.concatenate(each)[:count] if each[0].ndim else each[-1] for each in zip(*parts, strict=True)]
        return {tensor.name: array for tensor, array in zip(self.outputs, joined, strict=True)}

    def set_inputs(self, inputs: np.ndarray | Sequence[np.ndarray] | Mapping[str, np.ndarray]) -> None:
        """Holds one batch, for repeated `invoke`."""
        arrays = self._prepared(inputs)
        self._count(arrays)
        self._held = self._named(arrays)
        self.invoke()

    def invoke(self) -> None:
        """Runs the runtime once on the inputs that it holds."""
        with self._blaming("run"):
            self._session.run(None, self._held)

    def timed_invoke(self) -> float:
        """Runs the runtime once on the inputs that it holds, and returns the seconds that this took."""
        started = time.perf_counter()
        self.invoke()
        return time.perf_counter() - started

    def _prepared(self, inputs):
        return [self._of_type(array, tensor) for array, tensor in zip(self._arrange(inputs), self.inputs, strict=True)]

    def _named(self, arrays):
        """Inputs for the session, filled up to the batch size by the last sample."""
        named = {}
        for array, tensor in zip(arrays, self.inputs, strict=True):
            missing = 0 if self.batch_size is None or not array.ndim else self.batch_size - len(array)
            named[tensor.name] = np.concatenate([array, np.repeat(array[-1:], missing, axis=0)]) if missing else array
        return named

    @contextlib.contextmanager
    def _blaming(self, action):
        try:
            yield
        except Exception as error:
            raise ValueError(f"ONNX Runtime cannot {action} {self._label}: {shortened(error)}") from error


def _read(source: Any) -> tuple[bytes, str]:
    if isinstance(source, (bytes, bytearray, memoryview)):
        return bytes(source), "the given bytes"
    if not isinstance(source, (str, os.PathLike)):
        raise TypeError(f"Expected the path or the bytes of an `.onnx` file. Received: {describe(source)}.")
    path = pathlib.Path(source)
    if not path.is_file():
        raise ValueError(f"Expected the path of an `.onnx` file. Received: '{path}', which is not a file.")
    return path.read_bytes(), f"'{path}'"


def _described(item, number):
    shape = tuple(size if isinstance(size, int) else None for size in item.shape)
    return RunnerTensor(item.name, shape, _TYPES.get(item.type, item.type), (0.0, 0), number)
