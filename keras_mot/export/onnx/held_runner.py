"""What the runners of ONNX files share: arrays in, by what a runtime calls its inputs, and arrays out."""

import abc
import time
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np

from keras_mot.export.running import FileRunner, RunnerTensor


class HeldRunner(FileRunner, abc.ABC):
    """A `FileRunner` of a runtime that is called with a dictionary of inputs."""

    _held: Mapping[Hashable, np.ndarray]  # inputs for `invoke`

    @abc.abstractmethod
    def _key(self, tensor: RunnerTensor) -> Hashable:
        """What the runtime calls an input."""

    @abc.abstractmethod
    def _infer(self, named: Mapping[Hashable, np.ndarray]) -> Any:
        """Runs the runtime once; returns the outputs as it does."""

    def _arrays(self, found: Any) -> list[np.ndarray]:
        """What `_infer` returned as arrays of their own, in the order of `outputs`."""
        return found

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
            self._infer(self._held)

    def timed_invoke(self) -> float:
        """Runs the runtime once on the inputs that it holds, and returns the seconds that this took."""
        started = time.perf_counter()
        self.invoke()
        return time.perf_counter() - started

    def _prepared(self, inputs):
        return [self._of_type(array, tensor) for array, tensor in zip(self._arrange(inputs), self.inputs, strict=True)]

    def _named(self, arrays):
        return {self._key(tensor): self._filled(array) for array, tensor in zip(arrays, self.inputs, strict=True)}

    def _outputs_of(self, arrays):
        with self._blaming("run"):
            return self._arrays(self._infer(self._named(arrays)))
