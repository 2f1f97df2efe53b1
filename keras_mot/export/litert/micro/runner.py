"""Runs a `.tflite` file in the interpreter of LiteRT for Microcontrollers."""

import os
import pathlib
from collections.abc import Mapping, Sequence

import numpy as np

from keras_mot._messages import describe
from keras_mot._numbers import is_whole
from keras_mot.export.dependencies import check_installed, require
from keras_mot.export.litert.integers.operators import operators_of
from keras_mot.export.litert.isolation import ChildProcess
from keras_mot.export.litert.litert_file import enum_name, parse_content, read_content
from keras_mot.export.running import FileRunner, RunnerTensor
from keras_mot.quantization.simulation.reference_kernels import half_away

_SCRIPT = pathlib.Path(__file__).with_name("interpreter.py")


class MicroRunner(FileRunner):
    """Runs a `.tflite` file as a microcontroller would: by the kernels of TFLM, sample by sample.

    The interpreter is that of the package `tflite-micro`, with TFLM's reference kernels; those that vendors write for
    their processors (CMSIS-NN) are made to compute the same. It runs in a process of its own.

    Args:
        source: path of a `.tflite` file, or its content as bytes.
        input_names: names of the inputs in the order in which a list of arrays is to be taken; by default that of the
            file.
        arena_bytes: bytes of memory for tensors and the interpreter's objects, as the program on the device would give
            it; `None` for as many as it takes.
        keep_values: whether `inner_values` can be read.

    Attributes:
        inputs: name, shape, type and (scale, zero point) of each input.
        outputs: the same of each output.
        operators: names of the operators in the file, for the resolver of the program on the device.

    Raises:
        ValueError: the file is not a `.tflite` file, is damaged, has an operator that TFLM lacks, or does not fit in
            the arena.
        TypeError: `source` is neither a path nor bytes, or `arena_bytes` no number.
        ImportError: `tflite-micro` or `ai-edge-litert` is not installed.

    Example:

        runner = MicroRunner("model.tflite")
        probabilities = runner.run(images)["dense_1"]
        print(runner.arena_bytes)
    """

    _runtime = "TFLM"
    is_timed = False  # reference kernels on another processor

    def __init__(
        self,
        source: str | os.PathLike | bytes,
        input_names: Sequence[str] | None = None,
        arena_bytes: int | None = None,
        keep_values: bool = False,
    ):
        check_installed("tflite_micro", "ai_edge_litert", purpose="files for microcontrollers")
        if arena_bytes is not None and not is_whole(arena_bytes):
            raise TypeError(f"`arena_bytes` must be an integer or None. Received: {describe(arena_bytes)}.")
        if arena_bytes is not None and arena_bytes < 1:
            raise ValueError(f"`arena_bytes` must be 1 or more. Received: {arena_bytes}.")
        content, self._label = read_content(source)
        file = parse_content(content, self._label)
        self.operators = operators_of(file)
        self._graph = file.subgraphs[0]
        self.inputs, self.outputs = _named(file, "inputs"), _named(file, "outputs")
        self._order = {tensor.name: number for number, tensor in enumerate(self.inputs)}
        self._keep, self._arena = keep_values, None
        self._process = ChildProcess(str(_SCRIPT), "MicroInterpreter")
        with self._blaming("load"):
            self._process.call("open", arena_bytes, keep_values, arrays=[np.frombuffer(content, "u1")])
        self._order_inputs(input_names)

    @property
    def arena_bytes(self) -> int:
        """The smallest arena in which the file runs, in bytes.

        It is measured with pointers of 64 bits: on a processor of 32 bits, the interpreter's own objects take less.

        Raises:
            ValueError: the runner was made with `keep_values=True`, for which all tensors get memory of their own.
        """
        return self._measured()[0]

    @property
    def activation_bytes(self) -> int:
        """The part of `arena_bytes` that activations share; the rest is the interpreter's and the kernels' own."""
        return self._measured()[1]

    def run(self, inputs: np.ndarray | Sequence[np.ndarray] | Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Runs the model on samples, one after the other.

        Args:
            inputs: an array for a model of one input, a list of arrays in the order of `self.inputs`, or a dictionary
                of input names. The first dimension is the sample's. Floats are rounded to the integers of an integer
                input, as TFLM's QUANTIZE does it.

        Returns:
            A dictionary of output names and arrays, the sample first, integers as the floats they stand for.

        Raises:
            ValueError: the arrays do not fit the inputs, or the runtime fails.
        """
        found = self.run_integers(inputs)
        return {tensor.name: tensor.in_floats(found[tensor.name]) for tensor in self.outputs}

    def run_integers(
        self, inputs: np.ndarray | Sequence[np.ndarray] | Mapping[str, np.ndarray]
    ) -> dict[str, np.ndarray]:
        """The same as `run`, but outputs as the file has them."""
        arrays = [self._quantize(a, t) for a, t in zip(self._arrange(inputs), self.inputs, strict=True)]
        count = self._count(arrays)
        by_place = sorted(zip(self.inputs, arrays, strict=True), key=lambda pair: self._order[pair[0].name])
        with self._blaming("run"):
            _, outputs = self._process.call("run", arrays=[array for _, array in by_place], samples=count)
        # Those of a sample have a first dimension of 1, if any.
        return {
            tensor.name: array.reshape(count, *tensor.shape[1:])
            for tensor, array in zip(self.outputs, outputs, strict=True)
        }

    def inner_values(self) -> list[tuple[RunnerTensor, np.ndarray]]:
        """What operators have computed for the last sample, in their order: tensors, and their values in the file.

        Raises:
            ValueError: the runner was not made with `keep_values=True`.
        """
        if not self._keep:
            raise ValueError("Only a `MicroRunner(..., keep_values=True)` keeps inner values.")
        computed = [int(index) for operator in self._graph.operators for index in operator.outputs]
        return [
            (_described(self._graph.tensors[index], index), self._process.call("tensor", index)[1][0])
            for index in computed
        ]

    def _measured(self):
        if self._keep:
            raise ValueError("A `MicroRunner(..., keep_values=True)` gives all tensors memory of their own.")
        if self._arena is None:
            with self._blaming("run"):
                self._arena, _ = self._process.call("arena")
        return self._arena

    @staticmethod
    def _rounded(array):
        return half_away(np.asarray(array, "float32"))


def _named(file, side):
    """The tensors of one side of a file, in its order, with the names of its signature, if it has one."""
    graph, signatures = file.subgraphs[0], file.signatureDefs or []
    names = {}
    if len(signatures) == 1:
        names = {int(item.tensorIndex): item.name.decode() for item in getattr(signatures[0], side)}
    indices = [int(index) for index in getattr(graph, side)]
    return tuple(_described(graph.tensors[index], index, names.get(index)) for index in indices)


def _described(tensor, index, name=None):
    schema = require("ai_edge_litert.schema_py_generated")
    grid = tensor.quantization
    known = grid is not None and grid.scale is not None and len(grid.scale) == 1
    return RunnerTensor(
        tensor.name.decode() if name is None else name,
        () if tensor.shape is None else tuple(int(size) for size in tensor.shape),
        enum_name(schema.TensorType, tensor.type).lower(),
        (float(grid.scale[0]), int(grid.zeroPoint[0])) if known else (0.0, 0),
        index,
    )
