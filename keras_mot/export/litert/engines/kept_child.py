"""The process that converts with TensorFlow, kept for the next export: TensorFlow takes seconds to start.

It ends with this process, after `IDLE` seconds without work, and where what it has imported may be out of date.
"""

import atexit
import contextlib
import os
import pathlib
import subprocess
import sys
import sysconfig
import tempfile
import threading
import time

from keras_mot.export.litert.engines.worker import DONE

IDLE = 120.0
"""Seconds after which a process without work ends."""

_LAST_LINES = 15
_OF_NO_MATTER = ("PYTEST_CURRENT_TEST",)  # what tests are told by, and no code is meant to read
_INSTALLED = tuple(f"{path}{os.sep}" for path in {sys.prefix, sys.base_prefix, *sysconfig.get_paths().values()})
_LOCK = threading.Lock()
_kept = None


def run(directory: pathlib.Path, classes: list[type]) -> None:
    """Has the task of a folder done, see `worker`, in the process that is kept, or in a new one.

    Args:
        directory: holds `model.keras` and `task.json`; `answer.json` and files come to lie there.
        classes: the user's own, which the process imports.

    Raises:
        RuntimeError: if the process ends without an answer.
    """
    global _kept
    with _LOCK:
        if _kept is not None and not _kept.suits(classes):
            _kept.end()
            _kept = None
        try:
            if _kept is None or not _kept.does(directory):  # it may have ended just now, having waited for too long
                _end()
                _kept = _Child()
                if not _kept.does(directory):
                    raise RuntimeError(
                        f"The process that converts the model with TensorFlow ended with status {_kept.status()}. Run "
                        f"the export with KERAS_BACKEND=tensorflow to see more. Its last words:\n{_kept.last_words()}"
                    )
            _kept.knows(classes)
        except BaseException:  # an interrupted one may still be at work
            if _kept is not None:
                _kept.end()
            _kept = None
            raise


@atexit.register
def _end():
    if _kept is not None:
        _kept.end()


class _Child:
    """A process, what it was started with, and the user's classes that it has imported."""

    def __init__(self):
        self._environment, self._parent, self._classes = _environment(), os.getpid(), {}
        self._started = time.time()
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - closed when the process is ended
        command = [sys.executable, "-m", "keras_mot.export.litert.engines.worker", str(IDLE)]
        self._process = subprocess.Popen(
            command,
            env=self._environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
            encoding="utf-8",
        )

    def suits(self, classes):
        """Whether it would do a task as a new one would."""
        if self._process.poll() is not None or self._parent != os.getpid() or self._environment != _environment():
            return False
        known = all(self._classes.get(_name(kind), kind) is kind for kind in classes)
        return known and not any(_written(path) > self._started for path in _own_files())

    def does(self, directory):
        """Has a task done; returns whether there is an answer."""
        try:
            self._process.stdin.write(f"{directory}\n")
            self._process.stdin.flush()
        except OSError:
            return False
        for line in self._process.stdout:  # what libraries print while it starts is no answer
            if line.strip() == DONE:
                return (directory / "answer.json").is_file()
        return False

    def knows(self, classes):
        """Notes which classes it has imported."""
        self._classes |= {_name(kind): kind for kind in classes}

    def status(self):
        """What it has ended with, once it has closed its outputs."""
        return self._process.wait()

    def last_words(self):
        """The end of what it has printed."""
        self._log.seek(0)
        lines = self._log.read().decode(errors="replace").strip().splitlines()
        return "\n".join(lines[-_LAST_LINES:])

    def end(self):
        """Ends it, where it is this process that has started it and not one that was forked since."""
        if self._parent != os.getpid():
            return
        for stream in (self._process.stdin, self._process.stdout, self._log):
            with contextlib.suppress(OSError):
                stream.close()
        if self._process.poll() is None:
            self._process.terminate()
        self._process.wait()


def _environment():
    return {
        **{name: value for name, value in os.environ.items() if name not in _OF_NO_MATTER},
        "KERAS_BACKEND": "tensorflow",
        "CUDA_VISIBLE_DEVICES": "-1",
        "TF_CPP_MIN_LOG_LEVEL": "3",
        "PYTHONPATH": os.pathsep.join(path or os.getcwd() for path in sys.path),
    }


def _name(kind):
    return kind.__module__, kind.__qualname__


def _own_files():
    """The files of the modules that this process has imported from elsewhere than where packages are installed."""
    files = {getattr(module, "__file__", None) for module in list(sys.modules.values())}
    return [path for path in files if isinstance(path, str) and not path.startswith(_INSTALLED)]


def _written(path):
    try:
        return os.stat(path).st_mtime
    except OSError:
        return 0.0
