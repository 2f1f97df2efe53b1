"""Runs a `.tflite` file in the LiteRT runtime."""

import dataclasses
import os
from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np

from keras_mot._messages import describe
from keras_mot.export._dependencies import require
from keras_mot.export._litert_file import parse_model, read_content
from keras_mot.export._quiet import quiet

# Files that take any batch are run on this many samples at a time, which bounds the memory.
_LARGEST_CHUNK = 64


@dataclasses.dataclass(frozen=True)
class RunnerTensor:
    """An input or output of a file: name, shape (`None` where open), dtype, and (scale, zero point)."""

    name: str
    shape: tuple[int | None, ...]
    dtype: str
    quantization: tuple[float, int]
    index: int


class LiteRTRunner:
    """Runs a `.tflite` file on batches of NumPy arrays.

    A file with an open batch dimension is resized to the batch it is given; a file with a fixed one is run
    as often as the batch needs. Floats given to a quantized integer input are quantized, and quantized
    outputs are returned as floats.

    Args:
        source: Path of a `.tflite` file, or its content as bytes.
        num_threads: Number of threads of the runtime. Defaults to 1.
        input_names: Names of the inputs in the order in which a list of arrays is to be taken; by default the
            order of the file.
        kernels: "default", the runtime's fast ones with the XNNPACK delegate, or "reference", the slow ones that
            define what integers compute; with these, `inner_values` can be read.

    Raises:
        ValueError: The file is not a `.tflite` file, is damaged, or the runtime refuses it.
        TypeError: `source` is neither a path nor bytes.
        ImportError: `ai-edge-litert` is not installed.

    Example:

        runner = LiteRTRunner("model.tflite")
        probabilities = runner.run(images)["dense_1"]
    """

    inputs: tuple[RunnerTensor, ...]
    outputs: tuple[RunnerTensor, ...]

    def __init__(
        self,
        source: str | os.PathLike | bytes,
        num_threads: int = 1,
        input_names: Sequence[str] | None = None,
        kernels: Literal["default", "reference"] = "default",
    ):
        interpreter_module = require("ai_edge_litert.interpreter")
        if isinstance(num_threads, bool) or not isinstance(num_threads, int) or num_threads < 1:
            raise ValueError(f"`num_threads` must be an integer of 1 or more. Received: {describe(num_threads)}.")
        if kernels not in ("default", "reference"):
            raise ValueError(f"`kernels` must be 'default' or 'reference'. Received: {describe(kernels)}.")
        options = {}
        if kernels == "reference":
            options["experimental_op_resolver_type"] = interpreter_module.OpResolverType.BUILTIN_REF
            options["experimental_preserve_all_tensors"] = True
        self._keeps_values = bool(options)
        parse_model(source)  # the runtime may crash the process on a damaged file
        content, self._label = read_content(source)
        try:
            with quiet():
                self._interpreter = interpreter_module.Interpreter(
                    model_content=content, num_threads=num_threads, **options
                )
                self._interpreter.allocate_tensors()
                inputs, outputs = self._signature_details()
        except (RuntimeError, ValueError) as error:
            raise ValueError(f"The LiteRT runtime cannot load {self._label}: {error}") from error
        self.inputs = tuple(_describe(name, details) for name, details in inputs.items())
        self.outputs = tuple(_describe(name, details) for name, details in outputs.items())
        if input_names is not None:
            by_name = {tensor.name: tensor for tensor in self.inputs}
            if sorted(by_name) != sorted(input_names):
                raise ValueError(
                    f"`input_names` must name the inputs of {self._label}. Expected: {sorted(by_name)}. "
                    f"Received: {list(input_names)}."
                )
            self.inputs = tuple(by_name[name] for name in input_names)
        self._shapes = [tuple(int(size) for size in inputs[t.name]["shape"]) for t in self.inputs]

    @property
    def batch_size(self) -> int | None:
        """The batch size that the file prescribes, or None if it takes any."""
        sizes = {tensor.shape[0] for tensor in self.inputs if tensor.shape}
        return next((size for size in sizes if size is not None), None)

    def run(self, inputs: np.ndarray | Sequence[np.ndarray] | Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Runs the model on a batch.

        Args:
            inputs: An array for a model of one input, a list of arrays in the order of `self.inputs`, or a
                dictionary of input names. The first dimension is the batch.

        Returns:
            A dictionary of output names and arrays, the batch first.

        Raises:
            ValueError: The arrays do not fit the inputs, or the runtime fails.
        """
        arrays = [self._quantize(a, t) for a, t in zip(self._arrange(inputs), self.inputs, strict=True)]
        count = self._count(arrays)
        step = self.batch_size or min(count, _LARGEST_CHUNK)
        chunks = [self._invoke([a[i : i + step] for a in arrays], step) for i in range(0, count, step)]
        outputs = {}
        for tensor in self.outputs:
            parts = [chunk[tensor.name] for chunk in chunks]
            # An output without a batch dimension (a scalar) stays what the last run gave.
            joined = np.concatenate(parts) if parts[0].ndim else parts[-1]
            outputs[tensor.name] = joined[:count] if parts[0].ndim else joined
        return outputs

    def set_inputs(self, inputs: np.ndarray | Sequence[np.ndarray] | Mapping[str, np.ndarray]) -> None:
        """Writes one batch into the runtime, resizing its inputs, for repeated `invoke`."""
        arrays = [self._quantize(a, t) for a, t in zip(self._arrange(inputs), self.inputs, strict=True)]
        self._set([self._pad(array, self.batch_size or len(array)) for array in arrays])

    def invoke(self) -> None:
        """Runs the runtime once on the inputs that it holds."""
        self._interpreter.invoke()

    def inner_values(self) -> dict[str, np.ndarray]:
        """The values of all tensors after the last `invoke`, by their names, integers as the floats they stand for.

        Raises:
            ValueError: The runner was not made with `kernels="reference"`: fast kernels reuse memory.
        """
        if not self._keeps_values:
            raise ValueError('Only a `LiteRTRunner(..., kernels="reference")` keeps inner values.')
        values = {}
        for details in self._interpreter.get_tensor_details():
            if len(details["quantization_parameters"]["scales"]) > 1:
                continue  # a weight
            try:
                values[details["name"]] = self._dequantize(_describe(details["name"], details))
            except ValueError:  # scratch memory of an operator
                continue
        return values

    def _signature_details(self):
        """Details of the inputs and outputs under the names of the file's signature, if it has one."""
        signatures = self._interpreter.get_signature_list()
        if len(signatures) == 1:
            runner = self._interpreter.get_signature_runner(next(iter(signatures)))
            return runner.get_input_details(), runner.get_output_details()
        inputs, outputs = self._interpreter.get_input_details(), self._interpreter.get_output_details()
        return {d["name"]: d for d in inputs}, {d["name"]: d for d in outputs}

    def _arrange(self, inputs):
        """Brings the user's inputs into the order of `self.inputs`."""
        names = [tensor.name for tensor in self.inputs]
        if isinstance(inputs, dict):
            if set(inputs) != set(names):
                raise ValueError(
                    f"The names of the inputs do not match {self._label}. Expected: {names}. Received: {list(inputs)}."
                )
            return [np.asarray(inputs[name]) for name in names]
        arrays = list(inputs) if isinstance(inputs, (list, tuple)) else [inputs]
        if len(arrays) != len(names):
            raise ValueError(
                f"{self._label} takes {len(names)} input(s), {names}. Received: {len(arrays)}. Pass one "
                f"array for each, in this order, or a dictionary of these names."
            )
        return [np.asarray(array) for array in arrays]

    def _count(self, arrays):
        for array, tensor in zip(arrays, self.inputs, strict=True):
            expected = tensor.shape[1:]
            fits = array.ndim == len(tensor.shape) and all(
                size in (None, given) for size, given in zip(expected, array.shape[1:], strict=True)
            )
            if not fits:
                raise ValueError(
                    f"Input '{tensor.name}' of {self._label} has another shape. Expected: (batch, "
                    f"{', '.join(str(size) for size in expected)}). Received: {array.shape}."
                )
        counts = {len(array) for array in arrays if array.ndim}
        if len(counts) > 1 or counts == {0}:
            raise ValueError(
                f"All inputs must hold the same number of samples, one or more. Received: {sorted(counts)}."
            )
        return counts.pop() if counts else 1

    def _invoke(self, arrays, step):
        try:
            self._set([self._pad(array, step) for array in arrays])
            self._interpreter.invoke()
        except RuntimeError as error:
            raise ValueError(f"The LiteRT runtime cannot run {self._label}: {error}") from error
        return {tensor.name: self._dequantize(tensor) for tensor in self.outputs}

    def _pad(self, array, step):
        """Repeats the last sample until the batch is full; the surplus is cut off the outputs."""
        if array.ndim == 0 or self.batch_size is None or len(array) == step:
            return array
        return np.concatenate([array, np.repeat(array[-1:], step - len(array), axis=0)])

    def _set(self, arrays):
        shapes = [array.shape for array in arrays]
        if shapes != self._shapes:
            for tensor, shape in zip(self.inputs, shapes, strict=True):
                self._interpreter.resize_tensor_input(tensor.index, shape, strict=True)
            self._interpreter.allocate_tensors()
            self._shapes = shapes
        for tensor, array in zip(self.inputs, arrays, strict=True):
            self._interpreter.set_tensor(tensor.index, np.ascontiguousarray(array))

    def _quantize(self, array, tensor):
        scale, zero_point = tensor.quantization
        if scale and np.issubdtype(array.dtype, np.floating):
            limits = np.iinfo(tensor.dtype)
            array = np.clip(np.round(array / scale) + zero_point, limits.min, limits.max)
        return array.astype(tensor.dtype)

    def _dequantize(self, tensor):
        array = self._interpreter.get_tensor(tensor.index)
        scale, zero_point = tensor.quantization
        return (array.astype("float32") - zero_point) * np.float32(scale) if scale else array


def _describe(name, details):
    sizes = details.get("shape_signature")
    sizes = details["shape"] if sizes is None or len(sizes) == 0 else sizes
    shape = tuple(None if size < 0 else int(size) for size in sizes)
    return RunnerTensor(name, shape, np.dtype(details["dtype"]).name, details["quantization"], details["index"])
