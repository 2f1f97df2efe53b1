"""TFMOT's scripts, unchanged, on speakers that nothing was trained on: pruned, clustered, and trained in integers.

KERAS_BACKEND=tensorflow python benchmarks/new_speakers.py --models ds_cnn_s --peer PYTHON

Rows are kept as they come: what has a result is not run again without `--again`. `--minutes` begins no row after that
time; call it again to go on.
"""

import dataclasses
import json
import pathlib
import statistics
import sys
import tempfile
import time

import numpy as np
from _common import RESULTS, Table, environment, load_model, run_child, write_results
from _common import parser as common_parser
from _tfmot_script import STARTS
from _training import Recipe, cut, layer_sizes, speaker_parts

SCRIPT = pathlib.Path(__file__).with_name("_tfmot_script.py")
PRUNING = Recipe(epochs=6, learning_rate=1e-3, batch_size=32)
CLUSTERING = Recipe(epochs=3, learning_rate=3e-4, batch_size=32)
QUANTIZATION = Recipe(epochs=2, learning_rate=1e-4, batch_size=32)
RECIPES = {
    "float": dataclasses.replace(PRUNING, epochs=PRUNING.epochs + QUANTIZATION.epochs),
    "pruning": PRUNING,
    "clustering": CLUSTERING,
    "quantization": QUANTIZATION,
}
SPARSITY, CLUSTERS = 0.5, 16
ASKED = {"PQAT": 0.3, "CQAT": 0.5, "PCQAT": 0.5}
PACKAGES = {"keras-mot": "keras_mot", "TFMOT": "tensorflow_model_optimization"}


class Store:
    """Results by model, package, part, seed and row, written after each run."""

    def __init__(self, arguments):
        base = arguments.output or (None if arguments.quick else RESULTS)
        self._path = base / "new_speakers.json" if base else None
        self.rows = []
        if self._path and self._path.is_file() and not arguments.again:
            self.rows = json.loads(self._path.read_text())["rows"]

    def missing(self, key):
        """The rows of a model, a package, a part and a seed that have no result, in the order of the script."""
        known = {row["row"] for row in self.rows if all(row[name] == value for name, value in key.items())}
        return [row for row in STARTS if row not in known]

    def add(self, key, found):
        self.rows += [{**key, "row": row, **values} for row, values in found.items()]


def run(key, work, part, arguments, seconds, rows):
    """Runs some rows in a process of their own, as many as can be begun in time; returns their results."""
    _, train, test = part
    folder = work / "_".join(str(key[name]) for name in ("model", "part", "seed"))
    folder.mkdir(parents=True, exist_ok=True)
    model = load_model(f"kws/{key['model']}.keras")
    weights = {f"weight_{index}": value for index, value in enumerate(model.get_weights())}
    np.savez(folder / "data.npz", x=train[0], y=train[1], x_test=test[0], y_test=test[1], **weights)
    recipes = {name: dataclasses.asdict(recipe) for name, recipe in RECIPES.items()}
    if arguments.quick:
        recipes = {name: {**recipe, "epochs": 1} for name, recipe in recipes.items()}
    values = {"layers": [(type(layer).__name__, layer_sizes(layer)) for layer in model.layers[1:]]}
    values |= {"seed": key["seed"], "sparsity": SPARSITY, "clusters": CLUSTERS, "recipes": recipes}
    (folder / "model.json").write_text(json.dumps(values))
    python = sys.executable if key["package"] == "keras-mot" else arguments.peer
    legacy = {} if key["package"] == "keras-mot" else {"TF_USE_LEGACY_KERAS": "1"}
    options = [folder, PACKAGES[key["package"]], seconds, *rows]
    return run_child(SCRIPT, options, "tensorflow", python, legacy)["rows"]


def means(rows):
    """By model, package and row: accuracies by seed, each the mean over the parts, and what is lost from the start."""
    found = []
    for model, package, name in dict.fromkeys((row["model"], row["package"], row["row"]) for row in rows):
        chosen = [row for row in rows if (row["model"], row["package"]) == (model, package)]
        by_seed = {seed: by_part(chosen, name, seed) for seed in sorted({row["seed"] for row in chosen})}
        accuracies, losses = [], []
        for seed, own in by_seed.items():
            if not own:
                continue
            accuracies.append(weighted(own))
            start = by_part(chosen, STARTS[name], seed) if STARTS[name] else {}
            both = sorted(set(own) & set(start))
            if both:
                losses.append(weighted({key: start[key] for key in both}) - weighted({key: own[key] for key in both}))
        parts = [len(own) for own in by_seed.values() if own]
        values = {"accuracy": statistics.mean(accuracies), "by seed": accuracies, "parts": parts}
        values |= {"lost": statistics.mean(losses) if losses else None, "lost by seed": losses}
        found.append({"model": model, "package": package, "row": name, **values})
    return found


def by_part(rows, name, seed):
    """Dictionary from parts to (accuracy, clips)."""
    chosen = [row for row in rows if (row["row"], row["seed"]) == (name, seed)]
    return {row["part"]: (row["accuracy"], row["clips"]) for row in chosen}


def weighted(parts):
    """The mean accuracy over parts, each weighted by its clips."""
    return sum(accuracy * clips for accuracy, clips in parts.values()) / sum(clips for _, clips in parts.values())


def spread(values):
    """The standard deviation, in points."""
    return f" ± {100 * statistics.stdev(values):.2f}" if len(values) > 1 else ""


def table_of(model, rows):
    headers = ("row", "package", "accuracy in runtime, %", "points lost from its start", "asked", "parts by seed")
    notes = (
        "Means over seeds, each the mean over the parts; ± the standard deviation over the seeds. Adam, batches of 32; "
        + ", ".join(f"{name} {recipe.epochs} epochs at {recipe.learning_rate:g}" for name, recipe in RECIPES.items())
        + f". Each part holds speakers of its own, and is measured on after training on the others. {SPARSITY:.0%} "
        f"zeros, {CLUSTERS} values.",
    )
    table = Table(model, headers, notes=notes)
    for row in sorted(rows, key=lambda row: list(STARTS).index(row["row"])):
        lost = "" if row["lost"] is None else f"{100 * row['lost']:.2f}{spread(row['lost by seed'])}"
        accuracy = f"{100 * row['accuracy']:.2f}{spread(row['by seed'])}"
        parts = ", ".join(map(str, row["parts"]))
        table.add(row["row"], row["package"], accuracy, lost, ASKED.get(row["row"], ""), parts)
    return table


def main():
    parser = common_parser(__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="+", choices=("ds_cnn_s", "ds_cnn_l"), default=["ds_cnn_s", "ds_cnn_l"])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--parts", type=int, nargs="+", default=[0, 1, 2], help="of the three parts of the speakers")
    parser.add_argument("--peer", metavar="PYTHON", help="interpreter that has TFMOT, see README.md")
    parser.add_argument("--minutes", type=float, default=1e9, help="begin no row after so many minutes")
    parser.add_argument("--again", action="store_true", help="run also what has a result")
    parser.add_argument("--work", type=pathlib.Path, help="folder for what is trained; goes on where it was")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.models, arguments.seeds, arguments.parts = arguments.models[:1], [0], [0]
    started, store = time.monotonic(), Store(arguments)
    work = arguments.work or pathlib.Path(tempfile.gettempdir()) / "keras_mot_new_speakers"
    parts = {number: (number, *data) for number, *data in speaker_parts(3, arguments.quick)}
    keys = [
        {"model": model, "package": package, "part": number, "seed": seed}
        for model in arguments.models
        for seed in arguments.seeds
        for number in arguments.parts
        for package in ("keras-mot", *(["TFMOT"] if arguments.peer else []))
    ]
    for key in keys:
        seconds, rows = 60 * arguments.minutes - (time.monotonic() - started), store.missing(key)
        if not rows or seconds <= 0:
            continue
        number, train, test = parts[key["part"]]
        if arguments.quick:
            train, test = cut(train, 320), cut(test, 200)
        found = run(key, work, (number, train, test), arguments, seconds, rows)
        store.add(key, {row: {**values, "clips": len(test[1])} for row, values in found.items()})
        results = means(store.rows)
        tables = [
            table_of(model, [row for row in results if row["model"] == model])
            for model in dict.fromkeys(row["model"] for row in store.rows)
        ]
        values = {"environment": environment(), "means": results, "rows": store.rows}
        values["recipes"] = {name: dataclasses.asdict(recipe) for name, recipe in RECIPES.items()}
        write_results(arguments, "new_speakers", values, tables)
    left = sum(len(store.missing(key)) for key in keys)
    print(f"{left} rows are left" if left else "all rows are there")


if __name__ == "__main__":
    main()
