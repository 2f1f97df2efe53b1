"""Accuracy of models that are pruned at once, without any training: masks alone, batch norm anew, refitted.

KERAS_BACKEND=tensorflow python benchmarks/one_shot_pruning.py resnet8
"""

import dataclasses
import time

import keras
import numpy as np
from _common import Table, cifar10, environment, load_model, mnist, write_results
from _common import parser as common_parser
from _training import cut, speaker_parts
from pruning_accuracy import DS_CNN_LEFT_ALONE, pruning_of_the_rest

from keras_mot.layers import find_weights
from keras_mot.sparsity import (
    ConstantSparsity,
    NofM,
    WholeModel,
    prune_low_magnitude,
    pruning_report,
    refit,
    strip_pruning,
    update_pruning_step,
)

SPLITS = 3
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
    return cut(test, 500) if arguments.quick else test


TASKS = {"resnet8": resnet8, "mnist": mnist_cnn, "ds-cnn-l": ds_cnn_l}


def settings_of(task):
    """Arguments of `prune_low_magnitude` for each way of pruning; shares are those of all kernels."""
    ranked = {}
    for share in (0.5, 0.7):
        pruning = pruning_of_the_rest(task.model, share, task.left_alone)
        schedule = ConstantSparsity(pruning["sparsity"], 0, 0)
        ranked[f"{share:.0%}".replace("%", " %")] = {
            "pruning_schedule": schedule,
            "scope": WholeModel(),
            "overrides": pruning["overrides"],
        }
    pattern = NofM(2, 4)
    no_groups = {
        weight.owner: None
        for weight in find_weights(task.model)[0]
        if weight.variable.shape[weight.axes.inputs[0]] % 4 and not weight.depthwise
    }
    overrides = {**no_groups, **dict.fromkeys(task.left_alone)}
    return {
        **ranked,
        "2:4": {"pruning_schedule": ConstantSparsity(0.5, 0, 0), "granularity": pattern, "overrides": overrides},
    }


def with_statistics(small, inputs):
    """Batch normalization estimated anew, in place: a moving average over the data, gone through several times."""
    norms = [layer for layer in small.layers if isinstance(layer, keras.layers.BatchNormalization)]
    for layer in norms:
        layer.momentum = 0.9
    for _ in range(max(1, 4096 // len(inputs)) if norms else 0):
        for start in range(0, len(inputs) - 127, 128):
            small(inputs[start : start + 128], training=True)
    return small


def accuracy(model, test):
    return float(np.mean(model.predict(test[0], batch_size=250, verbose=0).argmax(-1) == test[1]))


def run(task, split, base):
    """Rows of one split."""
    rows = []
    for name, settings in settings_of(task).items():
        pruned = prune_low_magnitude(task.model, **settings)
        update_pruning_step(pruned, steps=0)
        sparsity = pruning_report(pruned).sparsity
        started = time.perf_counter()
        refitted = refit(pruned, task.calibration, samples=len(task.calibration))
        seconds = time.perf_counter() - started
        models = {
            "masks alone": lambda p=pruned: strip_pruning(p),
            "batch norm anew": lambda p=pruned: with_statistics(strip_pruning(p), task.calibration),
            "refitted": lambda r=refitted: strip_pruning(r),
        }
        for method, make in models.items():
            value = accuracy(make(), task.test)
            row = {"setting": name, "method": method, "split": split, "sparsity": sparsity, "accuracy": value}
            row |= {"float": base, "drop": 100 * (base - value), "seconds": seconds if method == "refitted" else None}
            rows.append(row)
            print(row, flush=True)
    return rows


def table_of(task_name, rows):
    headers = (
        "pruned",
        "float, %",
        "masks alone",
        "batch norm anew",
        "refitted",
        "spread",
        "asked at most",
        "refit, s",
    )
    table = Table(f"{task_name}: points below float, without training", headers)
    for name in dict.fromkeys(row["setting"] for row in rows):
        own = [row for row in rows if row["setting"] == name]
        drops = {
            method: [row["drop"] for row in own if row["method"] == method]
            for method in ("masks alone", "batch norm anew", "refitted")
        }
        means = [f"{np.mean(values):.2f}" for values in drops.values()]
        seconds = np.mean([row["seconds"] for row in own if row["seconds"]])
        spread = f"{min(drops['refitted']):.2f} to {max(drops['refitted']):.2f}"
        base = np.mean([row["float"] for row in own])
        table.add(name, f"{100 * base:.2f}", *means, spread, ASKED.get((task_name, name), ""), f"{seconds:.0f}")
    return table


def main():
    parser = common_parser(__doc__.splitlines()[0])
    parser.add_argument("models", nargs="*", choices=[*TASKS, []], default=list(TASKS))
    parser.add_argument("--samples", type=int, default=2048, help="inputs to calibrate with")
    parser.add_argument("--splits", type=int, default=SPLITS, help="of the data into calibration and test")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.samples, arguments.splits = 128, 2
    for name in arguments.models:
        rows = []
        for split, task in enumerate(TASKS[name](arguments)):
            rows += run(task, split, accuracy(task.model, task.test))
        values = {"model": name, "samples": arguments.samples, "environment": environment(), "rows": rows}
        notes = (
            f"Means over {arguments.splits} splits; {arguments.samples} inputs to calibrate with, without labels, none "
            "of them in the test data. 50 % and 70 % of all kernel weights, one ranking over the model; 2:4 in all "
            "layers with groups of four.",
        )
        table = dataclasses.replace(table_of(name, rows), notes=notes)
        write_results(arguments, f"one_shot_pruning_{name}_{keras.backend.backend()}", values, [table])


if __name__ == "__main__":
    main()
