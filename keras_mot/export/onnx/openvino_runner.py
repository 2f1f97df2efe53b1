"""Runs an `.onnx` file in OpenVINO."""

import os
import time
from collections.abc import Mapping, Sequence

import numpy as np

from keras_mot.export.dependencies import check_installed, require
from keras_mot.export.running import FileRunner, RunnerTensor, check_threads, content_of

# By default, processors with bfloat16 compute in it what is in floats between the integers.
_SETTINGS = {"INFERENCE_PRECISION_HINT": "f32"}


class OpenVINORunner(FileRunner):
    """Runs an `.onnx` file on batches of NumPy arrays in OpenVINO, on the CPU.

    Floats are those of 32 bits, as the precision hint `f32` demands. OpenVINO fuses integers in ways of its own: its
    outputs differ by steps of rounding from ONNX Runtime's.

    Args:
        source: path of an `.onnx` file, or its content as bytes.
        num_threads: number of threads. Defaults to 1.
        input_names: names of the inputs in the order in which a list of arrays is to be taken; by default that of the
            file.

    Attributes:
        inputs: name, shape (`None` where open) and type of each input.
        outputs: the same of each output.

    Raises:
        ValueError: the file is no ONNX file, is damaged, or the runtime refuses it.
        TypeError: `source` is neither a path nor bytes.
        ImportError: `openvino` or `onnx` is not installed.

    Example:

        runner = OpenVINORunner("model.onnx")
        probabilities = runner.run(images)["dense_1"]
    """

    _runtime = "OpenVINO"

    def __init__(
        self,
        source: str | os.PathLike | bytes,
        num_threads: int = 1,
        input_names: Sequence[str] | None = None,
    ):
        check_installed("openvino", "onnx", purpose="ONNX files in OpenVINO")
        check_threads(num_threads)
        content, self._label = content_of(source, ".onnx")
        core = require("openvino").Core()
        with self._blaming("load"):
            graph = require("onnx").load_model_from_string(content).graph
            model = core.compile_model(
                core.read_model(content), "CPU", {**_SETTINGS, "INFERENCE_NUM_THREADS": num_threads}
            )
            self.inputs = _described(graph.input, model.inputs)
            self.outputs = _described(graph.output, model.outputs)
            self._request = model.create_infer_request()
        self._order_inputs(input_names)
        self._held = {}

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
        return self._run_in_chunks(self._prepared(inputs), self._outputs_of)

    def set_inputs(self, inputs: np.ndarray | Sequence[np.ndarray] | Mapping[str, np.ndarray]) -> None:
        """Holds one batch, for repeated `invoke`."""
        arrays = self._prepared(inputs)
        self._count(arrays)
        self._held = self._named(arrays)
        self.invoke()

    def invoke(self) -> None:
        """Runs the runtime once on the inputs that it holds."""
        with self._blaming("run"):
            self._request.infer(self._held)

    def timed_invoke(self) -> float:
        """Runs the runtime once on the inputs that it holds, and returns the seconds that this took."""
        started = time.perf_counter()
        self.invoke()
        return time.perf_counter() - started

    def _prepared(self, inputs):
        return [self._of_type(array, tensor) for array, tensor in zip(self._arrange(inputs), self.inputs, strict=True)]

    def _named(self, arrays):
        """Inputs for the request, by their places in the file."""
        return {tensor.index: self._filled(array) for array, tensor in zip(arrays, self.inputs, strict=True)}

    def _outputs_of(self, arrays):
        with self._blaming("run"):
            found = self._request.infer(self._named(arrays))
            return [np.array(found[tensor.index]) for tensor in self.outputs]  # the request writes to its own again


def _described(named, ports):
    """The `RunnerTensor` of each input or output; OpenVINO keeps their order, and has names of its own."""
    return tuple(
        RunnerTensor(
            item.name,
            tuple(int(size.get_length()) if size.is_static else None for size in port.get_partial_shape()),
            np.dtype(port.get_element_type().to_dtype()).name,
            (0.0, 0),
            number,
        )
        for number, (item, port) in enumerate(zip(named, ports, strict=True))
    )
