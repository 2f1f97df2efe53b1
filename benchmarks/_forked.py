"""Runs functions in processes that can be killed, without paying for the imports each time: a process that has imported
everything forks one for each call. Needs `os.fork`.

with Workshop("module", "tensorflow") as workshop:
    outcome = workshop.call("function", "argument", kill_after=1.5)
"""

import contextlib
import dataclasses
import json
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import time

_POLL = 0.005  # seconds


@dataclasses.dataclass(frozen=True)
class Outcome:
    """How a call ended.

    Attributes:
        code: exit code, negative for a signal.
        seconds: that it took.
        value: what the function returned, if it did.
        text: what it printed.
    """

    code: int
    seconds: float
    value: object
    text: str

    @property
    def last_line(self):
        return (self.text.strip().splitlines() or [""])[-1]


class Workshop:
    """A process that has imported a module of this folder, and forks to call its functions.

    Args:
        module: its name.
        backend: that of Keras.
    """

    def __init__(self, module, backend):
        self._command = [sys.executable, __file__, module]
        self._environment = {**os.environ, "KERAS_BACKEND": backend, "TF_CPP_MIN_LOG_LEVEL": "3"}

    def __enter__(self):
        root = pathlib.Path(__file__).resolve().parent.parent
        paths = [str(root), *filter(None, [self._environment.get("PYTHONPATH")])]
        self._process = subprocess.Popen(
            self._command,
            env={**self._environment, "PYTHONPATH": os.pathsep.join(paths)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        self._answer()
        return self

    def __exit__(self, *error):
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()

    def start(self, function, *arguments, file_size=None):
        """Begins a call; returns what `end` takes. `file_size`: the most bytes of a file that it may write."""
        return self._ask({"start": [function, list(map(_plain, arguments)), file_size]})

    def end(self, started, kill_after=None):
        """Waits for a call, and kills it `kill_after` seconds after it began; returns its `Outcome`."""
        return Outcome(**self._ask({"end": [started, kill_after]}))

    def call(self, function, *arguments, kill_after=None, file_size=None):
        return self.end(self.start(function, *arguments, file_size=file_size), kill_after)

    def _ask(self, request):
        print(json.dumps(request), file=self._process.stdin, flush=True)
        return self._answer()

    def _answer(self):
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"The process of {' '.join(self._command)} ended with {self._process.wait()}.")
        return json.loads(line)


def _plain(argument):
    return str(argument) if isinstance(argument, pathlib.Path) else argument


class _Server:
    """The process that forks."""

    def __init__(self, module):
        self._module, self._calls = module, {}

    def start(self, function, arguments, file_size):
        folder = tempfile.TemporaryDirectory(prefix="forked_")
        start, process = time.monotonic(), os.fork()
        if process == 0:
            _work(pathlib.Path(folder.name), getattr(self._module, function), arguments, file_size)
        self._calls[process] = start, folder
        return process

    def end(self, process, kill_after):
        start, folder = self._calls.pop(process)
        ended = 0
        while not ended:
            if kill_after is not None and time.monotonic() - start > kill_after:
                os.kill(process, signal.SIGKILL)
                ended, status = os.waitpid(process, 0)
                break
            time.sleep(_POLL)
            ended, status = os.waitpid(process, os.WNOHANG)
        seconds = time.monotonic() - start
        with folder:
            place = pathlib.Path(folder.name)
            text = (place / "text").read_text(errors="replace") if (place / "text").exists() else ""
            value = None
            with contextlib.suppress(OSError, ValueError):
                value = json.loads((place / "value").read_text())
        return {"code": os.waitstatus_to_exitcode(status), "seconds": seconds, "value": value, "text": text}


def _work(folder, function, arguments, file_size):
    """The life of a forked process."""
    code = 1
    try:
        output = os.open(folder / "text", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        for descriptor in (1, 2):
            os.dup2(output, descriptor)
        if file_size is not None:
            import resource

            resource.setrlimit(resource.RLIMIT_FSIZE, (file_size, file_size))
        value = function(*arguments)
        (folder / "value").write_text(json.dumps(value))
        code = value if isinstance(value, int) and not isinstance(value, bool) else 0
    except BaseException as error:
        print(f"{type(error).__name__}: {error}")
    finally:
        with contextlib.suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def main():
    answers = os.fdopen(os.dup(1), "w")  # what is imported may print
    os.dup2(2, 1)
    sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
    module = __import__(sys.argv[1])
    module.prepare()
    server = _Server(module)
    print(json.dumps("ready"), file=answers, flush=True)
    for line in sys.stdin:
        ((request, arguments),) = json.loads(line).items()
        print(json.dumps(getattr(server, request)(*arguments)), file=answers, flush=True)


if __name__ == "__main__":
    main()
