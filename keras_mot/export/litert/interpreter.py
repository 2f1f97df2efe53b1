"""The LiteRT interpreter behind the few calls that `LiteRTRunner` needs, here or, as a script, in a child process.

As a script it imports nothing of this package, to start quickly: it reads calls from its input and writes what they
return, each as a length, JSON of that length, and the bytes of the arrays that the JSON describes.
"""

import json
import os
import runpy
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any, BinaryIO

import numpy as np

_LENGTH_BYTES = 8
_LONGEST_ERROR = 500


class LocalInterpreter:
    """Runs a `.tflite` file in this process.

    Args:
        content: The file.
        num_threads: Number of threads.
        kernels: "default" or "reference".

    Attributes:
        inputs: Details of the inputs by their names in the file's signature, if it has one, in the order in which its
            graph lists them; JSON values.
        outputs: The same of the outputs.
    """

    def __init__(self, content: bytes, num_threads: int, kernels: str):
        from ai_edge_litert import interpreter as runtime

        options = {}
        if kernels == "reference":
            options["experimental_op_resolver_type"] = runtime.OpResolverType.BUILTIN_REF
            options["experimental_preserve_all_tensors"] = True
        self._make = lambda: runtime.Interpreter(model_content=content, num_threads=num_threads, **options)
        self._interpreter = self._make()
        fixed = not self._has_open_sizes()
        if fixed:  # others get their sizes from the first inputs
            self._interpreter.allocate_tensors()
        signatures = self._interpreter.get_signature_list()
        if len(signatures) == 1:
            runner = self._interpreter.get_signature_runner(next(iter(signatures)))
            inputs, outputs = runner.get_input_details(), runner.get_output_details()
        else:
            inputs = {details["name"]: details for details in self._interpreter.get_input_details()}
            outputs = {details["name"]: details for details in self._interpreter.get_output_details()}
        self.inputs = _in_order(inputs, self._interpreter.get_input_details())
        self.outputs = _in_order(outputs, self._interpreter.get_output_details())
        # Those that memory is allocated for.
        self._shapes = [tuple(details["shape"]) for details in self.inputs.values()] if fixed else None

    def _has_open_sizes(self):
        """Whether sizes beside the batch are open: the sizes of 1 that the file has in their place may fit nothing."""
        return any(-1 in details["shape_signature"][1:] for details in self._interpreter.get_input_details())

    def tensors(self) -> list[dict[str, Any]]:
        """Details of all tensors."""
        return [_plain(details) for details in self._interpreter.get_tensor_details()]

    def set_inputs(self, indices: list[int], arrays: Sequence[np.ndarray] = ()) -> None:
        """Writes arrays into the inputs of these indices, which are resized where need be."""
        shapes = [array.shape for array in arrays]
        if shapes != self._shapes:
            if self._shapes is not None:
                # XNNPACK (LiteRT 2.3) computes wrong values in files of integers and floats that are resized to a
                # larger batch after memory was allocated for a smaller one.
                self._interpreter = self._make()
            for index, shape in zip(indices, shapes, strict=True):
                self._interpreter.resize_tensor_input(index, shape, strict=True)
            self._interpreter.allocate_tensors()
            self._shapes = shapes
        for index, array in zip(indices, arrays, strict=True):
            self._interpreter.set_tensor(index, np.ascontiguousarray(array).reshape(array.shape))  # () would be (1,)

    def invoke(self) -> None:
        """Runs the file once."""
        self._interpreter.invoke()

    def timed_invoke(self) -> float:
        """Runs the file once, and returns the seconds that it took."""
        started = time.perf_counter()
        self._interpreter.invoke()
        return time.perf_counter() - started

    def values(self, index: int) -> np.ndarray:
        """The values of a tensor."""
        return self._interpreter.get_tensor(index)


def _in_order(named, listed):
    """Details by names, which signatures sort, in the order of the list."""
    places = {details["index"]: place for place, details in enumerate(listed)}
    order = sorted(named, key=lambda name: places.get(named[name]["index"], len(places)))
    return {name: _plain(named[name]) for name in order}


def _plain(details):
    """What is needed of the runtime's details of a tensor, as JSON values."""
    signature = details.get("shape_signature")
    scale, zero_point = details["quantization"]
    return {
        "name": details["name"],
        "index": int(details["index"]),
        "shape": [int(size) for size in details["shape"]],
        "shape_signature": [] if signature is None else [int(size) for size in signature],
        "dtype": np.dtype(details["dtype"]).name,
        "quantization": [float(scale), int(zero_point)],
        "scales": len(details["quantization_parameters"]["scales"]),
    }


def send(stream: BinaryIO, values: Any, arrays: list[np.ndarray]) -> None:
    """Writes JSON values and arrays of numbers."""
    arrays = [np.ascontiguousarray(array) if array.ndim else array for array in map(np.asarray, arrays)]
    if any(array.dtype.hasobject for array in arrays):
        raise ValueError("texts cannot be given to, or taken from, a file that runs in a process of its own")
    header = json.dumps([values, [[array.dtype.str, array.shape] for array in arrays]]).encode()
    stream.write(len(header).to_bytes(_LENGTH_BYTES, "little") + header)
    for array in arrays:
        stream.write(array.tobytes())
    stream.flush()


def receive(stream: BinaryIO) -> tuple[Any, list[np.ndarray]]:
    """Reads what `send` wrote; raises EOFError where nothing more comes."""
    header = _read(stream, int.from_bytes(_read(stream, _LENGTH_BYTES), "little"))
    values, described = json.loads(header)
    arrays = []
    for dtype, shape in described:
        array = np.empty(shape, dtype)
        array[...] = np.frombuffer(_read(stream, array.nbytes), dtype).reshape(shape)
        arrays.append(array)
    return values, arrays


def _read(stream, size):
    content = stream.read(size)
    if len(content) < size:
        raise EOFError
    return content


def serve(calls: BinaryIO, answers: BinaryIO, make: Callable = LocalInterpreter) -> None:
    """Answers calls of methods until no more come.

    Args:
        calls: stream of (name of the method, its arguments); arrays, if there are any, are its last argument.
        answers: stream of (error or `None`, what the method returned); arrays, or a list of them, come beside it.
        make: what "open" makes, of the bytes of a file and arguments.
    """
    interpreter = None
    while True:
        try:
            (name, arguments), arrays = receive(calls)
        except EOFError:
            return
        try:
            if name == "open":
                interpreter = make(arrays[0].tobytes(), *arguments)
                returned = [interpreter.inputs, interpreter.outputs]
            else:
                if name == "timed_invoke":
                    interpreter.invoke()  # waiting for the call has left the caches to others
                returned = getattr(interpreter, name)(*arguments, *([arrays] if arrays else []))
            values = [returned] if isinstance(returned, np.ndarray | np.generic) else returned
            if (
                isinstance(values, list)
                and values
                and all(isinstance(value, np.ndarray | np.generic) for value in values)
            ):
                send(answers, [None, None], values)
            else:
                send(answers, [None, returned], [])
        except Exception as error:
            send(answers, [str(error)[:_LONGEST_ERROR] or type(error).__name__, None], [])


def main() -> None:
    """Serves on the standard streams.

    Arguments: bytes of memory, or nothing for any; of another runtime, a script and the class in it to serve.
    """
    answers = os.fdopen(os.dup(1), "wb")
    silence = os.open(os.devnull, os.O_WRONLY)
    for descriptor in (1, 2):  # what native code writes
        os.dup2(silence, descriptor)
    memory, *other = sys.argv[1:]
    if memory:
        _limit_memory(int(memory))
    make = LocalInterpreter
    if other:
        script, name = other
        make = runpy.run_path(script)[name]
    serve(sys.stdin.buffer, answers, make)


def _limit_memory(available):
    """An allocation of more than there is fails, instead of the system ending some process."""
    try:
        import resource
    except ImportError:  # Windows
        return
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    try:
        with open("/proc/self/statm") as file:
            taken = int(file.read().split()[0]) * resource.getpagesize()
    except OSError:
        return
    hard = resource.getrlimit(resource.RLIMIT_AS)[1]
    wanted = taken + available
    resource.setrlimit(resource.RLIMIT_AS, (wanted if hard < 0 else min(wanted, hard), hard))


if __name__ == "__main__":
    main()
