"""Runs every benchmark that the README of this folder lists, and writes `RESULTS.md` and the project's README's table.

python benchmarks/run_all.py                 # what has no result yet; goes on where it was stopped
python benchmarks/run_all.py --quick         # each for a minute or so, only to see that it works
python benchmarks/run_all.py --page          # runs nothing, and writes them
"""

import argparse
import contextlib
import dataclasses
import datetime
import json
import os
import pathlib
import re
import shlex
import subprocess
import sys
import tempfile
import time

from _published import ROWS, SOURCES
from _readme import README, with_table

FOLDER = pathlib.Path(__file__).parent
RESULTS = FOLDER / "results"
RECORD = RESULTS / "runs.json"
PAGE = FOLDER / "RESULTS.md"
NEEDS_NETWORK = ("install_matrix.py", "fresh_install.py")
WRITES_ELSEWHERE = ("layers_table.py",)
NEEDS_IMAGENET = ("imagenet.py",)


@dataclasses.dataclass(frozen=True)
class Command:
    """A row of the README's table of commands."""

    line: str
    about: str

    @property
    def script(self):
        return re.search(r"benchmarks/(\w+\.py)", self.line)[1]

    def arguments(self, work, peer, quick):
        """The environment variables and the arguments to run it with; `None` if it needs what was not given."""
        words = shlex.split(self.line)
        variables = dict(word.split("=", 1) for word in words if re.match(r"[A-Z_]+=", word))
        words = [word for word in words if not re.match(r"[A-Z_]+=", word)]
        arguments = [sys.executable, str(FOLDER / self.script), *words[2:]]
        if "PYTHON" in arguments:
            if peer is None:
                place = arguments.index("PYTHON")
                del arguments[place - 1 : place + 1]
            else:
                arguments[arguments.index("PYTHON")] = str(peer)
        arguments = [str(work / self.script) if word in ("DIR", "FOLDER") else word for word in arguments]
        return variables, arguments + (["--quick"] if quick else [])


def commands():
    """The commands of the README, in its order."""
    text = (FOLDER / "README.md").read_text()
    rows = re.findall(r"^\| `((?:[A-Z_]+=\S+ )?python benchmarks/[^`]+)` \| (.+) \|$", text, flags=re.M)
    return [Command(line, about) for line, about in rows if "run_all.py" not in line]


def run(command, arguments, work):
    """Runs one command; returns its record."""
    variables, words = command.arguments(work, arguments.peer, arguments.quick)
    started = time.perf_counter()
    print(f"== {command.line}", flush=True)
    (work / command.script).mkdir(parents=True, exist_ok=True)
    code = subprocess.run(words, env={**os.environ, **variables}, cwd=FOLDER.parent).returncode
    date = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    return {"code": code, "seconds": round(time.perf_counter() - started, 1), "date": date}


def page():
    """The text of `RESULTS.md`: every result that is there, as its command wrote it."""
    runs = json.loads(RECORD.read_text()) if RECORD.exists() else {}
    parts = ["# Results\n"]
    parts.append(
        "Written by `make results` from the files in `results/`, as the commands of the [README](README.md) wrote\n"
        "them, with the versions, the processor and the date of each. Where a figure was asked for, or TFMOT was run\n"
        "beside, it is in the table; the README compares them in words.\n"
    )
    files = sorted(RESULTS.glob("*.md"))
    parts.append("- [The tables that TFMOT publishes](#the-tables-that-tfmot-publishes)\n")
    parts.append("".join(f"- [{path.stem}](#{path.stem})\n" for path in files))
    parts.append(published_tables())
    for path in files:
        text = re.sub(r"^#+ ", "### ", path.read_text().strip(), flags=re.M)
        text = re.sub(r"\]\((?!http)([^)#]+)\)", r"](results/\1)", text)
        parts.append(f"## {path.stem}\n\n{text}\n")
    failed = {line: each for line, each in runs.items() if each["code"]}
    if failed:
        parts.append("## Commands that failed when they were run last\n")
        parts.append(
            "".join(f"- `{line}`: exit code {each['code']}, {each['date']}\n" for line, each in failed.items())
        )
    return "\n".join(parts)


def published_tables():
    """Every row of the tables that TFMOT publishes: the figures, what was run here instead, and what would run it."""
    parts = ["## The tables that TFMOT publishes\n"]
    parts.append(
        "ImageNet and WMT were not at hand. Beside each row stands what was run here with the same technique, on a\n"
        "smaller model and its data, from the files in `results/`. A command with `--data DIR` runs the row itself,\n"
        "on ImageNet in that folder; the others run what stands in for it. Figures are right answers in per cent (of\n"
        "translations, BLEU): of the float model, then of the result. Of what was run here, the difference says\n"
        "something, the level does not. What is empty was not run.\n"
    )
    headers = ("model", "what is done", "published", "run here", "keras-mot", "TFMOT", "another", "command")
    for table, source in SOURCES.items():
        parts.append(f"### {table.capitalize()}\n\n[Published]({source}).\n")
        lines = [headers, ["---"] * len(headers), *(_published_cells(row) for row in ROWS if row.table == table)]
        parts.append("\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n")
    return "\n".join(parts)


def _published_cells(row):
    start = "" if row.start is None else f"{row.start:g} → "
    size = f"; zipped {row.size[0]:g} → {row.size[1]:g} MB" if row.size else ""
    cells = [row.model, row.technique, f"{start}{row.published:g}{size}"]
    for stand_in in row.stand_ins or (None,):
        cells.append(_stand_in_cells(stand_in))
    columns = [[each[place] for each in cells[3:]] for place in range(4)]
    return [*cells[:3], *("<br>".join(column) if any(column) else "" for column in columns), f"`{row.recipe()}`"]


def _stand_in_cells(stand_in):
    """(what, keras-mot, TFMOT, another) of a stand-in; a figure that no file holds is empty."""
    if stand_in is None or stand_in.ours.value(RESULTS) is None:
        return ("not run" if stand_in is None else f"{stand_in.what}: not run yet", "", "", "")
    start, ours = stand_in.start.value(RESULTS), stand_in.ours.value(RESULTS)
    figures = ["" if start is None else f"{_percent(start, stand_in)} → ", _percent(ours, stand_in)]
    tfmot = stand_in.tfmot.value(RESULTS) if stand_in.tfmot else None
    name, other = stand_in.other or ("", None)
    other = other.value(RESULTS) if other else None
    return (
        stand_in.what,
        "".join(figures),
        "" if tfmot is None else _percent(tfmot, stand_in),
        "" if other is None else f"{name}: {_percent(other, stand_in)}",
    )


def _percent(value, stand_in):
    return f"{value if stand_in.ours.key == 'bleu' else 100 * value:.2f}"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="short runs, which write no results")
    parser.add_argument("--again", action="store_true", help="run what has a result, too")
    parser.add_argument("--only", default="", metavar="TEXT", help="commands with this text in them")
    parser.add_argument("--peer", type=pathlib.Path, metavar="PYTHON", help="of an environment with TFMOT")
    parser.add_argument("--work", type=pathlib.Path, metavar="DIR", help="where models are kept between runs")
    parser.add_argument("--page", action="store_true", help="only write RESULTS.md and the README's table")
    arguments = parser.parse_args()
    wanted = [
        each
        for each in commands()
        if arguments.only in each.line and each.script not in (*NEEDS_NETWORK, *WRITES_ELSEWHERE, *NEEDS_IMAGENET)
    ]
    if not wanted:
        parser.error(f"no command of the README has {arguments.only!r} in it")
    failed = 0 if arguments.page else run_each(wanted, arguments)
    if not arguments.quick:
        PAGE.write_text(page())
        README.write_text(with_table(README.read_text()))
        print(f"Written: {PAGE}, and the table of {README}")
    return 1 if failed else 0


def run_each(wanted, arguments):
    """Runs the commands; returns how many failed."""
    record = json.loads(RECORD.read_text()) if RECORD.exists() else {}
    with contextlib.ExitStack() as stack:
        work = arguments.work or pathlib.Path(stack.enter_context(tempfile.TemporaryDirectory()))
        failed = 0
        for number, command in enumerate(wanted, 1):
            if not arguments.quick and not arguments.again and record.get(command.line, {}).get("code") == 0:
                print(f"== {command.line}: done {record[command.line]['date']}")
                continue
            print(f"[{number}/{len(wanted)}]", end=" ")
            found = run(command, arguments, work)
            failed += found["code"] != 0
            if not arguments.quick:
                record[command.line] = found
                RECORD.write_text(json.dumps(record, indent=1) + "\n")
    return failed


if __name__ == "__main__":
    sys.exit(main())
