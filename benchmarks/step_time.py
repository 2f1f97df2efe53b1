"""What pruning costs while training: whole `fit` calls, interleaved with the plain model's, per backend.

python benchmarks/step_time.py --backends tensorflow jax torch
"""

import contextlib
import os
import pathlib
import statistics
import sys
import time

import numpy as np
from _common import (
    BACKENDS,
    Table,
    cifar10,
    compile_classifier,
    data_file,
    data_folder,
    environment,
    load_model,
    mnist,
    run_child,
    send_result,
    write_results,
)
from _common import parser as common_parser

BATCH = 128
TARGETS = {100: 1.05, 10: 1.15}
MODELS = {"mnist": "mnist/mnist_cnn.keras", "resnet8": "cifar10/resnet8_jpegft.keras"}
PEER = pathlib.Path(__file__).with_name("_step_time_peer.py")


def training_data(name, steps):
    if name == "mnist":
        (x, y), _ = mnist()
    else:
        x, y = cifar10("test")  # only the time matters, and the test images decode five times faster
        x, y = np.concatenate([x, x]), np.concatenate([y, y])
    return x[: steps * BATCH], y[: steps * BATCH]


def pruned(model, frequency):
    """The model pruned at 90 %, with the masks updated every `frequency` steps, without end."""
    import keras_mot

    schedule = keras_mot.sparsity.ConstantSparsity(0.9, begin_step=0, frequency=frequency)
    return keras_mot.sparsity.prune_low_magnitude(model, schedule)


def timed_fits(models, x, y, rounds):
    """Seconds of every fit, by name: each round fits all models, one after the other (A B C A B C).

    A fit ends with its training: on TensorFlow, `fit` then waits for its input pipeline to be taken down, in some runs,
    until about the next multiple of 5 s, whatever the model.
    """
    import keras

    ends = []
    callback = keras.callbacks.LambdaCallback(on_train_end=lambda logs: ends.append(time.perf_counter()))
    seconds = {name: [] for name in models}
    for _ in range(rounds):
        for name, model in models.items():
            started = time.perf_counter()
            model.fit(x, y, batch_size=BATCH, epochs=1, verbose=0, callbacks=[callback])
            seconds[name].append(ends[-1] - started)
    return seconds


class UpdateClock:
    """Counts the mask updates, and the seconds in them, while it is open."""

    def __init__(self):
        self.seconds = {"update": 0.0, "synchronise": 0.0, "logs": 0.0}
        self.updates = 0

    @contextlib.contextmanager
    def running(self):
        from keras_mot.layers.updates import TransformSchedule
        from keras_mot.sparsity import PruningConfig

        plain = PruningConfig.update, TransformSchedule.__init__, TransformSchedule.logs

        def update(config, weights, step):
            self.updates += 1
            return self._timed("update", plain[0], config, weights, step)

        def initialise(schedule, model, before_update=lambda: None):
            plain[1](schedule, model, lambda: self._timed("synchronise", before_update))

        PruningConfig.update, TransformSchedule.__init__ = update, initialise
        TransformSchedule.logs = property(lambda schedule: self._timed("logs", plain[2].fget, schedule))
        try:
            yield self
        finally:
            PruningConfig.update, TransformSchedule.__init__, TransformSchedule.logs = plain

    def _timed(self, name, function, *arguments):
        started = time.perf_counter()
        try:
            return function(*arguments)
        finally:
            self.seconds[name] += time.perf_counter() - started


def profile(models, x, y, plain_seconds):
    """Where the time of one fit of each pruned model goes, beyond the median of the plain one's."""
    result = {}
    for name in list(models)[1:]:
        clock = UpdateClock()
        with clock.running():
            seconds = timed_fits({name: models[name]}, x, y, 1)[name][0]
        inside = sum(clock.seconds.values())
        result[name] = {
            "fit": seconds,
            "plain_fit": plain_seconds,
            "updates": clock.updates,
            **clock.seconds,
            "elsewhere_beyond_plain": seconds - inside - plain_seconds,
        }
    return result


def child(arguments):
    """The measurement for one backend and one model, in this process."""
    x, y = training_data(arguments.child, arguments.steps)
    base = load_model(MODELS[arguments.child])
    models = {"plain": base, "100": pruned(base, 100), "10": pruned(base, 10)}
    if arguments.profile:
        models["never"] = pruned(base, 10**9)  # masks, but no update after the first
    for model in models.values():
        compile_classifier(model, 1e-5)
        model.fit(x[: 12 * BATCH], y[: 12 * BATCH], batch_size=BATCH, epochs=1, verbose=0)  # warm-up
    seconds = timed_fits(models, x, y, arguments.rounds)
    result = {"model": arguments.child, "seconds": seconds}
    if arguments.profile:
        result["profile"] = profile(models, x, y, statistics.median(seconds["plain"]))
    send_result(result)


def runs_of(script, arguments, *options):
    """What a script's `--child` gave for each model on each backend, in a process of its own."""
    runs = []
    for name in arguments.models:
        for backend in arguments.backends:
            print(f"--- {name} on {backend}", flush=True)
            common = ["--child", name, "--steps", arguments.steps, "--rounds", arguments.rounds]
            run = run_child(script, [*common, *options], backend)
            runs.append({"backend": backend, **run, "load_after": os.getloadavg()[0]})
    return runs


def ratios(seconds, name):
    """(ratio of the medians, median of the ratios within a round)."""
    return (
        statistics.median(seconds[name]) / statistics.median(seconds["plain"]),
        statistics.median(a / b for a, b in zip(seconds[name], seconds["plain"], strict=True)),
    )


def main():
    parser = common_parser(__doc__.splitlines()[0])
    parser.add_argument("--backends", nargs="+", choices=BACKENDS, default=list(BACKENDS))
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--steps", type=int, default=100, help="training steps of a fit, at least 100")
    parser.add_argument("--rounds", type=int, default=7, help="fits of each model")
    parser.add_argument("--profile", action="store_true", help="also show where the time goes")
    parser.add_argument("--peer", metavar="PYTHON", help="interpreter that has TFMOT, see README.md")
    parser.add_argument("--child", help="used by the command itself")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.steps, arguments.rounds = min(arguments.steps, 20), min(arguments.rounds, 2)
    elif arguments.steps < 100:
        parser.error("--steps must be at least 100, else a fit with frequency=100 may have no update")
    if arguments.child:
        return child(arguments)
    for name in arguments.models:
        data_file(MODELS[name])
    for name in arguments.models:
        runs = measured_runs(name, arguments)
        tables = [times_table(runs, arguments)] + [profile_table(runs)] * arguments.profile
        values = {"environment": environment("one process each"), "batch": BATCH, "steps": arguments.steps}
        chosen = f"{name}_{arguments.backends[0]}" if len(arguments.backends) == 1 else name
        write_results(arguments, f"step_time_{chosen}", {**values, "runs": runs}, tables)
    return 0


def measured_runs(name, arguments):
    """What each backend gave for one model, measured one after the other in processes of their own."""
    runs = []
    for backend in arguments.backends:
        print(f"--- {name} on {backend}", flush=True)
        options = ["--child", name, "--steps", arguments.steps, "--rounds", arguments.rounds]
        options += ["--quick"] * arguments.quick + ["--profile"] * arguments.profile
        started = os.getloadavg()[0]
        run = run_child(__file__, options, backend)
        runs.append({"backend": backend, **run, "load_before": started, "load_after": os.getloadavg()[0]})
    if arguments.peer and name == "mnist":
        print("--- mnist, TFMOT", flush=True)
        options = [data_folder(), arguments.steps, arguments.rounds]
        peer = run_child(PEER, options, "tensorflow", arguments.peer, {"TF_USE_LEGACY_KERAS": "1"})
        runs.append({"backend": "TFMOT", "model": name, **peer})
    return runs


def times_table(runs, arguments):
    table = Table(
        f"Whole fit of {arguments.steps} steps at batch {BATCH}, {arguments.rounds} interleaved fits",
        (
            "model, backend",
            "plain, ms/step",
            *(f"frequency={f}" for f in TARGETS),
            "paired ratios",
        ),
        notes=("Medians over the plain model's; last: medians of the rounds' ratios. Targets: 1.05, 1.15.",),
    )
    for run in runs:
        both = [ratios(run["seconds"], str(frequency)) for frequency in TARGETS]
        plain = statistics.median(run["seconds"]["plain"]) / arguments.steps * 1000
        table.add(
            f"{run['model']}, {run['backend']}",
            f"{plain:.1f}",
            *(f"{ratio:.3f}" for ratio, _ in both),
            ", ".join(f"{paired:.3f}" for _, paired in both),
        )
    return table


def profile_table(runs):
    table = Table(
        "Where the time of one fit goes, in seconds",
        (
            "model, backend, frequency",
            "fit",
            "plain",
            "updates",
            "updating",
            "synchronising",
            "logs",
            "else",
        ),
        notes=("'else': what is left beyond the plain fit's median; negative where noise is larger.",),
    )
    for run in runs:
        for name, row in run.get("profile", {}).items():
            keys = ("fit", "plain_fit", "updates", "update", "synchronise", "logs", "elsewhere_beyond_plain")
            cells = [row[key] if key == "updates" else f"{row[key]:.3f}" for key in keys]
            table.add(f"{run['model']}, {run['backend']}, {name}", *cells)
    return table


if __name__ == "__main__":
    sys.exit(main())
