"""Tries `.tflite` files from elsewhere in a child process, before the runtime runs them in this one.

The checks of a file (`_flatbuffer.py`, `_file_checks.py`) cover what it says. What its operators make of that only the
runtime knows, and it ends the process where it does not check. So a child process loads the file and runs it, on the
same kernels, for one batch of its own size and one of another size where that is open. If the child dies, that is an
error here; if it lives, the file runs in this process as any other, and its latency is that of the runtime alone.
"""

import hashlib
import json
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence

from keras_mot._memory import available_bytes
from keras_mot.export._litert_file import read_content

_WORKER = pathlib.Path(__file__).with_name("_probe_worker.py")
_KERNELS = ("default", "reference")
_SECONDS = 60
_SECONDS_VARIABLE = "KERAS_MOT_PROBE_SECONDS"

_known = set()  # (digest of the content, kernels) of files that need no trial, or have passed it


def trust(content: bytes) -> None:
    """Exempts a file that was made in this process from the trial."""
    _known.update((_digest(content), kernels) for kernels in _KERNELS)


def check_runs(sources: Sequence[str | os.PathLike | bytes], kernels: str = "default") -> None:
    """Tries the files that this process has neither made nor tried, all in one child process.

    Args:
        sources: Paths or contents of `.tflite` files that `parse_model` has found whole.
        kernels: "default" or "reference", as of `LiteRTRunner`.

    Raises:
        ValueError: A file ends the process, cannot be loaded, or takes too long.
    """
    unknown = {}  # digest -> (what to call it, path or content)
    for source in sources:
        content, label = read_content(source)
        digest = _digest(content)
        if (digest, kernels) not in _known:
            unknown[digest] = label, source
    if not unknown:
        return
    with tempfile.TemporaryDirectory(prefix="keras_mot_probe_") as folder:
        paths = []
        for number, (_, source) in enumerate(unknown.values()):
            if isinstance(source, (str, os.PathLike)):
                paths.append(os.fspath(source))
            else:
                paths.append(os.path.join(folder, f"{number}.tflite"))
                pathlib.Path(paths[-1]).write_bytes(source)
        answers, ending = _run_child(paths, kernels)
    for (label, _), answer in zip(unknown.values(), [*answers, None], strict=False):
        if answer is None:
            raise ValueError(f"The LiteRT runtime cannot run {label}: {ending}")
        if answer:
            raise ValueError(f"The LiteRT runtime cannot load {label}: {answer[0]}")
    _known.update((digest, kernels) for digest in unknown)


def _digest(content):
    return hashlib.sha256(content).digest()


def _run_child(paths, kernels):
    """The child's answers, a list for each file until its end, and how it ended."""
    seconds = _seconds() * len(paths)
    task = json.dumps({"paths": paths, "kernels": kernels, "memory": available_bytes()})
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path or os.getcwd() for path in sys.path)}
    # The script runs by itself, since importing this package would load Keras and its backend.
    command = [sys.executable, "-P", str(_WORKER)]
    try:
        child = subprocess.run(
            command,
            env=environment,
            input=task.encode(),
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=seconds,
        )
        output, ending = child.stdout, _ending(child.returncode)
    except subprocess.TimeoutExpired as error:
        output = error.stdout or b""
        ending = f"it takes more than {seconds:g} seconds for a trial. Set {_SECONDS_VARIABLE} if it should."
    return [json.loads(line) for line in output.decode().splitlines() if line.endswith("]")], ending


def _seconds():
    text = os.environ.get(_SECONDS_VARIABLE, str(_SECONDS))
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0
    if not 0 < seconds < float("inf"):
        raise ValueError(f"{_SECONDS_VARIABLE} should be a number of seconds, greater than 0; it is {text!r}.")
    return seconds


def _ending(status):
    if status < 0:
        try:
            name = signal.Signals(-status).name
        except ValueError:
            name = str(-status)
        return (
            f"it ended the process that tried it with the signal {name}. The file is damaged, or one of its operators "
            "fails in this runtime. Export or copy it again."
        )
    return f"the process that tried it ended with status {status}. Export or copy the file again."
