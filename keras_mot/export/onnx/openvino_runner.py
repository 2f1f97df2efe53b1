"""Runs an `.onnx` file in OpenVINO."""

import os
from collections.abc import Sequence

import numpy as np

from keras_mot.export.dependencies import check_installed, require
from keras_mot.export.onnx.held_runner import HeldRunner
from keras_mot.export.running import RunnerTensor, check_threads, content_of

# By default, processors with bfloat16 compute in it what is in floats between the integers.
_SETTINGS = {"INFERENCE_PRECISION_HINT": "f32"}


class OpenVINORunner(HeldRunner):
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

    def _key(self, tensor):
        return tensor.index

    def _infer(self, named):
        return self._request.infer(named)

    def _arrays(self, found):
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
