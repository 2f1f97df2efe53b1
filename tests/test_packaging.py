"""What `pyproject.toml` promises: bounds that the smoke script can hold, and packages that each platform has.

And that each test belongs to one part of the suite.
"""

import ast
import pathlib
import re
import sys
import tomllib
import zlib

import pytest
from packaging.requirements import Requirement

from tests.run_backends import PARTS, paths_of
from tests.versions.run import constraints, lower_bounds

pytestmark = pytest.mark.backend_independent

ROOT = pathlib.Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]
PLATFORMS = {
    "Apple Silicon": ("darwin", "arm64", "tensorflow"),
    "Linux aarch64": ("linux", "aarch64", "tensorflow"),
    "Linux x86-64": ("linux", "x86_64", "tensorflow-cpu"),
    "Windows": ("win32", "AMD64", "tensorflow-cpu"),
}


def members(extra):
    """The requirements of an extra, those of the extras that it names included."""
    found = []
    for requirement in map(Requirement, EXTRAS[extra]):
        if requirement.name == "keras-mot":
            found += [each for name in requirement.extras for each in members(name)]
        else:
            found.append(requirement)
    return found


@pytest.mark.parametrize("platform", PLATFORMS)
@pytest.mark.parametrize("extra", ["tensorflow", "all"])
def test_each_platform_gets_the_tensorflow_that_has_wheels(platform, extra):
    system, machine, expected = PLATFORMS[platform]
    target = {"sys_platform": system, "platform_machine": machine}
    names = [each.name for each in members(extra) if each.marker is None or each.marker.evaluate(target)]
    assert [name for name in names if name.startswith("tensorflow")] == [expected]


@pytest.mark.parametrize("extra", ["litert", "jax", "torch", "tensorboard", "demo"])
def test_no_other_extra_brings_a_second_tensorflow(extra):
    assert not [each.name for each in members(extra) if each.name.startswith("tensorflow")]


def test_every_requirement_has_a_lowest_version_that_the_smoke_script_takes():
    every = [Requirement(line) for line in PROJECT["dependencies"]] + [
        each for name in EXTRAS for each in members(name)
    ]
    assert {each.name for each in every} == {line.split("==")[0] for line in lower_bounds(PROJECT)}
    for line in lower_bounds(PROJECT):
        name, version = line.split("==")
        assert all(each.specifier.contains(version) for each in every if each.name == name), line


def test_pins_take_the_place_of_bounds():
    lines = constraints("lowest", ["torch==2.13.0"])
    assert [line for line in lines if line.startswith("torch==")] == ["torch==2.13.0"]
    assert any(line.startswith("keras==") for line in lines)
    assert constraints("newest", ["torch==2.13.0"]) == ["torch==2.13.0"]


def test_no_message_names_a_package_that_is_not_published():
    wrong = re.compile(r"""pip install ["']?keras-mot|["']keras-mot\[""")
    files = sorted((ROOT / "keras_mot").rglob("*.py"))
    assert files
    assert not [str(file.relative_to(ROOT)) for file in files if wrong.search(file.read_text())]


def test_each_file_of_tests_is_in_one_part_of_the_suite():
    files = {path for path in (ROOT / "tests").rglob("test_*.py")}
    in_parts = []
    for part in PARTS:
        for path in (ROOT / each for each in paths_of(part)):
            in_parts += [path] if path.is_file() else path.rglob("test_*.py")
    assert len(files) > 50
    assert sorted(in_parts) == sorted(files)


def imported_at_once(tree):
    """The packages that a module imports when it is imported itself, outside of functions and of `try`."""
    for node in tree.body:
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module.partition(".")[0]


def test_what_is_imported_at_once_is_what_the_package_asks_for():
    """Tests have every extra installed, and would not see that one is missing."""
    asked = {Requirement(line).name for line in PROJECT["dependencies"]} - {"pyyaml"} | {"yaml"}
    known = {"keras_mot", "h5py", *asked, *sys.stdlib_module_names}  # Keras saves by h5py
    files = sorted((ROOT / "keras_mot").rglob("*.py"))
    assert len(files) > 400
    others = {str(file.relative_to(ROOT)): set(imported_at_once(ast.parse(file.read_text()))) - known for file in files}
    assert not {file: names for file, names in others.items() if names}


def test_the_wheel_stays_below_a_megabyte():
    """As it would be zipped: the files, twice their names and headers in the archive, and a line in its record."""
    size = 35_000  # licence, metadata and what else is beside the package
    for file in (ROOT / "keras_mot").rglob("*.py"):
        packed = len(zlib.compress(file.read_bytes(), 6)) - 6  # an archive has the stream alone, without zlib's ends
        size += packed + 2 * len(str(file.relative_to(ROOT))) + 76
    assert size < 1_000_000
