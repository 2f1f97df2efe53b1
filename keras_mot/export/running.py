"""What runners of exported files have in common: which arrays become which inputs of a file, and in what numbers."""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from keras_mot.data.arrays import is_number
from keras_mot.data.naming import unique_names


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


class FileRunner:
    """Puts arrays into the inputs of a file; its children run it.

    Attributes:
        inputs: the `RunnerTensor` of each input, in the order in which a list of arrays is taken.
        outputs: those of the outputs.
    """

    inputs: tuple[RunnerTensor, ...]
    outputs: tuple[RunnerTensor, ...]
    _label: str  # of the file, in messages

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
