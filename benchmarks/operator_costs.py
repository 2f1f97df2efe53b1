"""How long operators take in integers and in floats on this machine: what the costs of a `Target` are filled from.

KERAS_BACKEND=tensorflow python benchmarks/operator_costs.py

A chain of many operators of one kind is timed in a float file and in one of integers, beside a chain without them, one
thread, interleaved. The difference, divided by the number of elements (of products: of multiplications), is the cost.
"""

import pathlib
import tempfile

import keras
import numpy as np
from _common import Table, environment, write_results
from _common import parser as common_parser
from keras import layers, ops

from keras_mot.export import LiteRTRunner, export_litert
from keras_mot.quantization import quantize_post_training

SIDE = 128  # of a square matrix
_LAST = (1, 2)


def _swapped(x):
    return ops.swapaxes(x, *_LAST)


# Name of a kind -> function of (tensor, another tensor of its shape). A chain alternates it with an addition, so that
# the converter does not join two.
STEPS = {
    "add": lambda x, y: x,  # the addition itself
    "multiply": lambda x, y: x * y,
    "subtract": lambda x, y: x - y,
    "transpose": lambda x, y: _swapped(x),
    "concatenate": lambda x, y: ops.concatenate([x[:, : SIDE // 2], x[:, SIDE // 2 :]], axis=1),
    "mean": lambda x, y: ops.mean(x, axis=-1, keepdims=True),
    "softmax": lambda x, y: ops.softmax(x),
    "gelu": lambda x, y: keras.activations.gelu(x, approximate=False),
    "sigmoid": lambda x, y: ops.sigmoid(x),
    "tanh": lambda x, y: ops.tanh(x),
    "relu": lambda x, y: ops.relu(x),
    "matmul": lambda x, y: ops.matmul(x, y),
    "layer_normalization": lambda x, y: layers.LayerNormalization()(x),
    "dense": lambda x, y: layers.Dense(SIDE)(x),
}
PRODUCTS = ("matmul", "dense")


def _two(inputs):
    """Two tensors; the first is so small that products with it, of elements or matrices, do not grow along a chain."""
    small = keras.initializers.RandomNormal(stddev=1.0 / SIDE)
    return layers.Dense(SIDE, kernel_initializer=small)(inputs), layers.Dense(SIDE)(inputs)


def chain(step, count):
    """A model that calls a step so many times, an addition before each."""
    inputs = keras.Input((SIDE, SIDE))
    other, x = _two(inputs)
    for _ in range(count):
        x = x + other
        x = step(x, other)
    return keras.Model(inputs, layers.Dense(SIDE)(x + other))


def files_of(models, folder, samples):
    """Paths of a float file and of one of integers for each model."""
    paths = {}
    for name, model in models.items():
        for kind in ("floats", "integers"):
            paths[name, kind] = pathlib.Path(folder) / f"{name}_{kind}.tflite"
        export_litert(model, paths[name, "floats"], sparse_encoding=False, verify=False)
        settings = {"equalize": False, "correct_biases": False, "progress": False, "placement": "integer"}
        quantized = quantize_post_training(model, calibration_data=samples, **settings)
        export_litert(quantized, paths[name, "integers"], verify=False)
    return paths


def crossing_model(count):
    """A model with additions, of which every second is called `floats...`."""
    inputs = keras.Input((SIDE, SIDE))
    other, x = _two(inputs)
    for number in range(count):
        x = layers.Add(name=f"integers_{number}")([x, other])
        x = layers.Add(name=f"floats_{number}")([x, other])
    return keras.Model(inputs, layers.Dense(SIDE)(x))


def least_times(paths, runs):
    """Seconds of the fastest run of each file, interleaved: what disturbs only ever adds to it."""
    runners = {}
    sample = np.random.default_rng(1).normal(size=(1, SIDE, SIDE)).astype("float32")
    for key, path in paths.items():
        runners[key] = LiteRTRunner(path, num_threads=1)
        runners[key].run(sample)
    times = {key: [] for key in paths}
    for _ in range(runs):
        for key, runner in runners.items():
            times[key].append(runner.timed_invoke())
    return {key: min(values) for key, values in times.items()}


def measure(arguments):
    """Rows of (kind, nanoseconds in floats, in integers), the last one that of crossings."""
    count = 4 if arguments.quick else 16
    samples = np.random.default_rng(0).normal(size=(4, SIDE, SIDE)).astype("float32")
    models = {"none": chain(STEPS["add"], 0)}
    models |= {name: chain(step, count) for name, step in STEPS.items()}
    with tempfile.TemporaryDirectory() as folder:
        paths = files_of(models, folder, samples)
        settings = {"equalize": False, "correct_biases": False, "progress": False, "placement": "integer"}
        mixed = quantize_post_training(
            crossing_model(count), calibration_data=samples, overrides={"floats": None}, **settings
        )
        paths["crossing", "both"] = pathlib.Path(folder) / "crossing.tflite"
        export_litert(mixed, paths["crossing", "both"], verify=False)
        seconds = least_times(paths, arguments.runs)
    elements = count * SIDE * SIDE
    costs, rows = {}, []
    for name in STEPS:
        before = "none" if name == "add" else "add"
        for kind in ("floats", "integers"):
            number = elements * (SIDE if name in PRODUCTS else 1)
            costs[name, kind] = 1e9 * (seconds[name, kind] - seconds[before, kind]) / number
        rows.append({"kind": name, **{kind: costs[name, kind] for kind in ("floats", "integers")}})
    both = 1e9 * (seconds["crossing", "both"] - seconds["none", "integers"]) / elements
    rows.append({"kind": "crossing there and back", "both": both - costs["add", "floats"] - costs["add", "integers"]})
    return rows


def main():
    parser = common_parser(__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=100)
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.runs = 10
    rows = measure(arguments)
    table = Table(
        "Nanoseconds for each element; of products, for each multiplication; one thread",
        ("kind", "floats", "integers", "integers / floats"),
        notes=(f"Matrices of {SIDE} x {SIDE}, least of {arguments.runs} interleaved runs.",),
    )
    for row in rows:
        if "both" in row:
            table.add(row["kind"], f"{row['both']:.4f}", "", "")
        else:
            ratio = row["integers"] / row["floats"] if row["floats"] > 0 else float("nan")
            table.add(row["kind"], f"{row['floats']:.4f}", f"{row['integers']:.4f}", f"{ratio:.2f}x")
    write_results(arguments, "operator_costs", {"environment": environment(), "rows": rows}, [table])


if __name__ == "__main__":
    main()
