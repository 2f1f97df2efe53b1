"""Attacks on the library and its command line: bad arguments, damaged and hostile files, kills, full disks.

The library has held if nothing was lost and nothing silent: no process was killed, no code of a file has run, and what
was refused was refused with an error that says why, in bounded time and memory. Each group runs in its own process.

    python benchmarks/attacks.py                       # everything, about ten minutes
    python benchmarks/attacks.py --groups mutants --mutants 5000 --seed 1
"""

import argparse
import importlib.util
import json
import pathlib
import subprocess
import sys
import tempfile
import time

from _common import Table, environment, parser, write_results

_GROUPS = {
    "arguments": "bad arguments to public functions",
    "keras": "damaged and hostile .keras files",
    "npz": "damaged and hostile .npz files",
    "yaml": "damaged and hostile recipes",
    "mutants": "mutated .tflite files",
    "kills": "kills",
    "disk full": "full disks",
    "paths": "paths",
    "concurrent runs": "runs at the same time",
}
_OF_FILES = ("kills", "disk full", "paths", "concurrent runs")
_CASE = "CASE "


def group_function(name, mutants):
    """The function of (scratch folder, seed) that yields (case, problem or None)."""
    if name == "mutants":
        from _attacks_litert import mutants as group

        return group(mutants)
    if name in _OF_FILES:
        from _attacks_files import GROUPS

        return GROUPS[name]
    from _attacks_arguments import bad_arguments
    from _attacks_models import keras_files
    from _attacks_texts import arrays, recipes

    return {"arguments": bad_arguments, "keras": keras_files, "npz": arrays, "yaml": recipes}[name]


def child(arguments):
    """Runs one group, and prints a line for each case as soon as it is done."""
    with tempfile.TemporaryDirectory(prefix="keras_mot_attacks_") as folder:
        function = group_function(arguments.child, arguments.mutants)
        for case, problem in function(pathlib.Path(folder), arguments.seed):
            print(_CASE + json.dumps([case, problem]), file=sys.__stdout__, flush=True)
    print("DONE", flush=True)


def attack(name, arguments):
    """The outcome of a group, as a dictionary."""
    command = [sys.executable, __file__, "--child", name, "--seed", arguments.seed, "--mutants", arguments.mutants]
    started = time.perf_counter()
    process = subprocess.run([str(part) for part in command], capture_output=True, text=True)
    lines = process.stdout.splitlines()
    cases = [json.loads(line.removeprefix(_CASE)) for line in lines if line.startswith(_CASE)]
    problems = [{"case": case, "problem": problem} for case, problem in cases if problem]
    tried = len(cases)
    if process.returncode or "DONE" not in lines:
        tried += 1
        last = f"after '{cases[-1][0]}'" if cases else "at the start"
        problem = f"the process ended with {process.returncode}: {process.stderr[-500:]}"
        problems.append({"case": last, "problem": problem})
    seconds = round(time.perf_counter() - started, 1)
    return {"tried": tried, "held": tried - len(problems), "seconds": seconds, "problems": problems}


def tables(outcomes, missing):
    """What was tried and held, and what did not hold."""
    summary = Table("Attacks", ("group", "tried", "held", "seconds"))
    failed = Table("What did not hold", ("group", "case", "problem"))
    for name, outcome in outcomes.items():
        summary.add(_GROUPS[name], outcome["tried"], outcome["held"], outcome["seconds"])
        for problem in outcome["problems"]:
            failed.add(name, *(" ".join(text.split()).replace("|", "/")[:200] for text in problem.values()))
    tried, held = (sum(outcome[key] for outcome in outcomes.values()) for key in ("tried", "held"))
    summary.add("together", tried, held, round(sum(outcome["seconds"] for outcome in outcomes.values()), 1))
    if missing:
        summary.notes = (f"Not run, for `_attacks_files.py` is not there: {', '.join(missing)}.",)
    return [summary, failed] if failed.rows else [summary]


def main():
    """Runs the benchmark."""
    arguments_parser = parser(__doc__.splitlines()[0])
    arguments_parser.add_argument("--groups", nargs="+", choices=list(_GROUPS), default=list(_GROUPS))
    arguments_parser.add_argument("--mutants", type=int, default=1300, help="number of mutated .tflite files")
    arguments_parser.add_argument("--seed", type=int, default=0)
    arguments_parser.add_argument("--child", choices=list(_GROUPS), help=argparse.SUPPRESS)
    arguments = arguments_parser.parse_args()
    if arguments.child:
        return child(arguments)
    if arguments.quick:
        arguments.mutants = min(arguments.mutants, 50)
    there = importlib.util.find_spec("_attacks_files") is not None
    missing = [name for name in arguments.groups if name in _OF_FILES and not there]
    outcomes = {}
    for name in arguments.groups:
        if name not in missing:
            outcomes[name] = attack(name, arguments)
            print(f"{_GROUPS[name]}: {outcomes[name]['held']} of {outcomes[name]['tried']} held", flush=True)
    values = {"environment": environment(), "seed": arguments.seed, "groups": outcomes, "missing": missing}
    write_results(arguments, "attacks", values, tables(outcomes, missing))
    return int(any(outcome["problems"] for outcome in outcomes.values()))


if __name__ == "__main__":
    sys.exit(main())
