"""Runs an `.onnx` file in ONNX Runtime."""

import os
from collections.abc import Sequence

from keras_mot.export.dependencies import check_installed, require
from keras_mot.export.onnx.held_runner import HeldRunner
from keras_mot.export.running import RunnerTensor, check_threads, content_of

_TYPES = {
    "tensor(float)": "float32",
    "tensor(double)": "float64",
    "tensor(string)": "object",
    **{
        f"tensor({kind})": kind
        for kind in ("float16", "bool", *(f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)))
    },
}

# Processors without VNNI add products of 8 bits in 16 bits, which overflow, unless this is set; others ignore it.
_EXACT = "session.x64quantprecision"


class OnnxRunner(HeldRunner):
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
        ValueError: the file is no ONNX file, is damaged, the runtime refuses it, or an input or output is of a type
            that NumPy does not have.
        TypeError: `source` is neither a path nor bytes.
        ImportError: `onnxruntime` is not installed.

    Example:

        runner = OnnxRunner("model.onnx")
        probabilities = runner.run(images)["dense_1"]
    """

    _runtime = "ONNX Runtime"

    def __init__(
        self,
        source: str | os.PathLike | bytes,
        num_threads: int = 1,
        input_names: Sequence[str] | None = None,
        optimized: bool = True,
    ):
        check_installed("onnxruntime", purpose="ONNX files")
        check_threads(num_threads)
        content, self._label = content_of(source, ".onnx")
        runtime = require("onnxruntime")
        options = runtime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads, options.log_severity_level = num_threads, 1, 4
        options.add_session_config_entry(_EXACT, "1")
        if not optimized:
            options.graph_optimization_level = runtime.GraphOptimizationLevel.ORT_DISABLE_ALL
        with self._blaming("load"):
            self._session = runtime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
            self.inputs = tuple(_described(item, number) for number, item in enumerate(self._session.get_inputs()))
            self.outputs = tuple(_described(item, number) for number, item in enumerate(self._session.get_outputs()))
        self._order_inputs(input_names)
        self._held = {}

    def _key(self, tensor):
        return tensor.name

    def _infer(self, named):
        return self._session.run(None, named)


def _described(item, number):
    if item.type not in _TYPES:
        raise ValueError(f"'{item.name}' is of type {item.type}, which NumPy does not have")
    shape = tuple(size if isinstance(size, int) else None for size in item.shape)
    return RunnerTensor(item.name, shape, _TYPES[item.type], (0.0, 0), number)
