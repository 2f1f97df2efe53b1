"""Whether pip finds what keras-mot's extras need, for other platforms and Pythons than this one.

`python benchmarks/install_matrix.py`. Nothing is installed: pip resolves from wheels' metadata. It needs the network.
"""

import concurrent.futures
import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile
import tomllib

import _common

PYTHONS = ("3.11", "3.12", "3.13")
EXTRAS = ("tensorflow", "jax", "litert", "tensorboard", "demo")
SHOWN = ("tensorflow", "tensorflow-cpu", "ai-edge-litert", "keras", "jax", "numpy", "scikit-learn")
_GLIBC = (39, 35, 34, 31, 28, 27, 26, 17)  # the manylinux tags that a current distribution takes

PLATFORMS = {
    "macOS 14, Apple Silicon": {
        "tags": ["macosx_14_0_arm64"],
        "markers": {"sys_platform": "darwin", "platform_system": "Darwin", "platform_machine": "arm64"},
    },
    "Linux aarch64": {
        "tags": [f"manylinux_2_{minor}_aarch64" for minor in _GLIBC] + ["manylinux2014_aarch64"],
        "markers": {"sys_platform": "linux", "platform_system": "Linux", "platform_machine": "aarch64"},
    },
    "Linux x86-64": {
        "tags": [f"manylinux_2_{minor}_x86_64" for minor in _GLIBC] + ["manylinux2014_x86_64"],
        "markers": {"sys_platform": "linux", "platform_system": "Linux", "platform_machine": "x86_64"},
    },
    "Windows x86-64": {
        "tags": ["win_amd64"],
        "markers": {
            "sys_platform": "win32",
            "platform_system": "Windows",
            "platform_machine": "AMD64",
            "os_name": "nt",
        },
    },
}

# pip takes wheels for `--platform`, but evaluates markers, also those of what is needed in turn, for the interpreter it
# runs on. Here they are evaluated for the target.
_PIP = """
import json, sys
from pip._vendor.packaging import markers
target = {**markers.default_environment(), **json.loads(sys.argv.pop(1))}
markers.default_environment = lambda: dict(target)
from pip._internal.cli.main import main
sys.exit(main())
"""


def requirements(extra):
    """What an extra asks for beside the package's own dependencies, as lines for pip with their markers."""
    project = tomllib.loads((_common.ROOT / "pyproject.toml").read_text())["project"]
    lines = list(project["dependencies"])
    names = [extra]
    for name in names:
        for line in project["optional-dependencies"][name]:
            other = re.fullmatch(r"keras-mot\[(.+)\]", line)
            if other:
                names.extend(other[1].split(","))
            else:
                lines.append(line)
    # PyTorch brings CUDA, and metadata is not always to be had without the gigabytes: `newest_torch` stands in for it.
    return sorted({line for line in lines if not line.startswith("torch")})


def resolve(platform, python, extra):
    """(versions, failure): what pip would install by name, or its complaint."""
    target = PLATFORMS[platform]
    markers = {
        "os_name": "posix",
        "platform_python_implementation": "CPython",
        "implementation_name": "cpython",
        "python_version": python,
        "python_full_version": f"{python}.5",
        "implementation_version": f"{python}.5",
        **target["markers"],
    }
    with tempfile.TemporaryDirectory() as folder:
        report = pathlib.Path(folder) / "report.json"
        command = [sys.executable, "-c", _PIP, json.dumps(markers), "install", "--dry-run", "--ignore-installed"]
        command += ["--quiet", "--quiet", "--disable-pip-version-check", "--report", report, "--target", folder]
        command += ["--only-binary=:all:", "--implementation", "cp", "--python-version", python]
        command += [word for tag in target["tags"] for word in ("--platform", tag)]
        # Not what this machine's configuration caps or adds.
        process = subprocess.run(
            [*command, *requirements(extra)],
            capture_output=True,
            text=True,
            env={**os.environ, "NO_COLOR": "1", "PIP_CONFIG_FILE": os.devnull},
        )
        if process.returncode:
            return {}, _complaint(process.stderr)
        chosen = json.loads(report.read_text())["install"]
    return {item["metadata"]["name"].lower().replace("_", "-"): item["metadata"]["version"] for item in chosen}, None


def newest_torch(platform, python):
    """The newest PyTorch with a wheel for the platform, or `None`."""
    command = [sys.executable, "-m", "pip", "index", "versions", "torch", "--disable-pip-version-check"]
    command += ["--only-binary=:all:", "--implementation", "cp", "--python-version", python]
    command += [word for tag in PLATFORMS[platform]["tags"] for word in ("--platform", tag)]
    process = subprocess.run(command, capture_output=True, text=True)
    found = re.match(r"torch \((.+)\)", process.stdout)
    return found and found[1]


def _complaint(text):
    lines = [line.removeprefix("ERROR: ") for line in text.splitlines() if line.startswith("ERROR: ")]
    missing = next((line for line in lines if line.startswith("No matching distribution")), None)
    return missing or (lines[0] if lines else text.strip()[-200:])


def look_at(place):
    """The record of one platform and Python: everything at once, or else what each extra lacks."""
    platform, python = place
    versions, failure = resolve(platform, python, "all")
    record = {"platform": platform, "python": python, "all": failure or "installs", "versions": versions}
    if failure:
        outcomes = {extra: resolve(platform, python, extra) for extra in EXTRAS}
        record["extras"] = {extra: failure or "installs" for extra, (_, failure) in outcomes.items()}
        record["versions"] = {name: found[name] for found, _ in outcomes.values() for name in SHOWN if name in found}
    record["versions"] = {name: record["versions"][name] for name in SHOWN if name in record["versions"]}
    record["versions"]["torch"] = newest_torch(platform, python)
    print(json.dumps(record), file=sys.stderr, flush=True)
    return record


def main():
    arguments = _common.parser(__doc__).parse_args()
    places = [(platform, python) for platform in PLATFORMS for python in PYTHONS]
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        records = list(pool.map(look_at, places[:1] if arguments.quick else places))
    table = _common.Table(
        "What pip's resolver takes, by platform and Python",
        ("platform, Python", "all extras but torch", "TensorFlow", "LiteRT", "JAX", "newest PyTorch"),
        notes=("Where not all extras can be installed, the versions are those of the extras that can be.",),
    )
    for record in records:
        found = record["versions"]
        lacking = [extra for extra, outcome in record.get("extras", {}).items() if outcome != "installs"]
        table.add(
            f"{record['platform']}, {record['python']}",
            f"no: {', '.join(lacking) or record['all']}" if record["all"] != "installs" else "installs",
            *_tensorflow(found),
            *(found.get(name) or "-" for name in ("ai-edge-litert", "jax", "torch")),
        )
    complaints = sorted(
        {
            f"{record['platform']}, Python {record['python']}, extra '{extra}': {outcome}"
            for record in records
            for extra, outcome in record.get("extras", {}).items()
            if outcome != "installs"
        }
    )
    table.notes += tuple(complaints)
    values = {"environment": _common.environment("-"), "records": records}
    _common.write_results(arguments, "install_matrix", values, [table])


def _tensorflow(found):
    names = [name for name in ("tensorflow", "tensorflow-cpu") if name in found]
    return [" and ".join(f"{name} {found[name]}" for name in names) or "-"]


if __name__ == "__main__":
    main()
