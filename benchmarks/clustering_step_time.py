"""What clustering costs while training: whole `fit` calls, interleaved with the plain model's, per backend.

python benchmarks/clustering_step_time.py --backends tensorflow jax torch
"""

import statistics
import sys

from _common import (
    BACKENDS,
    Table,
    compile_classifier,
    data_file,
    data_folder,
    environment,
    load_model,
    run_child,
    send_result,
    write_results,
)
from _common import parser as common_parser
from step_time import BATCH, MODELS, PEER, ratios, runs_of, timed_fits, training_data

TARGET = 1.2
CLUSTERS = (16, 64)


def child(arguments):
    """The measurement for one backend and one model, in this process."""
    from keras_mot.clustering import ClusteringConfig, cluster_weights

    x, y = training_data(arguments.child, arguments.steps)
    base = load_model(MODELS[arguments.child])
    models = {"plain": base}
    models |= {str(n): cluster_weights(base, ClusteringConfig(n, frequency=arguments.frequency)) for n in CLUSTERS}
    for model in models.values():
        compile_classifier(model, 1e-5)
        model.fit(x[: 4 * BATCH], y[: 4 * BATCH], batch_size=BATCH, epochs=1, verbose=0)  # warm-up
    seconds = timed_fits(models, x, y, arguments.rounds)
    send_result({"model": arguments.child, "seconds": seconds})


def main():
    parser = common_parser(__doc__.splitlines()[0])
    parser.add_argument("--backends", nargs="+", choices=BACKENDS, default=list(BACKENDS))
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--steps", type=int, default=50, help="training steps of a fit")
    parser.add_argument("--rounds", type=int, default=5, help="fits of each model")
    parser.add_argument("--frequency", type=int, default=10, help="steps after which weights are assigned anew")
    parser.add_argument("--peer", metavar="PYTHON", help="interpreter that has TFMOT, see README.md")
    parser.add_argument("--child", help="used by the command itself")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.steps, arguments.rounds = min(arguments.steps, 10), min(arguments.rounds, 2)
    if arguments.child:
        return child(arguments)
    for name in arguments.models:
        data_file(MODELS[name])
    runs = runs_of(__file__, arguments, "--frequency", arguments.frequency)
    if arguments.peer and "mnist" in arguments.models:
        print("--- mnist, TFMOT", flush=True)
        options = [data_folder(), arguments.steps, arguments.rounds, "cluster"]
        peer = run_child(PEER, options, "tensorflow", arguments.peer, {"TF_USE_LEGACY_KERAS": "1"})
        runs.append({"backend": "TFMOT", "model": "mnist", **peer})
    values = {"environment": environment("one process each"), "batch": BATCH, "steps": arguments.steps}
    values |= {"frequency": arguments.frequency, "runs": runs}
    name = f"clustering_step_time_{'_'.join(arguments.models)}"
    write_results(arguments, name, values, [times_table(runs, arguments)])
    return 0


def times_table(runs, arguments):
    title = f"Whole fit of {arguments.steps} steps at batch {BATCH}, {arguments.rounds} interleaved fits, clustered"
    note = f"Medians over the plain model's; last: medians of the rounds' ratios. Target: {TARGET}."
    headers = ("model, backend", "plain, ms/step", *(f"{n} clusters" for n in CLUSTERS), "paired ratios")
    table = Table(title, headers, notes=(note,))
    for run in runs:
        both = [ratios(run["seconds"], str(n)) for n in CLUSTERS]
        plain = statistics.median(run["seconds"]["plain"]) / arguments.steps * 1000
        cells = [f"{ratio:.3f}" for ratio, _ in both] + [", ".join(f"{paired:.3f}" for _, paired in both)]
        table.add(f"{run['model']}, {run['backend']}", f"{plain:.1f}", *cells)
    return table


if __name__ == "__main__":
    sys.exit(main())
