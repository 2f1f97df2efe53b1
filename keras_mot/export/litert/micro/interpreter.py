"""TFLM's interpreter behind the few calls that `MicroRunner` needs; runs in a child process, see `isolation`.

It imports nothing of this package, to start quickly.
"""

import contextlib
import os
import re
import tempfile

import numpy as np

_SMALLEST_ARENA, _LARGEST_ARENA = 2**24, 2**30
_OUT_OF_MEMORY = re.compile(
    r"[Ff]ailed to (resize buffer|allocate (tail|memory|temp|persistent))|Arena size is too small"
)


class MicroInterpreter:
    """Runs a `.tflite` file in TFLM.

    Args:
        content: the file.
        arena_bytes: bytes of memory that tensors and the interpreter's own objects get; `None` for as many as it takes.
        keep: whether the values of all tensors are kept.

    Attributes:
        inputs: number of inputs.
        outputs: number of outputs.
    """

    def __init__(self, content: bytes, arena_bytes: int | None = None, keep: bool = False):
        self._interpreter = _opened(content, arena_bytes, keep)
        self.inputs = _count(self._interpreter.get_input_details)
        self.outputs = _count(self._interpreter.get_output_details)

    def run(self, arrays: list[np.ndarray]) -> list[np.ndarray]:
        """The outputs for samples, one after the other.

        Args:
            arrays: of each input an array in its type, the sample first.

        Returns:
            Of each output an array, the sample first.
        """
        results = [[] for _ in range(self.outputs)]
        for sample in zip(*arrays, strict=True):
            for number, array in enumerate(sample):
                self._interpreter.set_input(np.ascontiguousarray(array)[None], number)
            with _telling():
                self._interpreter.invoke()
            for number, result in enumerate(results):
                result.append(np.array(self._interpreter.get_output(number)))
        return [np.stack(result) for result in results]

    def tensor(self, index: int) -> np.ndarray:
        """The values of a tensor after the last sample; needs `keep`."""
        return np.array(self._interpreter.GetTensor(index, 0)["tensor_data"])

    def arena(self) -> list[int]:
        """Bytes of memory that the file took, and how many of them hold activations; not with `keep`."""
        with _captured() as text:
            self._interpreter.print_allocations()
        found = [re.search(rf"Arena allocation {part} (\d+) bytes", text()) for part in ("total", "head")]
        if None in found:
            raise ValueError("this version of TFLM does not say how much memory it takes")
        return [int(match[1]) for match in found]


def _opened(content, arena_bytes, keep):
    from tflite_micro import runtime

    kinds = runtime.InterpreterConfig
    kind = kinds.kPreserveAllTensors if keep else kinds.kAllocationRecording
    size = arena_bytes or max(_SMALLEST_ARENA, 10 * len(content))
    while True:
        with _captured() as text:
            try:
                return runtime.Interpreter.from_bytes(content, arena_size=size, intrepreter_config=kind)
            except Exception as error:
                message = text().strip() or str(error)
        if arena_bytes or size >= _LARGEST_ARENA or not _OUT_OF_MEMORY.search(message):
            raise ValueError(_last_lines(message))
        size *= 4


def _count(details):
    """How many inputs or outputs there are."""
    number = 0
    with _captured():
        while True:
            try:
                details(number)
            except Exception:
                return number
            number += 1


@contextlib.contextmanager
def _telling():
    """What the runtime writes is in the errors that it raises."""
    with _captured() as text:
        try:
            yield
        except Exception as error:
            raise ValueError(_last_lines(text().strip() or str(error))) from error


@contextlib.contextmanager
def _captured():
    """Gives a function that returns what native code wrote to the standard error since this was opened."""
    with tempfile.TemporaryFile() as file:
        written = []

        def text():
            if written:
                return written[0]
            file.seek(0)
            return file.read().decode(errors="replace")

        before = os.dup(2)
        os.dup2(file.fileno(), 2)
        try:
            yield text
        finally:
            os.dup2(before, 2)
            os.close(before)
            written.append(text())


def _last_lines(message):
    lines = [line.strip() for line in message.splitlines() if line.strip()]
    return "; ".join(dict.fromkeys(lines[-4:]))
