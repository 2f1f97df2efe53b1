"""Runs a `.tflite` file in the LiteRT runtime."""

import os
from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np

from keras_mot._messages import describe
from keras_mot._warnings import warn
from keras_mot.export.dependencies import require
from keras_mot.export.litert.isolation import open_interpreter
from keras_mot.export.litert.litert_file import has_blocks, parse_content, read_content, reads
from keras_mot.export.litert.micro.weights.reading import has_encoded_weights
from keras_mot.export.running import FileRunner, RunnerTensor, check_threads


class LiteRTRunner(FileRunner):
    """Runs a `.tflite` file on batches of NumPy arrays.

    A file with an open batch dimension is resized to the batch it is given; a file with a fixed one is run
    as often as the batch needs. Floats given to a quantized integer input are quantized, and quantized
    outputs are returned as floats.

    A file that this process has not exported runs in a child process of its own: what ends that process is an error
    here.

    Args:
        source: Path of a `.tflite` file, or its content as bytes.
        num_threads: Number of threads of the runtime. Defaults to 1.
        input_names: Names of the inputs in the order in which a list of arrays is to be taken; by default that of the
            file, which `export_litert` writes in the order of the model's.
        kernels: "default", the runtime's fast ones with the XNNPACK delegate, or "reference", the slow ones that
            define what integers compute; with these, `inner_values` can be read. Of these, that for sums of int8
            has a fault (LiteRT's issue 4079), of which a warning tells.

    Raises:
        ValueError: The file is not a `.tflite` file, is damaged, or the runtime refuses it or fails at it.
        TypeError: `source` is neither a path nor bytes.
        ImportError: `ai-edge-litert` is not installed.

    Example:

        runner = LiteRTRunner("model.tflite")
        probabilities = runner.run(images)["dense_1"]
    """

    _runtime = "The LiteRT runtime"

    def __init__(
        self,
        source: str | os.PathLike | bytes,
        num_threads: int = 1,
        input_names: Sequence[str] | None = None,
        kernels: Literal["default", "reference"] = "default",
    ):
        require("ai_edge_litert.interpreter")
        check_threads(num_threads)
        if kernels not in ("default", "reference"):
            raise ValueError(f"`kernels` must be 'default' or 'reference'. Received: {describe(kernels)}.")
        self._keeps_values = kernels == "reference"
        content, self._label = read_content(source)
        parsed = parse_content(content, self._label)  # what is checked is what runs
        if has_encoded_weights(parsed):
            raise ValueError(
                f"{self._label} has compressed weights, which only the runtime of microcontrollers (TFLM) decodes: run "
                "it by `keras_mot.export.MicroRunner`, or export it with `compress_weights=False`."
            )
        if kernels == "reference" and reads("SUM", "INT8", parsed):
            warn(
                f"{self._label} sums numbers of 8 bits. The reference kernel of LiteRT (2.3 and before) takes them for "
                "unsigned ones (LiteRT's issue 4079), and what follows is wrong; its default kernels compute it right."
            )
        if kernels == "reference" and has_blocks(parsed):
            warn(
                f"{self._label} has weights in blocks, which XNNPACK computes with. The reference kernels of LiteRT "
                "(2.3 and before) return zeros for them."
            )
        with self._blaming("load"):
            self._interpreter = open_interpreter(content, num_threads, kernels)
            inputs, outputs = self._interpreter.inputs, self._interpreter.outputs
            self.inputs = tuple(_describe(name, details) for name, details in inputs.items())
            self.outputs = tuple(_describe(name, details) for name, details in outputs.items())
        self._order_inputs(input_names)

    def run(self, inputs: np.ndarray | Sequence[np.ndarray] | Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Runs the model on a batch.

        Args:
            inputs: An array for a model of one input, a list of arrays in the order of `self.inputs` (the model's, in
                files of `export_litert`), or a dictionary of input names. The first dimension is the batch.

        Returns:
            A dictionary of output names and arrays, the batch first, in the order of `self.outputs`.

        Raises:
            ValueError: The arrays do not fit the inputs (their names, number, shapes, or numbers that their types
                cannot hold), or the runtime fails.
        """
        arrays = [self._quantize(a, t) for a, t in zip(self._arrange(inputs), self.inputs, strict=True)]
        return self._run_in_chunks(arrays, self._invoke)

    def set_inputs(self, inputs: np.ndarray | Sequence[np.ndarray] | Mapping[str, np.ndarray]) -> None:
        """Writes one batch into the runtime, resizing its inputs, for repeated `invoke`."""
        arrays = [self._quantize(a, t) for a, t in zip(self._arrange(inputs), self.inputs, strict=True)]
        with self._blaming("run"):
            self._set([self._filled(array) for array in arrays])

    def invoke(self) -> None:
        """Runs the runtime once on the inputs that it holds."""
        with self._blaming("run"):
            self._interpreter.invoke()

    def timed_invoke(self) -> float:
        """Runs the runtime once on the inputs that it holds, and returns the seconds that this took."""
        with self._blaming("run"):
            return self._interpreter.timed_invoke()

    def inner_values(self) -> dict[str, np.ndarray]:
        """The values of all tensors after the last `invoke`, by their names, integers as the floats they stand for.

        Raises:
            ValueError: The runner was not made with `kernels="reference"`: fast kernels reuse memory.
        """
        if not self._keeps_values:
            raise ValueError('Only a `LiteRTRunner(..., kernels="reference")` keeps inner values.')
        values = {}
        for details in self._interpreter.tensors():
            if details["scales"] > 1:
                continue  # a weight
            try:
                values[details["name"]] = self._dequantize(_describe(details["name"], details))
            except ValueError:  # scratch memory of an operator
                continue
        return values

    def _invoke(self, arrays):
        with self._blaming("run"):
            self._set([self._filled(array) for array in arrays])
            self._interpreter.invoke()
            return [self._dequantize(tensor) for tensor in self.outputs]

    def _set(self, arrays):
        self._interpreter.set_inputs([tensor.index for tensor in self.inputs], arrays)

    def _dequantize(self, tensor):
        array = self._interpreter.values(tensor.index)
        return tensor.in_floats(array)


def _describe(name, details):
    sizes = details["shape_signature"] or details["shape"]
    shape = tuple(None if size < 0 else size for size in sizes)
    return RunnerTensor(name, shape, details["dtype"], tuple(details["quantization"]), details["index"])
