"""How long `import keras_mot` takes when Keras is imported already, and which modules take longest.

`python benchmarks/import_time.py`. Processor time, of processes with compiled bytecode, the least of several.
"""

import importlib.util
import json
import os
import statistics
import subprocess
import sys
import tempfile

from _common import BACKENDS, Table, environment, parser, write_results

ASKED = 0.3  # seconds beyond Keras's own
_SCRIPT = """
import json, sys, time
began = time.process_time()
import keras
middle = time.process_time()
before = set(sys.modules)
import keras_mot
ended = time.process_time()
modules = len(set(sys.modules) - before)
for name in ("analysis", "export", "recipes"):
    getattr(keras_mot, name)
later = time.process_time()
print("RESULT", json.dumps([middle - began, ended - middle, later - ended, modules]))
"""


def run(backend, folder, *options, script=_SCRIPT):
    """A process with the backend, whose bytecode is kept in `folder`."""
    variables = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    variables |= {"KERAS_BACKEND": backend, "PYTHONPYCACHEPREFIX": str(folder)}
    process = subprocess.run([sys.executable, *options, "-c", script], env=variables, capture_output=True, text=True)
    if process.returncode:
        sys.exit(process.stderr[-2000:])
    return process


def measure(backend, folder, rounds):
    """The least processor time of several processes, of Keras, of keras-mot, and of the rooms that wait."""
    run(backend, folder)
    found = []
    for _ in range(rounds):
        line = next(line for line in run(backend, folder).stdout.splitlines() if line.startswith("RESULT "))
        found.append(json.loads(line.removeprefix("RESULT ")))
    keras, ours, later, modules = (list(column) for column in zip(*found, strict=True))
    return {
        "backend": backend,
        "keras": min(keras),
        "keras_mot": min(ours),
        "keras_mot_median": statistics.median(ours),
        "on_first_use": min(later),
        "modules": modules[0],
    }


def heaviest(folder, backend, count, rounds=3):
    """The modules that take longest themselves, of what `import keras_mot` imports: (milliseconds, name)."""
    script = "import keras, sys; print('then', file=sys.stderr, flush=True); import keras_mot"
    least = {}
    for _ in range(rounds):
        text = run(backend, folder, "-X", "importtime", script=script).stderr.partition("then\n")[2]
        lines = [line for line in text.splitlines() if line.startswith("import time:")]
        for own, _, name in (line.removeprefix("import time:").split("|") for line in lines):
            least[name.strip()] = min(int(own) / 1000, least.get(name.strip(), float("inf")))
    return sorted(((own, name) for name, own in least.items()), reverse=True)[:count]


def main():
    arguments = parser(__doc__.splitlines()[0])
    arguments.add_argument("--rounds", type=int, default=7)
    arguments = arguments.parse_args()
    rounds = 2 if arguments.quick else arguments.rounds
    backends = [backend for backend in BACKENDS if importlib.util.find_spec(backend)]
    with tempfile.TemporaryDirectory() as folder:
        rows = [measure(backend, folder, rounds) for backend in backends]
        modules = heaviest(folder, backends[0], 12)
    headers = ("backend", "Keras, s", "keras-mot beyond it, s", "median", "what waits for its first use, s", "modules")
    note = f"Asked: at most {ASKED} s beyond Keras. Processor time, the least of {rounds} processes."
    table = Table("import keras_mot", headers, notes=(note,))
    for row in rows:
        times = (row[key] for key in ("keras", "keras_mot", "keras_mot_median", "on_first_use"))
        table.add(row["backend"], *(f"{seconds:.3f}" for seconds in times), row["modules"])
    own = Table("The modules that take longest", ("module", "ms, without what it imports"))
    for milliseconds, name in modules:
        own.add(name, f"{milliseconds:.1f}")
    values = {"environment": environment("-"), "rows": rows, "modules": modules}
    write_results(arguments, "import_time", values, [table, own])


if __name__ == "__main__":
    main()
