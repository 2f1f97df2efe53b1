"""Installs keras-mot with the lowest or the newest versions that it allows, and runs everything once on each backend.

With the lowest versions, the main part of the suite runs on TensorFlow too.

Each set of versions has a virtual environment in the checkout, `.venv-lowest` and `.venv-newest`, which is made anew
only if the bounds in `pyproject.toml` or the interpreter have changed. What is installed is a wheel of the checkout.
"""

import argparse
import hashlib
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib

ROOT = pathlib.Path(__file__).resolve().parents[2]
BACKENDS = ("tensorflow", "jax", "torch")
KINDS = ("lowest", "newest")
# What of the suite runs with the lowest versions, on the backend that exports: how Keras is extended, transforms, every
# layer with every technique, the graph, training by schedule, quantization after and in training, and export.
MAIN_PART = (
    "tests/test_wall.py",
    "tests/transforms",
    "tests/layers/test_conformance.py",
    "tests/layers/test_frozen.py",
    "tests/layers/test_refusals.py",
    "tests/layers/test_steps.py",
    "tests/graph",
    "tests/sparsity/test_prune.py",
    "tests/clustering/test_cluster.py",
    "tests/quantization/test_nested_settings.py",
    "tests/quantization/test_quantize_config.py",
    "tests/export/test_stand_ins.py",
)
_BUILT_FROM = ("keras_mot*", "tests", "benchmarks", "pyproject.toml", "README.md", "LICENSE")


def lower_bounds(project):
    """The constraints that hold every requirement of a `[project]` table to the least version it allows."""
    lists = [project["dependencies"], *project["optional-dependencies"].values()]
    bounds = [re.match(r"([\w.-]+)>=([\w.]+)", requirement) for requirements in lists for requirement in requirements]
    return sorted({f"{bound[1]}=={bound[2]}" for bound in bounds if bound})


def constraints(kind, pins):
    """Lines for pip: those of `kind`, or those of `pins` for the same packages."""
    pinned = {pin.split("==")[0] for pin in pins}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    bounds = lower_bounds(project) if kind == "lowest" else []
    return [bound for bound in bounds if bound.split("==")[0] not in pinned] + list(pins)


def environment(kind, python, lines):
    """The interpreter of the environment for a kind, which is made if there is none with these constraints."""
    version = subprocess.run([python, "-VV"], capture_output=True, text=True, check=True).stdout
    key = hashlib.sha256("\n".join([version, *lines]).encode()).hexdigest()
    folder = ROOT / f".venv-{kind}"
    stamp = folder / ".key"
    if not stamp.is_file() or stamp.read_text() != key:
        shutil.rmtree(folder, ignore_errors=True)
        subprocess.run([python, "-m", "venv", folder], check=True)
        stamp.write_text(key)
    return folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def install(python, lines, extras):
    """Installs a wheel of the checkout, built from a copy: setuptools packs what earlier builds have left behind."""
    with tempfile.TemporaryDirectory() as folder:
        copy = pathlib.Path(folder) / "checkout"
        copy.mkdir()
        for path in (path for pattern in _BUILT_FROM for path in ROOT.glob(pattern)):
            if path.is_dir():
                shutil.copytree(path, copy / path.name, ignore=shutil.ignore_patterns("__pycache__", "results"))
            else:
                shutil.copy(path, copy)
        (copy / "constraints.txt").write_text("\n".join(lines))
        pip = [python, "-m", "pip", "--disable-pip-version-check"]
        source = [f"{copy}[{','.join(extras)}]", "--constraint", copy / "constraints.txt"]
        subprocess.run([*pip, "install", "--quiet", "--quiet", *source], check=True)
        subprocess.run([*pip, "check"], check=True)


def install_runner(python, lines):
    """Installs what the main part of the suite needs, of the versions that are allowed least."""
    names = [line for line in lines if line.split("==")[0] in ("pytest", "scikit-learn")]
    pip = [python, "-m", "pip", "--disable-pip-version-check", "install", "--quiet", "--quiet"]
    subprocess.run([*pip, *names], check=True)


def smoke(python, backend):
    """Runs the smoke script on a backend, away from the checkout; returns whether it passed."""
    with tempfile.TemporaryDirectory() as folder:
        command = [python, ROOT / "tests" / "versions" / "smoke.py"]
        process = subprocess.run(
            command, cwd=folder, env=variables_for(backend), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
    print(process.stdout if process.returncode else process.stdout.splitlines()[-1], flush=True)
    return process.returncode == 0


def main_part(python, backend):
    """Runs the main part of the suite, away from the checkout, so that it is the wheel that is tested."""
    with tempfile.TemporaryDirectory() as folder:
        shutil.copytree(ROOT / "tests", pathlib.Path(folder) / "tests")
        shutil.copy(ROOT / "pyproject.toml", folder)
        command = [python, "-m", "pytest", "-q", *MAIN_PART]
        variables = variables_for(backend) | {"OMP_NUM_THREADS": "1"}  # the models are tiny
        process = subprocess.run(
            command, cwd=folder, env=variables, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
    print(process.stdout if process.returncode else process.stdout.splitlines()[-1], flush=True)
    return process.returncode == 0


def variables_for(backend):
    """The environment variables of a run on a backend."""
    variables = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    return variables | {
        "KERAS_BACKEND": backend,
        "TF_CPP_MIN_LOG_LEVEL": "3",
        "CUDA_VISIBLE_DEVICES": "",
        "PYTHONWARNINGS": "ignore",
    }


def main():
    """Runs the kinds of versions that are asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kinds", nargs="*", default=KINDS, help=f"of {', '.join(KINDS)}; default: both")
    parser.add_argument("--python", default=sys.executable, help="interpreter to make the environments with")
    parser.add_argument("--backends", nargs="+", choices=BACKENDS, default=BACKENDS)
    parser.add_argument("--pin", nargs="*", default=[], metavar="NAME==VERSION", help="versions to use in any case")
    arguments = parser.parse_args()
    if unknown := set(arguments.kinds) - set(KINDS):
        parser.error(f"unknown kinds {sorted(unknown)}; choose from {', '.join(KINDS)}")
    failed = []
    for kind in arguments.kinds:
        print(f"=== {kind} versions ===", flush=True)
        started = time.monotonic()
        lines = constraints(kind, arguments.pin)
        python = environment(kind, arguments.python, lines)
        install(python, lines, ["tensorflow", "litert", *arguments.backends])
        with_suite = kind == "lowest" and "tensorflow" in arguments.backends
        if with_suite:
            install_runner(python, lines)
        print(f"installed in {time.monotonic() - started:.0f} s", flush=True)
        failed += [f"{kind} versions on {backend}" for backend in arguments.backends if not smoke(python, backend)]
        if with_suite and not main_part(python, "tensorflow"):
            failed.append("the suite's main part with the lowest versions on tensorflow")
        print(f"=== {kind} versions: {time.monotonic() - started:.0f} s ===", flush=True)
    if failed:
        sys.exit(f"failed: {'; '.join(failed)}")


if __name__ == "__main__":
    main()
