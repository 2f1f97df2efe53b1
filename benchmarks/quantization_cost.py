"""What quantization costs: steps of training and calibration, beside the plain model's, per backend.

python benchmarks/quantization_cost.py --backends tensorflow jax torch
"""

import statistics
import sys
import time

from _common import (
    BACKENDS,
    Table,
    compile_classifier,
    data_file,
    environment,
    load_model,
    send_result,
    write_results,
)
from _common import parser as common_parser
from step_time import BATCH, MODELS, ratios, runs_of, timed_fits, training_data

TARGETS = {"mnist": 1.15, "resnet8": 1.5}
CALIBRATION_TARGET = 1.5


def child(arguments):
    """The measurement for one backend and one model, in this process."""
    from keras_mot.quantization import quantize_model

    x, y = training_data(arguments.child, arguments.steps)
    x = x.astype("float32")
    base = load_model(MODELS[arguments.child])
    models = {"plain": base, "int8": quantize_model(base, calibration_data=x[:BATCH], progress=False)}
    for model in models.values():
        compile_classifier(model, 1e-5)
        model.fit(x[: 4 * BATCH], y[: 4 * BATCH], batch_size=BATCH, epochs=1, verbose=0)  # warm-up
    seconds = timed_fits(models, x, y, arguments.rounds)
    send_result(
        {"model": arguments.child, "seconds": seconds, "calibration": calibration(base, x[: 8 * BATCH], arguments)}
    )


def calibration(model, x, arguments):
    """Seconds of plain inference, and of calibration in excess of quantizing without, over the same data."""
    from keras_mot.quantization import MinMax, quantize_model

    def plain():
        for start in range(0, len(x), BATCH):
            model(x[start : start + BATCH], training=False)

    def quantize(data, **options):
        return lambda: quantize_model(model, calibration_data=data, batch_size=BATCH, progress=False, **options)

    ranges_only = {"estimator": MinMax(), "equalize": False, "correct_biases": False}
    tasks = {"plain": plain, "without": quantize(None), "min-max": quantize(x, **ranges_only), "default": quantize(x)}
    seconds = {name: [] for name in tasks}
    for _ in range(arguments.rounds):
        for name, task in tasks.items():
            started = time.perf_counter()
            task()
            seconds[name].append(time.perf_counter() - started)
    return seconds


def main():
    parser = common_parser(__doc__.splitlines()[0])
    parser.add_argument("--backends", nargs="+", choices=BACKENDS, default=list(BACKENDS))
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--steps", type=int, default=50, help="training steps of a fit")
    parser.add_argument("--rounds", type=int, default=5, help="fits of each model")
    parser.add_argument("--child", help="used by the command itself")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.steps, arguments.rounds = min(arguments.steps, 10), min(arguments.rounds, 2)
    if arguments.child:
        return child(arguments)
    for name in arguments.models:
        data_file(MODELS[name])
    runs = runs_of(__file__, arguments)
    values = {"environment": environment("one process each"), "batch": BATCH, "steps": arguments.steps, "runs": runs}
    write_results(arguments, f"quantization_cost_{'_'.join(arguments.models)}", values, [costs_table(runs, arguments)])
    return 0


def costs_table(runs, arguments):
    table = Table(
        f"Whole fit of {arguments.steps} steps at batch {BATCH}, and calibration on 8 batches; medians of "
        f"{arguments.rounds} interleaved rounds",
        (
            *("model, backend", "plain, ms/step", "int8", "paired ratio", "asked"),
            *("inference, s", "calibration (min-max)", "calibration (default)", "asked"),
        ),
        notes=(
            "Ratios over the plain model's. The default calibration also searches the ranges of inputs, and tries "
            "equalization and bias correction.",
        ),
    )
    for run in runs:
        ratio, paired = ratios(run["seconds"], "int8")
        median = {name: statistics.median(values) for name, values in run["calibration"].items()}
        shares = [(median[name] - median["without"]) / median["plain"] for name in ("min-max", "default")]
        table.add(
            f"{run['model']}, {run['backend']}",
            f"{statistics.median(run['seconds']['plain']) / arguments.steps * 1000:.1f}",
            f"{ratio:.3f}",
            f"{paired:.3f}",
            str(TARGETS[run["model"]]),
            f"{median['plain']:.2f}",
            *(f"{share:.2f}" for share in shares),
            str(CALIBRATION_TARGET),
        )
    return table


if __name__ == "__main__":
    sys.exit(main())
