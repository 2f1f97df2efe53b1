"""Runs `.tflite` files from elsewhere in a child process, so that a file that the runtime fails at ends that one only.

The checks of a file (`_flatbuffer.py`, `_file_checks.py`) cover what it says. What its operators make of that only the
runtime knows, and it ends the process where it does not check. To try the file once in a child, and to run it here if
the child lives, is not enough: an operator with too few inputs reads what happens to lie behind them in memory.
"""

import contextlib
import hashlib
import os
import pathlib
import signal
import subprocess
import sys
import threading
import weakref
from collections.abc import Sequence
from typing import Any

import numpy as np

from keras_mot._memory import available_bytes
from keras_mot._quiet import quiet
from keras_mot.export.litert.interpreter import LocalInterpreter, receive, send

_SCRIPT = pathlib.Path(__file__).with_name("interpreter.py")
_SECONDS = 120
_LEAST_MEMORY = 2**31
_SECONDS_VARIABLE = "KERAS_MOT_RUN_SECONDS"

_trusted = set()  # digests


def trust(content: bytes) -> None:
    """Lets a file that was made in this process run in it."""
    _trusted.add(_digest(content))


def is_trusted(content: bytes) -> bool:
    """Whether a file was made in this process."""
    return _digest(content) in _trusted


def open_interpreter(content: bytes, num_threads: int, kernels: str) -> "LocalInterpreter | RemoteInterpreter":
    """Loads a file: in this process if it was made here, else in a child process."""
    if not is_trusted(content):
        return RemoteInterpreter(content, num_threads, kernels)
    with quiet():
        return LocalInterpreter(content, num_threads, kernels)


def _digest(content):
    return hashlib.sha256(content).digest()


class ChildProcess:
    """A process that holds an interpreter, and answers calls of its methods.

    Every call raises a ValueError if it fails, ends the process, or takes too long. The process ends with this object.

    Args:
        *runtime: nothing for LiteRT's; of another runtime, the path of a script and the name of the class in it.
    """

    def __init__(self, *runtime: str):
        self._seconds, self._ending = _seconds(), None
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path or os.getcwd() for path in sys.path)}
        memory = available_bytes()
        # As a script, since importing this package would load Keras and its backend.
        # The limit is one of addresses: libraries alone take hundreds of megabytes of them.
        limit = "" if memory is None else str(max(memory, _LEAST_MEMORY))
        command = [sys.executable, "-P", str(_SCRIPT), limit, *runtime]
        self._child = subprocess.Popen(
            command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
        self._end = weakref.finalize(self, _end, self._child)

    def call(
        self, name: str, *arguments: Any, arrays: Sequence[np.ndarray] = (), samples: int = 1
    ) -> tuple[Any, list[np.ndarray]]:
        """What a method returned, and arrays that it returned instead.

        Args:
            name: of the method.
            *arguments: JSON values.
            arrays: arrays that it is given, in one list behind these.
            samples: how many samples it computes with, each of which may take its time.
        """
        if self._ending:
            raise ValueError(self._ending)
        late = threading.Event()
        timer = threading.Timer(self._seconds * max(1, samples), lambda: (late.set(), self._child.kill()))
        timer.daemon = True
        timer.start()
        try:
            send(self._child.stdin, [name, arguments], list(arrays))
            (error, returned), values = receive(self._child.stdout)
        except (EOFError, OSError):  # Windows has no `BrokenPipeError` here
            status = self._child.wait()
            self._ending = self._too_late() if late.is_set() else _reason(status)
            raise ValueError(self._ending) from None
        except BaseException:  # interrupted: what comes next would be the answer to this call
            self._ending = "its process was interrupted."
            self._end()
            raise
        finally:
            timer.cancel()
        if error is not None:
            raise ValueError(error)
        return returned, values

    def _too_late(self):
        return (
            f"it takes more than {self._seconds:g} seconds for a sample. Set {_SECONDS_VARIABLE} to more if it should."
        )


class RemoteInterpreter:
    """A `LocalInterpreter` in a child process of its own, which ends with this object.

    Every call raises a ValueError if the file fails, ends the child, or takes too long. Times are taken in the child.
    """

    def __init__(self, content: bytes, num_threads: int, kernels: str):
        self._process, self._samples = ChildProcess(), 1
        opened, _ = self._process.call("open", num_threads, kernels, arrays=[np.frombuffer(content, "u1")])
        self.inputs, self.outputs = opened

    def tensors(self) -> list[dict[str, Any]]:
        """Details of all tensors."""
        return self._call("tensors")[0]

    def set_inputs(self, indices: list[int], arrays: list[np.ndarray]) -> None:
        """Writes arrays into the inputs of these indices, which are resized where need be."""
        if any(array.dtype.hasobject for array in map(np.asarray, arrays)):
            raise ValueError("files from elsewhere that take texts cannot be run: they run in a process of their own.")
        self._samples = max((len(array) for array in arrays if array.ndim), default=1)
        self._call("set_inputs", indices, arrays=arrays)

    def invoke(self) -> None:
        """Runs the file once."""
        self._call("invoke")

    def timed_invoke(self) -> float:
        """Runs the file once, and returns the seconds that it took."""
        return self._call("timed_invoke")[0]

    def values(self, index: int) -> np.ndarray:
        """The values of a tensor."""
        return self._call("values", index)[1][0]

    def _call(self, name, *arguments, arrays=()):
        return self._process.call(name, *arguments, arrays=arrays, samples=self._samples)


def _end(child):
    child.kill()
    child.wait()
    for stream in (child.stdin, child.stdout):
        with contextlib.suppress(OSError):  # what a dead child did not read
            stream.close()


def _seconds():
    text = os.environ.get(_SECONDS_VARIABLE, str(_SECONDS))
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0
    if not 0 < seconds < threading.TIMEOUT_MAX:
        raise ValueError(f"{_SECONDS_VARIABLE} should be a number of seconds, greater than 0; it is {text!r}.")
    return seconds


def _reason(status):
    names = {int(member): member.name for member in signal.Signals}
    how = f"the signal {names.get(-status, -status)}" if status < 0 else f"status {status}"
    return (
        f"it ended the process that ran it with {how}. The file is damaged, or one of its operators fails in this "
        "runtime. Export or copy it again."
    )
