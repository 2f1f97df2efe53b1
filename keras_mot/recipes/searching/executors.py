"""Where the trials of a search run: in this process, in others of this machine, or on a Ray cluster."""

import abc
import contextlib
import os
import pathlib
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

from keras_mot._messages import describe
from keras_mot._packages import how_to_install, is_installed

_POLL = 0.2  # seconds
_LAST = 2000  # characters of what a failed process said


class LostTrialError(RuntimeError):
    """A trial ended without a result: its process was killed, ran out of memory, or raised an error."""


class Executor(abc.ABC):
    """Runs trials. One of your own is a class with `workers` and `submit`.

    Attributes:
        workers: how many trials run at once.
        shares_process: whether trials run in this process, and need no files of the model and the data.
    """

    workers: int = 1
    shares_process: bool = False

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Holds what the executor needs while trials run."""
        yield

    @abc.abstractmethod
    def submit(self, folder: pathlib.Path, number: int) -> Any:
        """Begins a trial.

        Args:
            folder: of the search, in which the trial finds what it needs, and leaves its result.
            number: of the trial.

        Returns:
            An object with `done()`, whether it has ended; `wait()`, which raises a `LostTrialError` if there is no
            result; and `stop()`.
        """


class Processes(Executor):
    """Each trial in a process of its own on this machine; a killed one loses its trial and nothing else.

    Args:
        workers: how many run at once.
    """

    def __init__(self, workers: int = 2):
        self.workers = workers

    def submit(self, folder, number):
        """See `Executor.submit`."""
        return _Process(folder, number)


class _Process:
    def __init__(self, folder, number):
        self._log = pathlib.Path(folder) / f"trial-{number:04d}.log"
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "keras_mot.recipes.searching.worker", os.fspath(folder), str(number)],
                stdout=log,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
            )

    def done(self):
        return self._process.poll() is not None

    def wait(self):
        code = self._process.wait()
        if code:
            said = self._log.read_text(errors="replace")[-_LAST:].strip()
            how = f"was killed by signal {-code}" if code < 0 else f"ended with code {code}"
            raise LostTrialError(f"Its process {how}.{' It said: ' if said else ''}{said}")

    def stop(self):
        self._process.kill()
        self._process.wait()


class Ray(Executor):
    """Each trial as a task of a Ray cluster, whose machines see the folder of the search under the same path.

    Uses the cluster that `ray.init` was called for, or the one of `RAY_ADDRESS`, or begins one on this machine. A
    killed worker, or a lost machine, loses its trial and nothing else.

    Args:
        workers: how many trials run at once; by default, as many as the cluster has places for.
        resources: what a trial needs, as `ray.remote` takes it: `{"num_cpus": 1, "num_gpus": 1}`. By default one CPU.

    Raises:
        ImportError: if Ray is not installed.
    """

    def __init__(self, workers: int | None = None, resources: dict[str, Any] | None = None):
        if not is_installed("ray"):
            raise ImportError(f"`executor='ray'` needs Ray. Install with: {how_to_install('ray')}")
        self._asked, self._resources, self._task = workers, {"num_cpus": 1, **(resources or {})}, None
        self.workers = workers or 1

    @contextlib.contextmanager
    def running(self):
        """Connects to the cluster; one that was begun for the search ends with it."""
        import ray

        ours = not ray.is_initialized()
        if ours:
            ray.init(include_dashboard=False, log_to_driver=False, configure_logging=False)
        try:
            if self._asked is None:
                there = ray.cluster_resources().get("CPU", 1) // max(1, self._resources["num_cpus"])
                self.workers = max(1, int(there))
            # Each trial in a new process: what Keras keeps between models does not add up.
            self._task = ray.remote(max_retries=0, max_calls=1, **self._resources)(_ray_trial)
            yield
        finally:
            self._task = None
            if ours:
                ray.shutdown()

    def submit(self, folder, number):
        """See `Executor.submit`."""
        paths = [path for path in sys.path if path]
        return _RayTrial(self._task.remote(os.fspath(folder), number, paths, os.environ.get("KERAS_BACKEND")))


def _ray_trial(folder, number, paths, backend):
    """Runs in a worker of the cluster. Nothing of keras-mot is imported before the paths are those of the search."""
    sys.path.extend(path for path in paths if path not in sys.path)
    if backend:
        os.environ["KERAS_BACKEND"] = backend
    from keras_mot.recipes.searching.worker import work

    work(folder, number)
    return number


# By value, so that workers need not find this module before they have the paths.
_ray_trial.__module__ = "__main__"


class _RayTrial:
    def __init__(self, reference):
        self._reference = reference

    def done(self):
        import ray

        return bool(ray.wait([self._reference], timeout=0)[0])

    def wait(self):
        import ray

        try:
            ray.get(self._reference)
        except ray.exceptions.RayError as error:
            raise LostTrialError(f"Its Ray task failed: {error}") from error

    def stop(self):
        import ray

        ray.cancel(self._reference, force=True)


class InProcess(Executor):
    """One trial after the other in this process: the default."""

    shares_process = True

    def __init__(self):
        self._run = None

    def bind(self, run) -> None:
        """Tells how a trial is run: a function of its number."""
        self._run = run

    def submit(self, folder, number):
        """See `Executor.submit`."""
        return _Done(self._run, number)


class _Done:
    def __init__(self, run, number):
        self._error = None
        try:
            run(number)
        except Exception as error:
            self._error = error

    def done(self):
        return True

    def wait(self):
        if self._error is not None:
            raise LostTrialError(f"{type(self._error).__name__}: {self._error}") from self._error

    def stop(self):
        pass


_EXECUTORS = {"local": InProcess, "processes": Processes, "ray": Ray}


def find_executor(executor: "Executor | str") -> Executor:
    """An executor by itself, or by its name: "local", "processes" or "ray".

    Raises:
        TypeError: if it is neither.
        ValueError: if there is none of that name.
        ImportError: if a package that it needs is missing.
    """
    if isinstance(executor, Executor):
        return executor
    if not isinstance(executor, str):
        raise TypeError(f"`executor` should be an `Executor` or its name; received {describe(executor)}.")
    if executor not in _EXECUTORS:
        raise ValueError(f"`executor` should be one of {tuple(_EXECUTORS)}; received {describe(executor)}.")
    return _EXECUTORS[executor]()


def first_done(running: "dict[int, Any]") -> int:
    """The number of a trial that has ended; waits for one."""
    while True:
        for number, trial in running.items():
            if trial.done():
                return number
        time.sleep(_POLL)
