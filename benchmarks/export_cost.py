"""What an export costs: its time, and the memory that all its processes take beyond the model, per size of the model.

python benchmarks/export_cost.py --models mnist resnet50 vgg16
"""

import ctypes
import gc
import os
import pathlib
import sys
import tempfile
import threading
import time

from _common import BACKENDS, Table, environment, run_child, send_result, write_results
from _common import parser as common_parser

TARGET = 6.0  # bytes of memory for each byte of the weights in float32
INTERVAL = 0.01  # seconds between two looks at the memory
KINDS = ("float32", "sparse", "float16", "int8", "integer")


def mnist():
    """The CNN of TFMOT's tutorials: 3.3 million weights."""
    import keras
    from keras import layers

    convolutions = [layers.Conv2D(32, 5, padding="same", activation="relu"), layers.MaxPooling2D()]
    convolutions += [layers.Conv2D(64, 5, padding="same", activation="relu"), layers.MaxPooling2D()]
    head = [layers.Flatten(), layers.Dense(1024, activation="relu"), layers.Dense(10)]
    return keras.Sequential([keras.Input((28, 28, 1)), *convolutions, *head])


def resnet50():
    """25.6 million weights."""
    import keras

    return keras.applications.ResNet50(weights=None, input_shape=(64, 64, 3), pooling="avg")


def vgg16():
    """138 million weights."""
    import keras

    inputs = keras.Input((224, 224, 3))
    return keras.applications.VGG16(weights=None, input_tensor=inputs)


MODELS = {"mnist": mnist, "resnet50": resnet50, "vgg16": vgg16}


class Memory:
    """The resident memory of this process and of those that it starts, while the block runs."""

    def __enter__(self):
        self.before = self.peak = resident()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def _watch(self):
        while not self._stop.wait(INTERVAL):
            self.peak = max(self.peak, resident())

    def __exit__(self, *exception):
        self._stop.set()
        self._thread.join()


def resident():
    """Bytes of memory that this process and its descendants hold."""
    total, waiting = 0, [os.getpid()]
    while waiting:
        process = pathlib.Path("/proc") / str(waiting.pop())
        try:
            total += int((process / "statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
            for thread in (process / "task").iterdir():
                waiting += (thread / "children").read_text().split()
        except OSError:  # it has just ended
            continue
    return total


def child(arguments):
    """One export, in this process."""
    name, kind = arguments.child
    model = MODELS[name]()
    weights = 4 * model.count_params()
    with tempfile.TemporaryDirectory() as folder:
        libraries = warm_up(pathlib.Path(folder))
        subject, options = model, {"weights": kind, "sparse_encoding": False}
        if kind == "sparse":
            options = {"weights": "float32", "sparse_encoding": True}
            prune(model)
        if kind == "integer":
            subject, options = quantized(model), {"sparse_encoding": False}
            del model
        give_back()
        started = time.perf_counter()
        with Memory() as memory:
            result = export(subject, pathlib.Path(folder) / "model.tflite", **options)
        seconds = time.perf_counter() - started
    send_result(
        {
            **{"model": name, "kind": kind, "weights": weights, "seconds": seconds, "bytes": result.bytes},
            **{"before": memory.before, "peak": memory.peak, "engine": result.engine, "error": result.max_abs_error},
            "libraries": libraries,
        }
    )


def give_back():
    """Returns to the system what is free, which the export would take again without its being seen."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)


def export(model, path, **options):
    """The export that is measured."""
    from keras_mot.export import export_litert

    return export_litert(model, path, **options)


def prune(model, sparsity=0.9):
    """Makes the smallest weights of each kernel zero, in place."""
    import numpy as np

    for weight in model.weights:
        if len(weight.shape) > 1:
            values = np.array(weight.value)
            values[np.abs(values) < np.quantile(np.abs(values), sparsity)] = 0.0
            weight.assign(values)


def warm_up(folder):
    """Exports a small model, which loads the libraries; returns the bytes that a second process needs for its own."""
    import keras

    with Memory() as memory:
        small = keras.Sequential([keras.Input((2,)), keras.layers.Dense(2)])
        result = export(small, folder / "small.tflite", sparse_encoding=False)
    return memory.peak - memory.before if result.engine == "tensorflow-subprocess" else 0


def quantized(model):
    """The model in integers, calibrated on few random samples."""
    import numpy as np

    from keras_mot.quantization import MinMax, quantize_post_training

    data = np.random.default_rng(0).random((4, *model.input_shape[1:]), "float32")
    quick = {"estimator": MinMax(), "equalize": False, "correct_biases": False, "progress": False}
    return quantize_post_training(model, calibration_data=data, batch_size=2, **quick)


def main():
    parser = common_parser(__doc__.splitlines()[0])
    parser.add_argument("--backend", choices=BACKENDS, default="tensorflow")
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument("--child", nargs=2, help="used by the command itself")
    arguments = parser.parse_args()
    if arguments.child:
        return child(arguments)
    if arguments.quick:
        arguments.models, arguments.kinds = ["mnist"], ["float32"]
    runs = []
    for name in arguments.models:
        for kind in arguments.kinds:
            runs.append(run_child(__file__, ["--child", name, kind], arguments.backend))
            print(f"{name}, {kind}: {share(runs[-1]):.2f}, {runs[-1]['seconds']:.1f} s", flush=True)
    values = {"environment": environment(arguments.backend), "runs": runs}
    write_results(arguments, f"export_cost_{arguments.backend}", values, [cost_table(runs)])
    return 0


def share(run):
    """Memory of the export, in multiples of the weights."""
    return taken(run) / run["weights"]


def taken(run):
    """Bytes of memory that the export takes, without the libraries of a second process."""
    return run["peak"] - run["before"] - run["libraries"]


def cost_table(runs):
    table = Table(
        "Export to LiteRT with verification: memory of all processes beyond that before the export, and time",
        (
            *("model, file", "weights, MB", "memory, MB", "memory / weights", "asked", "time, s", "file, MB"),
            "libraries of a second process, MB",
        ),
        notes=(
            "Weights in float32. A small model is exported before, so that libraries are loaded. Where a second "
            "process converts, what it takes for a small model has a column of its own, and is no part of the memory.",
        ),
    )
    for run in runs:
        table.add(
            f"{run['model']}, {run['kind']}",
            f"{run['weights'] / 2**20:.1f}",
            f"{taken(run) / 2**20:.0f}",
            f"{share(run):.2f}",
            TARGET,
            f"{run['seconds']:.1f}",
            f"{run['bytes'] / 2**20:.1f}",
            f"{run['libraries'] / 2**20:.0f}",
        )
    return table


if __name__ == "__main__":
    sys.exit(main())
