"""ResNet-8 pruned at once and refitted, then trained from there with its masks as they are, taught by the float model.

KERAS_BACKEND=tensorflow python benchmarks/pruning_from_refit.py --folder FOLDER --seconds 500

A run goes on where the last one in the same folder stopped, after the last whole epoch.
"""

import argparse
import json
import pathlib
import sys
import time

import keras
import numpy as np
from _common import Table, cifar10, environment, load_model, write_results
from _common import parser as common_parser
from _training import Augmented, Recipe, soft_cross_entropy, steps_of
from one_shot_pruning import accuracy

from keras_mot.sparsity import (
    ConstantSparsity,
    OptimalBrainSurgeon,
    PruningConfig,
    WholeModel,
    prune_at_once,
    pruning_report,
    strip_pruning,
)

ASKED = 0.8
CRITERIA = {"magnitude": {}, "surgeon": {"criterion": OptimalBrainSurgeon()}}


def started(model, train, arguments):
    """The model with masks, refitted, compiled, and how long that took."""
    before = time.perf_counter()
    how = PruningConfig(ConstantSparsity(arguments.sparsity / 100), scope=WholeModel(), **CRITERIA[arguments.criterion])
    chosen = np.random.default_rng(arguments.seed).permutation(len(train[0]))[: arguments.samples]
    pruned = prune_at_once(model, train[0][chosen], how, samples=arguments.samples)
    return pruned, time.perf_counter() - before


def trained_on(pruned, model, train, recipe, arguments, state, folder):
    """Trains epoch by epoch, and keeps each; whether all have been trained."""
    before = time.perf_counter()
    for epoch in range(state["epochs"], recipe.epochs):
        changed = Augmented(*train, 1000 * arguments.seed + epoch, recipe, shift=(4, 4), flip=True, teacher=model)
        started = time.perf_counter()
        pruned.fit(changed, epochs=1, verbose=2)
        state["epochs"] = epoch + 1
        state["fit_seconds"] += time.perf_counter() - started
        pruned.save(folder / "model.keras")
        (folder / "state.json").write_text(json.dumps(state))
        spent = time.perf_counter() - before
        if arguments.seconds and spent * (1 + 1 / (epoch + 1 - state["first"])) > arguments.seconds:
            return epoch + 1 == recipe.epochs
    return True


def resumed(folder, recipe):
    """The model of the last run, to be trained on with its optimizer, and what it has had."""
    state = json.loads((folder / "state.json").read_text())
    custom = {"loss": soft_cross_entropy(recipe.temperature, False)}
    pruned = keras.models.load_model(folder / "model.keras", custom_objects=custom)
    return pruned, {**state, "first": state["epochs"]}


def main():
    parser = common_parser(__doc__.splitlines()[0])
    parser.add_argument("--folder", type=pathlib.Path, required=True, help="where the model is kept between runs")
    parser.add_argument("--sparsity", type=float, default=75.0, help="of all kernels, one ranking over the model")
    parser.add_argument("--criterion", choices=CRITERIA, default="magnitude")
    parser.add_argument("--samples", type=int, default=1024, help="inputs to refit with")
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--learning-rate", type=float, default=1e-3, help="of the first step; down to 0 along a cosine")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seconds", type=float, help="stop before so many, with exit code 3, to be gone on with")
    arguments = parser.parse_args()
    run(arguments)


def run(arguments: argparse.Namespace):
    train, test = cifar10("train"), cifar10("test")
    if arguments.quick:
        train, test = ([values[:count] for values in pair] for pair, count in ((train, 512), (test, 500)))
    model = load_model("cifar10/resnet8_jpegft.keras")
    recipe = Recipe(arguments.epochs, arguments.learning_rate)
    keras.utils.set_random_seed(arguments.seed)
    arguments.folder.mkdir(parents=True, exist_ok=True)
    if (arguments.folder / "state.json").exists():
        pruned, state = resumed(arguments.folder, recipe)
    else:
        pruned, seconds = started(model, train, arguments)
        state = {"epochs": 0, "first": 0, "fit_seconds": 0.0, "prune_seconds": seconds}
        state |= {"float": 100 * accuracy(model, test), "refitted": 100 * accuracy(pruned, test)}
        print(state, flush=True)
        steps = steps_of(Augmented(*train, 0, recipe, (4, 4)), recipe)
        rate = keras.optimizers.schedules.CosineDecay(recipe.learning_rate, steps)
        pruned.compile(
            keras.optimizers.Adam(rate),
            soft_cross_entropy(recipe.temperature, False),
            metrics=["accuracy"],
            jit_compile=False,
        )
    if not trained_on(pruned, model, train, recipe, arguments, state, arguments.folder):
        sys.exit(3)
    small = strip_pruning(pruned)
    row = {**state, "sparsity": 100 * pruning_report(pruned).sparsity, "accuracy": 100 * accuracy(small, test)}
    row |= {"seed": arguments.seed, "criterion": arguments.criterion, "samples": arguments.samples}
    target = "pruning_from_refit_resnet8"
    path = (arguments.output or pathlib.Path(__file__).parent / "results") / f"{target}.json"
    rows = json.loads(path.read_text())["rows"] if path.exists() and not arguments.quick else []
    same = ("seed", "criterion", "epochs", "samples")
    rows = [each for each in rows if any(each[key] != row[key] for key in same)] + [row]
    write_results(arguments, target, {"environment": environment(), "rows": rows}, [table_of(rows, arguments)])


def table_of(rows, arguments):
    headers = (
        "scores",
        "seed",
        "zeros, %",
        "float, %",
        "refitted: below",
        "epochs",
        "trained: below",
        "asked",
        "fit, s",
    )
    note = (
        f"Points below float. Masks from {arguments.samples} training images, without labels; trained on the 50,000, "
        "flipped and shifted by up to 4 pixels, with the float model's probabilities as labels."
    )
    table = Table("ResNet-8, CIFAR-10: pruned at once, refitted, trained", headers, notes=(note,))
    for row in rows:
        refitted, trained = (f"{row['float'] - row[key]:.2f}" for key in ("refitted", "accuracy"))
        cells = (row["criterion"], row["seed"], f"{row['sparsity']:.2f}", f"{row['float']:.2f}", refitted)
        table.add(*cells, row["epochs"], trained, ASKED, f"{row['fit_seconds']:.0f}")
    return table


if __name__ == "__main__":
    main()
