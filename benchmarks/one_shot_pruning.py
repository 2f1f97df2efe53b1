"""Accuracy of models that are pruned at once, without any training: masks alone, batch norm anew, refitted in rounds.

KERAS_BACKEND=torch python benchmarks/one_shot_pruning.py resnet8

Each row is written as soon as it is measured; what was measured before is kept, unless `--again`.
"""

import dataclasses
import json
import pathlib
import sys
import time

import keras
import numpy as np
from _common import Table, cifar10, environment, load_model, mnist, write_results
from _common import parser as common_parser
from _training import speaker_parts
from pruning_accuracy import DS_CNN_LEFT_ALONE, pruning_of_the_rest

from keras_mot.layers import find_weights
from keras_mot.sparsity import (
    ConstantSparsity,
    NofM,
    OptimalBrainSurgeon,
    PruningConfig,
    WholeModel,
    prune_at_once,
    prune_low_magnitude,
    strip_pruning,
    update_pruning_step,
)

SPLITS = 3
SETTINGS = ("50 %", "70 %", "2:4")
ASKED = {("resnet8", "50 %"): 0.8, ("resnet8", "70 %"): 4.0, ("resnet8", "2:4"): 3.0}


@dataclasses.dataclass(frozen=True)
class Task:
    """A model with one split of its data.

    Args:
        model: the float model.
        calibration: inputs.
        test: (inputs, labels) that are no part of `calibration`.
        left_alone: regular expressions of layers that are not pruned.
    """

    model: keras.Model
    calibration: np.ndarray
    test: tuple
    left_alone: tuple = ()


def random_splits(model, train, test, arguments, left_alone=()):
    for seed in range(arguments.splits):
        chosen = np.random.default_rng(seed).permutation(len(train[0]))[: arguments.samples]
        yield Task(model, train[0][chosen], test, left_alone)


def resnet8(arguments):
    return random_splits(
        load_model("cifar10/resnet8_jpegft.keras"), cifar10("train"), shortened(cifar10("test"), arguments), arguments
    )


def mnist_cnn(arguments):
    train, test = mnist()
    return random_splits(load_model("mnist/mnist_cnn.keras"), train, shortened(test, arguments), arguments)


def ds_cnn_l(arguments):
    """Calibrated on some speakers, measured on the others."""
    model = load_model("kws/ds_cnn_l.keras")
    for number, train, test in speaker_parts(arguments.splits):
        chosen = np.random.default_rng(number).permutation(len(train[0]))[: arguments.samples]
        yield Task(model, train[0][chosen], shortened(test, arguments), DS_CNN_LEFT_ALONE)


def shortened(test, arguments):
    """A random part of the test data, the same for all splits."""
    if arguments.test_samples is None or arguments.test_samples >= len(test[1]):
        return test
    chosen = np.random.default_rng(1).permutation(len(test[1]))[: arguments.test_samples]
    return test[0][chosen], test[1][chosen]


TASKS = {"resnet8": resnet8, "mnist": mnist_cnn, "ds-cnn-l": ds_cnn_l}


def settings_of(task):
    """(`PruningConfig`, overrides) of each way of pruning; shares are those of all kernels."""
    found = {}
    for share in (0.5, 0.7):
        pruning = pruning_of_the_rest(task.model, share, task.left_alone)
        config = PruningConfig(ConstantSparsity(pruning["sparsity"], 0, 0), scope=WholeModel())
        found[f"{100 * share:.0f} %"] = config, pruning["overrides"]
    no_groups = {
        weight.owner: None
        for weight in find_weights(task.model)[0]
        if weight.variable.shape[weight.axes.inputs[0]] % 4 and not weight.depthwise
    }
    overrides = {**no_groups, **dict.fromkeys(task.left_alone)}
    return {**found, "2:4": (PruningConfig(ConstantSparsity(0.5, 0, 0), NofM(2, 4)), overrides)}


def with_statistics(small, inputs):
    """Batch normalization estimated anew, in place: a moving average over the data, gone through several times."""
    norms = [layer for layer in small.layers if isinstance(layer, keras.layers.BatchNormalization)]
    for layer in norms:
        layer.momentum = 0.8
    for _ in range(-(-3072 // len(inputs)) if norms else 0):
        for start in range(0, len(inputs) - 127, 128):
            small(inputs[start : start + 128], training=True)
    return small


def accuracy(model, test):
    return float(np.mean(model.predict(test[0], batch_size=250, verbose=0).argmax(-1) == test[1]))


def masked(task, config, overrides):
    """The model with masks, chosen at once."""
    pruned = prune_low_magnitude(
        task.model, config.schedule, granularity=config.granularity, scope=config.scope, overrides=overrides
    )
    update_pruning_step(pruned, steps=0)
    return pruned


METHODS = {
    "masks alone": masked,
    "batch norm anew": lambda task, *how: with_statistics(strip_pruning(masked(task, *how)), task.calibration),
    "one round": lambda task, *how: in_rounds(task, *how, rounds=1),
    "three rounds": lambda task, *how: in_rounds(task, *how, rounds=3),
    "three rounds, by H": lambda task, *how: in_rounds(task, *by_second_moments(*how), rounds=3),
}
DEFAULT_METHODS = ("masks alone", "three rounds", "three rounds, by H")


def in_rounds(task, config, overrides, rounds):
    count = len(task.calibration)
    return prune_at_once(task.model, task.calibration, config, overrides=overrides, rounds=rounds, samples=count)


def by_second_moments(config, overrides):
    """The same settings, with what outputs lose without a weight as its score."""
    how = {"criterion": OptimalBrainSurgeon()}
    others = {key: each and dataclasses.replace(each, **how) for key, each in overrides.items()}
    return dataclasses.replace(config, **how), others


def run(task, split, arguments, known, rows):
    """Adds the rows of one split, and yields after each; `known` holds what does not depend on the calibration data."""

    def measured(key, make):
        if key not in known:
            known[key] = accuracy(make(), task.test)
        return known[key]

    data = id(task.test[1])
    base = measured((data, "float"), lambda: task.model)
    for name, how in settings_of(task).items():
        for method in arguments.methods if name in arguments.settings else ():
            key = {"setting": name, "method": method, "split": split, "samples": arguments.samples}
            key["tested"] = len(task.test[1])
            if any(key.items() <= row.items() for row in rows):
                continue
            started = time.perf_counter()
            model = METHODS[method](task, *how)
            seconds = time.perf_counter() - started
            always = method == "masks alone"
            value = measured((data if always else split, name, method), lambda m=model: m)
            row = {**key, "accuracy": value, "float": base, "drop": 100 * (base - value), "seconds": seconds}
            rows.append(row)
            print(row, flush=True)
            yield


def table_of(task_name, rows):
    methods = list(dict.fromkeys(row["method"] for row in rows))
    headers = (
        "pruned",
        "inputs",
        "float, %",
        *(f"{method}: mean (least, most)" for method in methods),
        "asked at most",
        "s",
    )
    table = Table(f"{task_name}: points below float, without training", headers)
    for name, samples in dict.fromkeys((row["setting"], row["samples"]) for row in rows):
        own = [row for row in rows if (row["setting"], row["samples"]) == (name, samples)]
        groups = [[row for row in own if row["method"] == method] for method in methods]
        cells = [_spread([row["drop"] for row in group]) for group in groups]
        seconds = ", ".join(f"{np.mean([row['seconds'] for row in group]):.0f}" for group in groups if group)
        base = 100 * np.mean([row["float"] for row in own])
        table.add(name, samples, f"{base:.2f}", *cells, ASKED.get((task_name, name), ""), seconds)
    return table


def _spread(drops):
    return f"{np.mean(drops):.2f} ({min(drops):.2f}, {max(drops):.2f})" if drops else ""


def main():
    parser = common_parser(__doc__.splitlines()[0])
    parser.add_argument("models", nargs="*", choices=[*TASKS, []], default=list(TASKS))
    parser.add_argument("--samples", type=int, default=1024, help="inputs to calibrate with")
    parser.add_argument("--test-samples", type=int, help="of the test data, by default all")
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(DEFAULT_METHODS))
    parser.add_argument("--settings", nargs="+", choices=SETTINGS, default=SETTINGS)
    parser.add_argument("--splits", type=int, default=SPLITS, help="of the data into calibration and test")
    parser.add_argument("--again", action="store_true", help="measure again what was measured before")
    parser.add_argument("--seconds", type=float, help="stop after so many, with exit code 3, to be gone on with")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.samples, arguments.splits, arguments.test_samples = 128, 2, 500
    started = time.perf_counter()
    for name in arguments.models:
        path = (arguments.output or pathlib.Path(__file__).parent / "results") / f"{target_of(name)}.json"
        keep = path.exists() and not arguments.again and not arguments.quick
        rows, known = json.loads(path.read_text())["rows"] if keep else [], {}
        for split, task in enumerate(TASKS[name](arguments)):
            for _ in run(task, split, arguments, known, rows):
                write(arguments, name, rows)
                if arguments.seconds and time.perf_counter() - started > arguments.seconds:
                    sys.exit(3)


def target_of(name):
    return f"one_shot_pruning_{name}"


def write(arguments, name, rows):
    """The results so far."""
    values = {"model": name, "environment": environment(), "rows": rows}
    tested = " or ".join(str(each) for each in sorted({row["tested"] for row in rows}))
    splits = len({row["split"] for row in rows})
    notes = (
        f"Means over {splits} splits. Inputs to calibrate with have no labels, and are none "
        f"of the {tested} that are measured on. 50 % and 70 % of all kernel weights, one ranking over the model, by "
        "magnitude or by what outputs lose; 2:4 in all layers with groups of four. Seconds: of the methods in turn.",
    )
    table = dataclasses.replace(table_of(name, rows), notes=notes)
    write_results(arguments, target_of(name), values, [table])


if __name__ == "__main__":
    main()
