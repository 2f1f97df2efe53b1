"""What is installed of what the package can use, read from its own metadata: which versions, and whether they load."""

import concurrent.futures
import dataclasses
import importlib.metadata
import os
import platform
import subprocess
import sys

from keras_mot._backend import BACKENDS, configured_backend
from keras_mot._packages import is_installed, module_of

PURPOSES = {
    "": "the package itself",
    "tensorflow": "the backend that the export needs, too",
    "jax": "the backend JAX",
    "torch": "the backend PyTorch",
    "litert": "export to .tflite files, measuring, `compress`",
    "micro": "proof on microcontrollers' interpreter",
    "ethos-u": "compiled files for Ethos-U NPUs",
    "onnx": "export to .onnx files, ONNX Runtime",
    "openvino": "a second runtime that proves .onnx files",
    "pack": "files for download",
    "tensorboard": "summaries of training",
    "demo": "`keras-mot demo`",
    "search": "searches for a budget",
    "ray": "searches on a Ray cluster",
    "plot": "pictures",
    "completion": "completion in shells",
}
"""What each extra is for, in a few words; "" is what is always needed."""
_FOR_DEVELOPERS = ("examples", "docs", "test", "benchmarks", "all")
_NAMES = {"tensorflow-cpu": ("tensorflow-cpu", "tensorflow", "tensorflow-intel"), "tensorflow": ("tensorflow",)}
_SECONDS = 300
_DEVICES = {
    "tensorflow": "print('GPU' if tensorflow.config.list_physical_devices('GPU') else 'CPU')",
    "jax": "print(jax.devices()[0].platform.upper())",
    "torch": "print('CUDA' if torch.cuda.is_available() else 'CPU')",
}


@dataclasses.dataclass(frozen=True)
class Requirement:
    """A package that an extra asks for.

    Attributes:
        name: of the package.
        versions: which ones are asked for, such as ">=0.10"; "" for any.
        extra: the name of the extra; "" for what is always needed.
        found: the version that is installed, or `None`.
        device: what a backend computes on, such as "CPU"; `None` where that was not looked at.
        problem: what is wrong, in words, or `None`.
    """

    name: str
    versions: str
    extra: str
    found: str | None
    device: str | None
    problem: str | None

    @property
    def state(self) -> str:
        """In a word or a few."""
        if self.problem is not None:
            return self.problem
        return "missing" if self.found is None else "ok" if self.device is None else f"ok, {self.device}"

    @property
    def command(self) -> str:
        """The command that installs it."""
        return f'pip install "{self.name}{self.versions}"'


@dataclasses.dataclass(frozen=True)
class Installation:
    """What was found.

    Attributes:
        python: its version.
        system: the operating system and the processor.
        package: the version of keras-mot.
        backend: the backend that Keras will take.
        backend_from: what says so.
        requirements: tuple of `Requirement`, what is always needed first.
        unavailable: dictionary from extras to why there is nothing to install for them here.
    """

    python: str
    system: str
    package: str
    backend: str
    backend_from: str
    requirements: tuple[Requirement, ...]
    unavailable: dict[str, str]

    @property
    def problems(self) -> list[str]:
        """What keeps the package, or something that is installed, from working; each a line with what to do."""
        lines = [f"{each.name}: {each.problem}; {each.command}" for each in self.requirements if each.problem]
        lines += [f"{each.name} is missing; {each.command}" for each in self.requirements if self._is_needed(each)]
        backends = {each.extra: each for each in self.requirements if each.extra in BACKENDS}
        there = [name for name, each in backends.items() if each.found is not None]
        if not there:
            commands = ", or ".join(each.command for each in backends.values())
            lines.append(f"there is no backend: {commands}")
        elif self.backend not in there and (len(there) > 1 or os.environ.get("KERAS_BACKEND")):
            lines.append(
                f"Keras will take the backend '{self.backend}' ({self.backend_from}), which is missing: set "
                f"KERAS_BACKEND to {' or '.join(there)}."
            )
        return lines

    @staticmethod
    def _is_needed(requirement):
        return requirement.extra == "" and requirement.found is None


def installation(load: bool = True) -> Installation:
    """Looks at what is installed.

    Args:
        load: whether what is installed is loaded, too, each package in a process of its own: some seconds.

    Returns:
        An `Installation`.
    """
    requirements, unavailable = _requirements()
    if load:
        with concurrent.futures.ThreadPoolExecutor(max_workers=os.cpu_count() or 1) as pool:
            requirements = list(pool.map(_loaded, requirements))
    backend, source = configured_backend()
    return Installation(
        platform.python_version(),
        f"{platform.system()} {platform.machine()}",
        importlib.metadata.version("keras-mot"),
        backend,
        source,
        tuple(requirements),
        unavailable,
    )


def _requirements():
    from packaging.requirements import Requirement as Parsed

    parsed = [Parsed(line) for line in importlib.metadata.requires("keras-mot") or ()]
    found, unavailable = [], {}
    extras = importlib.metadata.metadata("keras-mot").get_all("Provides-Extra") or []
    for extra in ["", *(each for each in extras if each not in _FOR_DEVELOPERS)]:
        asking = [each for each in parsed if each.name != "keras-mot" and _asks(each, extra)]
        here = [each for each in asking if each.marker is None or each.marker.evaluate({"extra": extra})]
        found += [_requirement(each, extra) for each in here]
        if asking and not here:
            systems = str(asking[0].marker).partition(" and extra ==")[0].strip("()")
            unavailable[extra] = f"only where {systems}"
    return found, unavailable


def _asks(parsed, extra):
    """Whether a requirement belongs to an extra, on whatever system."""
    if extra == "":
        return parsed.marker is None or "extra ==" not in str(parsed.marker)
    return f'extra == "{extra}"' in str(parsed.marker)


def _requirement(parsed, extra):
    version = next(filter(None, map(_version, _NAMES.get(parsed.name, (parsed.name,)))), None)
    problem = None
    if version is not None and not parsed.specifier.contains(version, prereleases=True):
        problem = f"version {version} is outside of {parsed.specifier}"
    return Requirement(parsed.name, str(parsed.specifier), extra, version, None, problem)


def _version(name):
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _loaded(requirement):
    """The requirement, with the reason if it does not load; in a process of its own, which may crash."""
    if requirement.found is None:
        return requirement
    module = module_of(requirement.name)
    if not is_installed(module):
        return dataclasses.replace(requirement, problem=f"the module '{module}' is missing")
    if module == "keras":  # which loads a backend; each of these is tried by itself
        return requirement
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
    code = f"import {module}; {_DEVICES.get(module, '')}"
    try:
        ended = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, timeout=_SECONDS, env=environment
        )
    except subprocess.TimeoutExpired:
        return dataclasses.replace(requirement, problem=f"does not load within {_SECONDS} seconds")
    if ended.returncode != 0:
        last = (ended.stderr.strip().splitlines() or [f"exit code {ended.returncode}"])[-1]
        return dataclasses.replace(requirement, problem=f"does not load: {last}")
    lines = ended.stdout.split()
    return dataclasses.replace(requirement, device=lines[-1] if lines and module in _DEVICES else None)
