"""What runners of exported files have in common: which arrays become which inputs of a file, and in what numbers."""

import contextlib
import dataclasses
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np

from keras_mot._messages import describe, shortened
from keras_mot._numbers import is_whole
from keras_mot.data.arrays import is_number
from keras_mot.data.naming import unique_names

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

    def in_floats(self, array: np.ndarray) -> np.ndarray:
        """The floats that integers of this tensor stand for; other numbers as they are."""
        scale, zero_point = self.quantization
        return (array.astype("float32") - zero_point) * np.float32(scale) if scale else array


def content_of(source: str | os.PathLike | bytes, suffix: str) -> tuple[bytes, str]:
    """The bytes of a file, and what to call it in messages.

    Args:
        source: path of a file, or its content.
        suffix: that of its format.

    Raises:
        TypeError: `source` is neither.
        ValueError: there is no such file.
    """
    if isinstance(source, (bytes, bytearray, memoryview)):
        return bytes(source), "the given bytes"
    if not isinstance(source, (str, os.PathLike)):
        raise TypeError(
            f"Expected the path or the bytes of a `{suffix}` file. Received: {describe(source)} of type "
            f"{type(source).__name__}."
        )
    path = pathlib.Path(source)
    if not path.is_file():
        raise ValueError(f"Expected the path of a `{suffix}` file. Received: '{path}', which is not a file.")
    return path.read_bytes(), f"'{path}'"


def check_threads(num_threads: int) -> None:
    """Raises a ValueError if something is no number of threads."""
    if not is_whole(num_threads) or num_threads < 1:
        raise ValueError(f"`num_threads` must be an integer of 1 or more. Received: {describe(num_threads)}.")


def run_like_model(runner: "FileRunner", inputs: Any, output_names: Sequence[str], structure: Any) -> Any:
    """The outputs of a file for inputs as the Keras model takes them.

    Args:
        runner: of the file, its inputs in the order of the model's.
        inputs: as the model takes them, or a list in the order of the runner's, or a dictionary of their names.
        output_names: names of the outputs in the order of the model's.
        structure: the structure in which the model returns its outputs, or `None` for an array or a list.
    """
    if not (isinstance(inputs, dict) and set(inputs) == {tensor.name for tensor in runner.inputs}):
        inputs = keras.tree.flatten(inputs)
    outputs = runner.run(inputs)
    flat = [outputs[name] for name in output_names]
    if structure is None:
        return flat[0] if len(flat) == 1 else flat
    return keras.tree.pack_sequence_as(structure, flat)


class FileRunner:
    """Puts arrays into the inputs of a file; its children run it.

    Attributes:
        inputs: the `RunnerTensor` of each input, in the order in which a list of arrays is taken.
        outputs: those of the outputs.
        is_timed: whether `timed_invoke` says what a device that the file is for would take.
    """

    inputs: tuple[RunnerTensor, ...]
    outputs: tuple[RunnerTensor, ...]
    is_timed = True
    _runtime: str  # its name at the beginning of a sentence
    _label: str  # of the file, in messages

    @property
    def batch_size(self) -> int | None:
        """The batch size that the file prescribes, or None if it takes any."""
        sizes = {tensor.shape[0] for tensor in self.inputs if tensor.shape}
        return next((size for size in sizes if size is not None), None)

    @contextlib.contextmanager
    def _blaming(self, action):
        """Where an error is one of the file: runtimes and their bindings raise what they like."""
        try:
            yield
        except Exception as error:
            raise ValueError(f"{self._runtime} cannot {action} {self._label}: {shortened(error)}") from error

    def _run_in_chunks(self, arrays, run_one):
        """Dictionary of the outputs for arrays of any number of samples.

        Args:
            arrays: one for each input, as the runtime takes it.
            run_one: function of as many samples as the file takes at once, to a list of arrays, one for each output.
        """
        count = self._count(arrays)
        step = self.batch_size or min(count, _LARGEST_CHUNK)
        chunks = [run_one([array[start : start + step] for array in arrays]) for start in range(0, count, step)]
        # What a batch was filled up with is cut off; an output without a batch (a scalar) is what the last run gave.
        joined = [np.concatenate(each)[:count] if each[0].ndim else each[-1] for each in zip(*chunks, strict=True)]
        return {tensor.name: array for tensor, array in zip(self.outputs, joined, strict=True)}

    def _filled(self, array):
        """An array, its last sample repeated until the batch is full."""
        missing = 0 if self.batch_size is None or not array.ndim else self.batch_size - len(array)
        return np.concatenate([array, np.repeat(array[-1:], missing, axis=0)]) if missing > 0 else array

    def _order_inputs(self, names: Sequence[str] | None) -> None:
        """Brings `inputs` into the order of these names; raises a ValueError if they name others."""
        if names is None:
            return
        by_name = {tensor.name: tensor for tensor in self.inputs}
        if sorted(by_name) != sorted(names):
            raise ValueError(
                f"`input_names` must name the inputs of {self._label}. Expected: {sorted(by_name)}. "
                f"Received: {list(names)}."
            )
        self.inputs = tuple(by_name[name] for name in names)

    def _arrange(self, inputs):
        """Brings the user's inputs into the order of `self.inputs`."""
        names = [tensor.name for tensor in self.inputs]
        if isinstance(inputs, Mapping):
            if set(inputs) != set(names):  # those of the model may have characters that files do not
                inputs = dict(zip(unique_names(inputs), inputs.values(), strict=True))
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

    def _quantize(self, array, tensor):
        scale, zero_point = tensor.quantization
        if scale and np.issubdtype(array.dtype, np.floating):
            limits = np.iinfo(tensor.dtype)
            array = np.clip(self._rounded(array / scale) + zero_point, limits.min, limits.max)
        return self._of_type(array, tensor)

    def _of_type(self, array, tensor):
        """The array in the type of an input; raises a ValueError where that would make other numbers of it."""
        if array.dtype == tensor.dtype or tensor.dtype == "object":
            return array
        if is_number(array):
            with np.errstate(invalid="ignore"):
                converted = array.astype(tensor.dtype)
            if np.issubdtype(converted.dtype, np.floating) or np.array_equal(converted, array):
                return converted
        raise ValueError(
            f"Input '{tensor.name}' of {self._label} takes {tensor.dtype}. Received: {array.dtype}, with values that "
            f"are not of that type."
        )

    @staticmethod
    def _rounded(array):
        """Numbers rounded as the runtime does it where floats become integers."""
        return np.round(array)
