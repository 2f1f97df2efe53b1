"""Runs the whole suite once per Keras backend, each in its own process, and says how each one ended."""

import argparse
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("backends", nargs="+", choices=["tensorflow", "jax", "torch"])
    parser.add_argument("--workers", type=int, default=2)
    arguments, pytest_arguments = parser.parse_known_args()
    failed = []
    cache = tempfile.mkdtemp(prefix="keras-mot-jax-cache-")
    for backend in arguments.backends:
        print(f"=== backend {backend} ===", flush=True)
        # One intra-op thread a worker: the models are tiny, and the workers already fill the cores.
        environment = {
            **os.environ,
            "KERAS_BACKEND": backend,
            "TF_CPP_MIN_LOG_LEVEL": "3",
            "CUDA_VISIBLE_DEVICES": "",
            "OMP_NUM_THREADS": "1",
            # A saved and reloaded model compiles to the same program: JAX need not compile it twice.
            "JAX_COMPILATION_CACHE_DIR": cache,
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.2",
        }
        command = [sys.executable, "-m", "pytest", "-q", "-n", str(arguments.workers), "--dist", "worksteal"]
        started = time.monotonic()
        status = subprocess.run(command + pytest_arguments, cwd=ROOT, env=environment).returncode
        print(f"=== backend {backend}: {'passed' if status == 0 else 'FAILED'}", end=" ")
        print(f"in {time.monotonic() - started:.0f} s ===", flush=True)
        if status != 0:
            failed.append(backend)
    shutil.rmtree(cache, ignore_errors=True)
    if failed:
        sys.exit(f"failed on: {', '.join(failed)}")
    print(f"All backends passed: {', '.join(arguments.backends)}.")


if __name__ == "__main__":
    main()
