"""One mask update of a 138 M-parameter model (VGG16's layout) at 90 %: seconds and extra peak memory.

python benchmarks/mask_update.py --backends tensorflow jax torch
"""

import contextlib
import ctypes
import gc
import os
import pathlib
import sys
import threading
import time

import numpy as np
from _common import BACKENDS, Table, environment, run_child, send_result, write_results
from _common import parser as common_parser

TARGETS = {"seconds": 5.0, "memory_ratio": 1.5}
SCOPES = ("per-layer", "whole-model")


def vgg16(quick):
    """VGG16 (Simonyan and Zisserman, 2014), 138,357,544 parameters; a thin copy of it if `quick`."""
    import keras

    divisor = 8 if quick else 1
    layers = [keras.Input((224, 224, 3))]
    for channels, depth in ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3)):
        for _ in range(depth):
            layers.append(keras.layers.Conv2D(channels // divisor, 3, padding="same", activation="relu"))
        layers.append(keras.layers.MaxPooling2D())
    layers.append(keras.layers.Flatten())
    for units in (4096, 4096):
        layers.append(keras.layers.Dense(units // divisor, activation="relu", kernel_initializer="zeros"))
    layers.append(keras.layers.Dense(1000, activation="softmax"))
    model = keras.Sequential(layers)
    generator = np.random.default_rng(0)
    for weight in model.trainable_weights:
        weight.assign(generator.standard_normal(weight.shape, "float32") * np.float32(0.02))
    return model


class PeakMemory:
    """The largest resident memory of this process while it is open, sampled every two milliseconds.

    Where the kernel keeps the peak itself and allows to reset it (Linux), that figure is used too.
    """

    def __enter__(self):
        gc.collect()
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL("libc.so.6").malloc_trim(0)  # else freed memory would hide what is allocated
        with contextlib.suppress(OSError):
            pathlib.Path("/proc/self/clear_refs").write_text("5")
        self.before = self.peak = resident()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)
        self._thread.start()
        return self

    def _sample(self):
        while not self._stop.wait(0.002):
            self.peak = max(self.peak, resident())

    def __exit__(self, *exception):
        self._stop.set()
        self._thread.join()
        self.kernel_peak = kernel_peak()

    @property
    def extra(self):
        """Bytes above those before, by the kernel's record or by the samples, whichever is larger."""
        return max(self.peak, self.kernel_peak or 0) - self.before


def resident():
    return int(pathlib.Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def kernel_peak():
    try:
        lines = pathlib.Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))
    except (OSError, StopIteration):
        return None


def child(arguments):
    """The measurement for one backend and one scope, in this process."""
    from keras_mot import sparsity

    model = vgg16(arguments.quick)
    largest = max(int(np.prod(weight.shape)) for weight in model.trainable_weights) * 4
    scope = sparsity.WholeModel() if arguments.child == "whole-model" else sparsity.PerLayer()
    schedule = sparsity.ConstantSparsity(0.9, begin_step=0, frequency=1)
    model = sparsity.prune_low_magnitude(model, schedule, scope=scope, inplace=True)
    updates = []
    for number in range(arguments.updates):
        with PeakMemory() as memory:
            started = time.perf_counter()
            sparsity.update_pruning_step(model, steps=min(number, 1))
            seconds = time.perf_counter() - started
        updates.append({"seconds": seconds, "extra_bytes": memory.extra, "sampled_bytes": memory.peak - memory.before})
    achieved = sparsity.pruning_report(model).sparsity
    send_result(
        {
            "parameters": sum(int(np.prod(weight.shape)) for weight in model.trainable_weights),
            "largest_bytes": largest,
            "sparsity": achieved,
            "updates": updates,
        }
    )


def main():
    parser = common_parser(__doc__.splitlines()[0])
    parser.add_argument("--backends", nargs="+", choices=BACKENDS, default=list(BACKENDS))
    parser.add_argument("--scopes", nargs="+", choices=SCOPES, default=list(SCOPES))
    parser.add_argument("--updates", type=int, default=3, help="updates in one process, each measured")
    parser.add_argument("--child", help="used by the command itself")
    arguments = parser.parse_args()
    if sys.platform != "linux":
        parser.error("memory is read from /proc, which only Linux has")
    if arguments.child:
        return child(arguments)
    runs = []
    for backend in arguments.backends:
        for scope in arguments.scopes:
            print(f"--- {backend}, {scope}", flush=True)
            options = ["--child", scope, "--updates", arguments.updates] + ["--quick"] * arguments.quick
            runs.append({"backend": backend, "scope": scope, **run_child(__file__, options, backend)})
    table = Table(
        f"One mask update at 90 %, {runs[0]['parameters']:,} parameters",
        (
            "backend, scope",
            "seconds, first",
            "seconds, all",
            "extra MB, worst",
            "of the largest weight",
            "sparsity, %",
        ),
        notes=(
            f"Targets: at most 5 s; extra peak memory at most 1.5 x the largest weight "
            f"({runs[0]['largest_bytes'] / 1e6:.1f} MB). Memory: resident, above that just before.",
        ),
    )
    for run in runs:
        extra = max(update["extra_bytes"] for update in run["updates"])
        table.add(
            f"{run['backend']}, {run['scope']}",
            f"{run['updates'][0]['seconds']:.2f}",
            " ".join(f"{update['seconds']:.2f}" for update in run["updates"]),
            f"{extra / 1e6:.0f}",
            f"{extra / run['largest_bytes']:.2f}",
            f"{run['sparsity']:.4%}".rstrip("%"),
        )
    values = {"environment": environment("one process each"), "targets": TARGETS, "runs": runs}
    write_results(arguments, "mask_update", values, [table])
    return 0


if __name__ == "__main__":
    sys.exit(main())
