"""Runs the whole suite once per Keras backend, and says how each part of it ended.

The suite is cut into parts by subject. Every part on every backend is a job of one process: as many jobs run at once as
there are workers, those that take longest first, so that no worker waits while another one finishes a backend. Within a
part, what modules and the session share is made once. `--also` runs another command as one more job.
"""

import argparse
import concurrent.futures
import dataclasses
import os
import pathlib
import shlex
import shutil
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
NO_TESTS = 5  # pytest's exit status if nothing was selected
# The parts, those that take longest first; the last one is whatever the others leave.
PARTS = {
    "quantization": ("quantization",),
    "techniques": ("clustering", "graph", "layers", "sparsity", "transforms"),
    "files": ("cli", "export"),
    "guides and recipes": ("docs", "recipes"),
    "the rest": (),
}


@dataclasses.dataclass(frozen=True)
class Job:
    """A part of the suite on a backend.

    Args:
        backend: name of the backend.
        part: name of the part.
        first: whether it is the backend on which tests run that have no backend in them.
    """

    backend: str
    part: str
    first: bool

    def __str__(self):
        return f"{self.part} on {self.backend}"

    def run(self, options, folder):
        """Runs the tests; returns whether they passed, and prints how they ended."""
        command = [sys.executable, "-m", "pytest", "-q", *paths_of(self.part), *options]
        command += [] if self.first else ["--without-backend-independent"]
        return ended_well(self, command, environment(self.backend, folder), (0, NO_TESTS))


@dataclasses.dataclass(frozen=True)
class Command:
    """Another command that is run beside the parts.

    Args:
        line: as in a shell.
    """

    line: str

    def __str__(self):
        return f"`{self.line}`"

    def run(self, options, folder):
        """Runs it; returns whether it ended with status 0, and prints how it ended."""
        return ended_well(self, shlex.split(self.line), os.environ, (0,))


def ended_well(job, command, variables, statuses):
    """Runs the command of a job, and prints how it ended; returns whether it ended with one of the statuses."""
    print(f"--- {job} ...", flush=True)
    started = time.monotonic()
    ended = subprocess.run(
        command, cwd=ROOT, env=variables, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    passed = ended.returncode in statuses
    lines = ended.stdout.strip().splitlines() or ["no output"]
    word = "passed" if passed else "FAILED"
    text = "\n".join([*([] if passed else lines), f"--- {job} {word}: {lines[-1]}"])
    print(f"{text} ({time.monotonic() - started:.0f} s with the start)", flush=True)
    return passed


def paths_of(part):
    """The folders and files of a part, below the checkout."""
    named = {folder for folders in PARTS.values() for folder in folders}
    if PARTS[part]:
        return [f"tests/{folder}" for folder in PARTS[part]]
    tests = ROOT / "tests"
    folders = [path for path in tests.iterdir() if path.is_dir() and any(path.rglob("test_*.py"))]
    others = [*tests.glob("test_*.py"), *folders]
    return sorted(f"tests/{path.name}" for path in others if path.name not in named)


def environment(backend, folder):
    """The variables of a job on a backend; `folder` lies where the jobs of one run share what they compile."""
    variables = {
        **os.environ,
        "KERAS_BACKEND": backend,
        "TF_CPP_MIN_LOG_LEVEL": "3",
        "CUDA_VISIBLE_DEVICES": "",
        # One intra-op thread a worker: the models are tiny, and the workers already fill the cores.
        "OMP_NUM_THREADS": "1",
    }
    if backend == "jax":
        variables |= {
            # Models are alike, and a reloaded one compiles to the same programs: JAX need not compile them twice.
            # Even the smallest, one operation on one shape, is read in a third of the time.
            "JAX_COMPILATION_CACHE_DIR": folder,
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
            # XLA's optimizations take longer than these models then run: two fifths of all the time on JAX.
            "XLA_FLAGS": " ".join([os.environ.get("XLA_FLAGS", ""), "--xla_backend_optimization_level=0"]).strip(),
        }
    return variables


def room():
    """How many jobs may run at once: one for each core, of 4 GB each; two, if there is less."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    names = getattr(os, "sysconf_names", {})
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") if "SC_PHYS_PAGES" in names else 8 << 30
    return max(2, min(cores, pages // (4 << 30)))


def main():
    """Runs the parts on the backends that are asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("backends", nargs="+", choices=["tensorflow", "jax", "torch"])
    parser.add_argument(
        "--workers", type=int, default=0, help="jobs that run at once; by default, what there is room for"
    )
    parser.add_argument("--also", default="", help="a command that is run as a job, too, before the others")
    arguments, options = parser.parse_known_args()
    backends = list(dict.fromkeys(arguments.backends))
    jobs = [Command(arguments.also)] if arguments.also else []
    jobs += [Job(backend, part, backend == backends[0]) for part in PARTS for backend in backends]
    folder = tempfile.mkdtemp(prefix="keras-mot-jax-cache-")
    started = time.monotonic()
    try:
        with concurrent.futures.ThreadPoolExecutor(arguments.workers or room()) as pool:
            passed = list(pool.map(lambda job: job.run(options, folder), jobs))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    failed = [str(job) for job, ended in zip(jobs, passed, strict=True) if not ended]
    print(f"{time.monotonic() - started:.0f} s in all.")
    if failed:
        sys.exit(f"failed: {'; '.join(failed)}")
    print(f"All backends passed: {', '.join(backends)}.")


if __name__ == "__main__":
    main()
