"""Accuracy of weights of few bits in all layers, without training, by how they are rounded.

KERAS_BACKEND=torch python benchmarks/rounding_accuracy.py resnet8 ds_cnn_s cnn_s mnist mobilenet ds_cnn_l

Calibrated on samples of each split, without labels, and measured on the others: other speakers, or other images. Each
row is written as soon as it is measured; what was measured before is kept, unless `--again`.
"""

import json
import pathlib
import sys
import time
import warnings

import keras
import numpy as np
from _calibration_models import SPLITS, SUBJECTS, float_outputs
from _common import Table, environment, write_results
from _common import parser as common_parser

from keras_mot.quantization import GPTQ, AdaRound, Nearest, QuantizationScheme, quantize_post_training

SAMPLES = 512
DROPS = {"resnet8": 0.8, "ds_cnn_s": 1.0, "cnn_s": 1.0, "mnist": 0.05, "mobilenet": 8.0}  # asked with 4 bits, in points
ROUNDINGS = {"nearest": Nearest(), "GPTQ": GPTQ(), "AdaRound": AdaRound()}


def calibrated_on(split, number, count):
    """Inputs of a split that calibrate, as the model takes them."""
    (inputs, labels), _ = split
    chosen = np.random.default_rng(number).permutation(len(labels))[:count]
    inputs = [values[chosen] for values in inputs]
    return inputs if len(inputs) > 1 else inputs[0]


def accuracy(subject, model, split):
    """In percent, of the Keras simulation."""
    _, (inputs, labels) = split
    return 100.0 * float(np.mean(subject.decide(float_outputs(model, inputs)) == labels))


def measured(subject, name, arguments, known):
    """Adds the rows of one model to those that are known; yields after each."""
    for number, bits, label in (
        (number, bits, label)
        for bits in arguments.bits
        for number in range(arguments.splits)
        for label in arguments.roundings
    ):
        key = {"model": name, "bits": bits, "rounding": label, "split": number, "samples": arguments.samples}
        if any(key.items() <= row.items() for row in known):
            continue
        model = subject.model[number] if isinstance(subject.model, list) else subject.model
        split = subject.splits[number]
        data = calibrated_on(split, number, arguments.samples)
        base = next((row["float"] for row in known if row["split"] == number), None)
        base = accuracy(subject, model, split) if base is None else base
        scheme, started = QuantizationScheme(bits, rounding=ROUNDINGS[label]), time.perf_counter()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of models that are of no use: the table says so
            quantized = quantize_post_training(model, scheme, data, progress=False)
        row = {**key, "float": base, "seconds": time.perf_counter() - started}
        row |= {"accuracy": accuracy(subject, quantized, split), "tested": len(split[1][1])}
        known.append(row)
        print(f"{name} {bits} bits {label} split {number}: -{base - row['accuracy']:.2f}, {row['seconds']:.0f} s")
        keras.backend.clear_session()
        yield


def table_of(name, rows):
    rows = [row for row in rows if row["samples"] == max(row["samples"] for row in rows)]
    splits = sorted({row["split"] for row in rows})
    note = (
        f"{rows[0]['samples']} inputs to calibrate with at most; {rows[0]['tested']} others of each split measured on."
    )
    base = np.mean([row["float"] for row in {row["split"]: row for row in rows}.values()])
    table = Table(
        f"{name}: points below the float model ({base:.2f} %), all kernels in few bits, without training",
        ("rounding", "bits", "mean", *(f"split {split}" for split in splits), "asked at most", "s"),
        notes=(note,),
    )
    for bits, label in sorted({(row["bits"], row["rounding"]) for row in rows}, reverse=True):
        own = {row["split"]: row for row in rows if (row["bits"], row["rounding"]) == (bits, label)}
        drops = {split: row["float"] - row["accuracy"] for split, row in own.items()}
        asked = f"{DROPS[name]:g}" if bits == 4 and name in DROPS and label != "nearest" else ""
        cells = [f"{drops[split]:.2f}" if split in drops else "" for split in splits]
        seconds = f"{np.mean([row['seconds'] for row in own.values()]):.0f}"
        table.add(label, bits, f"{np.mean(list(drops.values())):.2f}", *cells, asked, seconds)
    return table


def main():
    parser = common_parser(__doc__.splitlines()[0])
    parser.add_argument("models", nargs="+", choices=SUBJECTS)
    parser.add_argument("--bits", type=int, nargs="+", default=[4, 3])
    parser.add_argument("--roundings", nargs="+", choices=ROUNDINGS, default=list(ROUNDINGS))
    parser.add_argument("--splits", type=int, choices=range(1, SPLITS + 1), default=SPLITS)
    parser.add_argument("--samples", type=int, default=SAMPLES, help="to calibrate on")
    parser.add_argument("--most", type=int, help="samples of a split to test on; by default, all")
    parser.add_argument("--again", action="store_true", help="measure again what was measured before")
    parser.add_argument("--seconds", type=float, help="stop after so many, with exit code 3, to be gone on with")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.splits, arguments.samples, arguments.most = 1, 128, 500
    started = time.perf_counter()
    for name in arguments.models:
        target = f"rounding_accuracy_{name}"
        path = (arguments.output or pathlib.Path(__file__).parent / "results") / f"{target}.json"
        keep = path.exists() and not arguments.again and not arguments.quick
        rows = json.loads(path.read_text())["rows"] if keep else []
        for _ in measured(SUBJECTS[name](arguments.most), name, arguments, rows):
            values = {"environment": environment(), "rows": rows}
            write_results(arguments, target, values, [table_of(name, rows)])
            if arguments.seconds and time.perf_counter() - started > arguments.seconds:
                sys.exit(3)


if __name__ == "__main__":
    main()
