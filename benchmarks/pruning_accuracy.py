"""Accuracy and size of real models after pruning, measured on the exported files in the LiteRT runtime.

KERAS_BACKEND=tensorflow python benchmarks/pruning_accuracy.py mnist-90
"""

import argparse
import dataclasses
import pathlib
import re
import tempfile

import keras
import numpy as np
from _common import (
    Table,
    cifar10,
    environment,
    load_model,
    mnist,
    write_results,
)
from _common import parser as common_parser
from _training import Augmented, Recipe, cut, fine_tune, mean_row, speaker_parts

import keras_mot
from keras_mot.export import export_litert
from keras_mot.sparsity import Block, Channel, NofM, PerLayer, WholeModel, remove_pruned_channels

SCOPES = {"per layer": PerLayer(), "whole model": WholeModel()}
MNIST_TARGETS = {"accuracy": 0.9913, "zipped_bytes": 2_420_000, "sparse_bytes": 1_980_000}


MNIST = Recipe(epochs=2, learning_rate=2e-3, pruning_share=0.4)
RESNET = Recipe(epochs=5, learning_rate=5e-4, initial_sparsity=0.0, frequency=50, decay_shares=(0.6, 0.85))
DS_CNN = Recipe(
    epochs=10,
    learning_rate=1e-3,
    batch_size=32,
    initial_sparsity=0.0,
    pruning_share=0.4,
    frequency=10,
    decay_shares=(0.6, 0.85),
    temperature=2.0,
)
# 7 % of DS-CNN-L's kernels, and those it needs most: a depthwise filter has nine weights, the first one a single input.
DS_CNN_LEFT_ALONE = (r"conv_1$", r"_dw$", r"logits$")


def pruning_of_the_rest(model, share, left_alone):
    """Arguments that make `share` of all kernel weights zero without touching the layers left alone."""
    sizes = {weight.path.rsplit("/", 1)[0]: weight.shape for weight in model.weights if "kernel" in weight.name}
    sizes = {path: int(np.prod(shape)) for path, shape in sizes.items()}
    pruned = sum(size for path, size in sizes.items() if not any(re.search(each, path) for each in left_alone))
    return {"sparsity": share * sum(sizes.values()) / pruned, "overrides": dict.fromkeys(left_alone)}


def measure(model, test, sparse=True):
    """Exports the model densely and sparsely encoded, and measures both files in the runtime."""
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder)
        files = {"dense": export_litert(model, path / "dense.tflite", sparse_encoding=False)}
        if sparse:
            files["sparse"] = export_litert(model, path / "sparse.tflite")
        report = keras_mot.analysis.measure(files, data=test, batch_size=100, latency_runs=0, progress=False)
        values = {
            "accuracy": report["dense"].metric,
            "bytes": report["dense"].bytes,
            "zipped_bytes": report["dense"].zipped_bytes,
            "sparsity": report["dense"].sparsity,
        }
        if sparse:
            values |= {
                "sparse_encoding": files["sparse"].sparse_encoding,
                "sparse_reason": files["sparse"].sparse_reason,
                "sparse_accuracy": report["sparse"].metric,
                "sparse_bytes": report["sparse"].bytes,
                "sparse_zipped_bytes": report["sparse"].zipped_bytes,
            }
    return values


def run(name, model, train, test, recipe, seed, pruning=None, **options):
    """One row: fine-tuning, export, measurement."""
    print(f"--- {name}, seed {seed}", flush=True)
    result, seconds = fine_tune(model, train, recipe, seed, pruning, **options)
    row = {"name": name, "seed": seed, "fit_seconds": round(seconds, 1), **measure(result, test)}
    print(f"    accuracy {row['accuracy']:.2%}, zipped {row['zipped_bytes']:,} bytes", flush=True)
    return row


HEADERS = (
    "model",
    "seed",
    "accuracy in runtime, %",
    "sparsity of kernels, %",
    ".tflite bytes",
    "zipped",
    "sparse encoding: bytes",
    "zipped",
    "fit, s",
)


def rows_table(title, rows, notes=()):
    table = Table(title, HEADERS, notes=tuple(notes))
    for row in rows:
        sparse = row.get("sparse_encoding")
        table.add(
            row["name"],
            row.get("seed", ""),
            f"{row['accuracy']:.2%}".rstrip("%"),
            f"{row['sparsity']:.2%}".rstrip("%"),
            f"{row['bytes']:,}",
            f"{row['zipped_bytes']:,}",
            f"{row['sparse_bytes']:,}" if sparse else "-",
            f"{row['sparse_zipped_bytes']:,}" if sparse else "-",
            row.get("fit_seconds", ""),
        )
    return table


def float_row(model, test):
    return {"name": "float, as given", **measure(model, test, sparse=False)}


def mnist_90(arguments):
    """MNIST CNN to 90 % in 2 epochs, several seeds."""
    recipe = adjusted(MNIST, arguments)
    train, test = mnist()
    if arguments.quick:
        train, test = cut(train, 640), cut(test, 500)
    model = load_model("mnist/mnist_cnn.keras")
    rows = [float_row(model, test)]
    for seed in range(arguments.seeds):
        rows.append(run("90 %", model, train, test, recipe, seed, {"sparsity": 0.9}))
    notes = [
        "Targets: accuracy 99.13 %; zipped 2,420,000 bytes; sparsely encoded 1,980,000 bytes.",
        str(recipe),
    ]
    return rows, [rows_table("MNIST CNN to 90 %", rows, notes)], {"recipe": recipe, "targets": MNIST_TARGETS}


def mnist_table(arguments):
    """MNIST CNN at many sparsities and by other patterns."""
    recipe = adjusted(MNIST, arguments)
    train, test = mnist()
    if arguments.quick:
        train, test = cut(train, 640), cut(test, 500)
    model = load_model("mnist/mnist_cnn.keras")
    first, classifier = model.layers[0].name, model.layers[-1].name
    variants = {f"{share:g} %": {"sparsity": share / 100} for share in (50, 75, 87.5, 90, 95, 97.5)}
    variants |= {
        "90 %, blocks of 1x2": {"sparsity": 0.9, "granularity": Block((1, 2))},
        # The first convolution has one input channel: there is no group of four to choose from.
        "2:4, all but the first layer": {
            "sparsity": 0.5,
            "granularity": NofM(2, 4),
            "overrides": {rf"^{first}$": None},
        },
        "90 %, one ranking over the model": {"sparsity": 0.9, "scope": WholeModel()},
        "50 % of channels, all but the classifier": {
            "sparsity": 0.5,
            "granularity": Channel(),
            "overrides": {rf"^{classifier}$": None},
        },
    }
    rows = [float_row(model, test), run("float, fine-tuned equally", model, train, test, recipe, 0)]
    for name, pruning in variants.items():
        rows.append(run(name, model, train, test, recipe, 0, pruning))
    return rows, [rows_table("MNIST CNN, 2 epochs", rows, [str(recipe)])], {"recipe": recipe}


def mnist_channels(arguments):
    """MNIST CNN with half of its channels cut out: accuracy, size and latency."""
    recipe = adjusted(MNIST, arguments)
    train, test = mnist()
    if arguments.quick:
        train, test = cut(train, 640), cut(test, 500)
    model = load_model("mnist/mnist_cnn.keras")
    pruning = {"sparsity": 0.5, "granularity": Channel(), "overrides": {rf"^{model.layers[-1].name}$": None}}
    pruned, seconds = fine_tune(model, train, recipe, 0, pruning)
    models = {"float, as given": model, "50 % of channels zero": pruned, "cut out": remove_pruned_channels(pruned)}
    with tempfile.TemporaryDirectory() as folder:
        files = {
            name: export_litert(each, pathlib.Path(folder) / f"{number}.tflite", sparse_encoding=False)
            for number, (name, each) in enumerate(models.items())
        }
        report = keras_mot.analysis.measure(
            files, data=test, batch_size=100, latency_runs=20 if arguments.quick else 200, progress=False
        )
        rows = [
            {
                "name": name,
                "parameters": models[name].count_params(),
                "accuracy": report[name].metric,
                "bytes": report[name].bytes,
                "zipped_bytes": report[name].zipped_bytes,
                "latency_ms": report[name].latency_ms,
            }
            for name in files
        ]
    headers = ("model", "parameters", "accuracy in runtime, %", ".tflite bytes", "zipped", "latency, ms", "ratio")
    table = Table("MNIST CNN, half of the channels", headers, notes=(str(recipe), "Latency: one image, one thread."))
    for row in rows:
        table.add(
            row["name"],
            f"{row['parameters']:,}",
            f"{row['accuracy']:.2%}".rstrip("%"),
            f"{row['bytes']:,}",
            f"{row['zipped_bytes']:,}",
            f"{row['latency_ms']:.3f}",
            f"{rows[0]['latency_ms'] / row['latency_ms']:.2f}x",
        )
    return rows, [table], {"recipe": recipe, "fit_seconds": round(seconds, 1)}


def resnet8(arguments):
    """ResNet-8 on CIFAR-10 at 50 and 75 %."""
    recipe = adjusted(RESNET, arguments)
    train, test = cifar10("train"), cifar10("test")
    if arguments.quick:
        train, test = cut(train, 640), cut(test, 500)
    model = load_model("cifar10/resnet8_jpegft.keras")
    rows = [float_row(model, test)]
    for share in arguments.sparsities:
        for scope in arguments.scopes:
            pruning = {"sparsity": share / 100, "scope": SCOPES[scope]}
            for seed in range(arguments.seeds):
                teacher = model if arguments.distill else None
                data = Augmented(*train, seed, recipe, shift=(4, 4), flip=True, teacher=teacher)
                rows.append(run(f"{share:g} %, {scope}", model, data, test, recipe, seed, pruning))
    labels = "the float model's probabilities" if arguments.distill else "the true ones"
    notes = [
        "Target: at most 0.3 points below float.",
        f"Fine-tuned on the 50,000 training images, flipped and shifted by up to 4 pixels; labels: {labels}.",
        str(recipe),
    ]
    return rows, [rows_table("ResNet-8, CIFAR-10", rows, notes)], {"recipe": recipe}


def ds_cnn_l(arguments):
    """DS-CNN-L on keyword spotting at 50 and 75 %, cross-validated over speakers."""
    recipe = adjusted(DS_CNN, arguments)
    model = load_model("kws/ds_cnn_l.keras")
    variants = {"float, fine-tuned equally": None}
    for share in arguments.sparsities:
        variants[f"{share:g} %"] = pruning_of_the_rest(model, share / 100, DS_CNN_LEFT_ALONE)
    rows = []
    for number, train, test in speaker_parts(arguments.folds, arguments.quick):
        rows.append({**float_row(model, test), "seed": number, "clips": len(test[1])})
        for name, pruning in variants.items():
            data = train
            if arguments.distill:
                data = Augmented(*train, number, recipe, (4, 0), teacher=model, logits=True)
            row = run(name, model, data, test, recipe, number, pruning, from_logits=True)
            rows.append({**row, "clips": len(test[1])})
    means = [mean_row(name, rows) for name in dict.fromkeys(row["name"] for row in rows)]
    notes = [
        "Target: at most 1.0 points below float.",
        f"The 2547 test clips are split by speaker in {arguments.folds} parts: fine-tuned on the others and "
        "the calibration clips, measured on one, so that no speaker is on both sides; mean over the parts.",
        "Labels: the softened probabilities of the float model as given, for clips shifted by up to 4 frames."
        if arguments.distill
        else "Labels: the true ones.",
        "Fine-tuning on clips of this set changes the float model too, hence its row.",
        "The share of zeros is that of all kernels: all are in the 1x1 convolutions; the first and the depthwise "
        "convolutions and the classifier, 7 % of the weights, are left alone.",
        str(recipe),
    ]
    tables = [rows_table("DS-CNN-L, keyword spotting: mean over the parts", means, notes)]
    parts = [{**row, "name": f"{row['name']} (part)"} for row in rows]
    tables.append(rows_table("DS-CNN-L, keyword spotting: each part (its number under 'seed')", parts))
    return [*means, *rows], tables, {"recipe": recipe}


def adjusted(recipe, arguments):
    changes = {
        name: getattr(arguments, name)
        for name in ("epochs", "learning_rate", "pruning_share", "initial_sparsity", "frequency")
        if getattr(arguments, name) is not None
    }
    if arguments.quick:
        changes |= {"epochs": 1, "frequency": 2}
    return dataclasses.replace(recipe, **changes)


EXPERIMENTS = {
    "mnist-90": mnist_90,
    "mnist-table": mnist_table,
    "mnist-channels": mnist_channels,
    "resnet8": resnet8,
    "ds-cnn-l": ds_cnn_l,
}


def main():
    parser = common_parser(__doc__.splitlines()[0])
    parser.add_argument("experiment", choices=EXPERIMENTS)
    parser.add_argument("--seeds", type=int, default=1, help="runs of mnist-90 and resnet8")
    parser.add_argument("--folds", type=int, default=3, help="parts of the speakers in ds-cnn-l")
    parser.add_argument("--sparsities", type=float, nargs="+", default=[50, 75], help="of resnet8 and ds-cnn-l")
    parser.add_argument("--scopes", nargs="+", choices=SCOPES, default=list(SCOPES), help="resnet8")
    parser.add_argument(
        "--distill",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="resnet8 and ds-cnn-l learn the float model's probabilities",
    )
    parser.add_argument("--epochs", type=int)
    parser.add_argument("--learning-rate", type=float)
    parser.add_argument("--pruning-share", type=float)
    parser.add_argument("--initial-sparsity", type=float)
    parser.add_argument("--frequency", type=int)
    arguments = parser.parse_args()
    rows, tables, extra = EXPERIMENTS[arguments.experiment](arguments)
    extra["recipe"] = dataclasses.asdict(extra["recipe"])
    name = f"pruning_accuracy_{arguments.experiment}_{keras.backend.backend()}"
    values = {"experiment": arguments.experiment, "environment": environment(), **extra, "rows": rows}
    write_results(arguments, name, values, tables)


if __name__ == "__main__":
    main()
