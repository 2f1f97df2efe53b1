"""Every command line in the documents parses, and the guide has one of each command."""

import pathlib
import re
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
    _main.make_parser().parse_args(shlex.split(line, comments=True)[1:])


def test_the_guide_has_all_commands():
    shown = {line.split()[1] for document, line in LINES if document == "command-line.md"}
    assert shown == set(_main.make_parser()._subparsers._group_actions[0].choices)
