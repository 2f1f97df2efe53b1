"""Every command line in the documents parses, and the guide has one of each command."""

import pathlib
import re
import runpy
import shlex

import pytest

from keras_mot.cli import _main

pytestmark = pytest.mark.backend_independent

ROOT = pathlib.Path(__file__).resolve().parents[2]
LINES = [
    (path.name, line)
    for path in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
    for block in re.findall(r"```sh\n(.*?)```", path.read_text(), flags=re.S)
    for line in block.splitlines()
    if line.startswith("keras-mot ")
]


@pytest.mark.parametrize(("document", "line"), LINES)
def test_it_parses(document, line):
    words = shlex.split(line.partition(" > ")[0], comments=True)
    _main.make_parser().parse_args(words[1:])


def test_the_guide_has_all_commands():
    shown = {line.split()[1] for document, line in LINES if document == "command-line.md"}
    assert shown == set(_main.make_parser()._subparsers._group_actions[0].choices)


def test_the_commands_of_benchmarks_can_be_run(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    run_all = runpy.run_path(str(ROOT / "benchmarks" / "run_all.py"))
    commands = run_all["commands"]()
    assert len(commands) > 30
    for command in commands:
        assert (ROOT / "benchmarks" / command.script).is_file(), command.line
        variables, words = command.arguments(pathlib.Path("work"), None, quick=True)
        assert not {"PYTHON", "DIR", "FOLDER"} & set(words), command.line
        assert words[-1] == "--quick"
        assert ("KERAS_BACKEND" in variables) == ("KERAS_BACKEND" in command.line)


def test_every_result_is_on_its_page():
    page = (ROOT / "benchmarks" / "RESULTS.md").read_text()
    missing = [path.stem for path in (ROOT / "benchmarks" / "results").glob("*.md") if f"## {path.stem}\n" not in page]
    assert not missing, "run `python benchmarks/run_all.py --page`"
