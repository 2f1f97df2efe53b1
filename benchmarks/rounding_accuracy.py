"""Accuracy of weights of few bits in all layers, without training, by how they are rounded.

KERAS_BACKEND=tensorflow python benchmarks/rounding_accuracy.py resnet8 ds_cnn_s cnn_s mnist mobilenet
"""

import resource
import time
import warnings

import keras
import numpy as np
from _common import Table, environment, write_results
from _common import parser as common_parser
from quantization_accuracy import TASKS

from keras_mot.quantization import GPTQ, AdaRound, Nearest, QuantizationScheme, quantize_post_training

SAMPLES = 512
DROPS = {"resnet8": 0.8, "ds_cnn_s": 1.0, "cnn_s": 1.0, "mnist": 0.05, "mobilenet": 8.0}  # asked with 4 bits, in points
SECONDS = 60.0  # asked of GPTQ of ResNet-8
ROUNDINGS = {"nearest": Nearest(), "GPTQ": GPTQ(), "AdaRound": AdaRound()}


def split_of(name, task, seed, samples):
    """Inputs to calibrate on, and (inputs, labels) to test on, of which none is among the former."""
    x, y = task.test
    order = np.random.default_rng(seed)
    if name == "mobilenet":  # 500 images are all there are
        places = order.permutation(len(y))
        return x[places[: len(y) // 2]], (x[places[len(y) // 2 :]], y[places[len(y) // 2 :]])
    inputs = task.train[0]
    return inputs[order.permutation(len(inputs))[:samples]], (x, y)


def accuracy(model, x, y):
    """In percent, of the Keras simulation."""
    return 100.0 * float(np.mean(model.predict(x, batch_size=250, verbose=0).argmax(-1) == np.asarray(y).reshape(-1)))


def peak():
    """The most memory that this process has held so far, in GB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def measured(name, arguments):
    """Rows of one model."""
    task, rows, floats = TASKS[name](), [], {}
    for split in range(arguments.splits):
        calibration, (x, y) = split_of(name, task, split, arguments.samples)
        if arguments.test:
            x, y = x[: arguments.test], y[: arguments.test]
        key = split if name == "mobilenet" else 0
        if key not in floats:
            floats[key] = accuracy(task.model, x, y)
        for bits in arguments.bits:
            for label in arguments.roundings:
                started, before = time.perf_counter(), peak()
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")  # of models that are of no use: the table says so
                    quantized = quantize_post_training(
                        task.model, QuantizationScheme(bits, rounding=ROUNDINGS[label]), calibration
                    )
                seconds, memory = time.perf_counter() - started, peak() - before
                row = {"model": name, "bits": bits, "rounding": label, "split": split, "float": floats[key]}
                row |= {"accuracy": accuracy(quantized, x, y), "seconds": seconds, "gigabytes_more": memory}
                row |= {"tested": len(y), "calibrated": len(calibration)}
                rows.append(row)
                drop = row["float"] - row["accuracy"]
                print(f"{name} {bits} bits {label} split {split}: -{drop:.2f} in {seconds:.0f} s", flush=True)
                keras.backend.clear_session()
    return rows


def main():
    parser = common_parser(__doc__.splitlines()[0])
    parser.add_argument("models", nargs="+", choices=TASKS)
    parser.add_argument("--bits", type=int, nargs="+", default=[4, 3])
    parser.add_argument("--roundings", nargs="+", choices=ROUNDINGS, default=["nearest", "GPTQ"])
    parser.add_argument("--splits", type=int, default=3)
    parser.add_argument("--samples", type=int, default=SAMPLES, help="to calibrate on")
    parser.add_argument("--test", type=int, help="samples to test on; by default, all")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.splits, arguments.samples, arguments.test = 1, 128, 500
    for name in arguments.models:
        rows = measured(name, arguments)
        table = Table(
            f"{name}: points below the float model ({np.mean([row['float'] for row in rows]):.2f} %)",
            ("rounding", "bits", "mean", *(f"split {split}" for split in range(arguments.splits)), "asked", "s"),
        )
        for bits in arguments.bits:
            for label in arguments.roundings:
                own = [row for row in rows if (row["bits"], row["rounding"]) == (bits, label)]
                drops = [row["float"] - row["accuracy"] for row in own]
                asked = f"{DROPS[name]:g}" if bits == 4 and name in DROPS and label != "nearest" else ""
                seconds = f"{np.mean([row['seconds'] for row in own]):.0f}"
                table.add(label, bits, f"{np.mean(drops):.2f}", *(f"{drop:.2f}" for drop in drops), asked, seconds)
        values = {"environment": environment(), "samples": arguments.samples, "rows": rows}
        write_results(arguments, f"rounding_accuracy_{name}", values, [table])


if __name__ == "__main__":
    main()
