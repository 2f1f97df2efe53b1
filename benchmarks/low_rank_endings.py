"""DS-CNN-L in 120 kB, by hand: low rank, trained, and then 4 bits by GPTQ, by AdaRound, or trained in integers.

KERAS_BACKEND=tensorflow python benchmarks/low_rank_endings.py

On three thirds of the speakers, on which nothing was trained or chosen. Rows are kept as they come; what has a result
is not run again without `--again`.
"""

import json
import tempfile

import keras
from _common import RESULTS, Table, environment, write_results
from _common import parser as common_parser
from _training import Augmented, Recipe
from quantization_accuracy import TASKS
from search import by_speaker, tuned_on

from keras_mot import compress
from keras_mot.analysis import measure
from keras_mot.recipes import Factorize, FineTune, PostTraining, QuantizeAware
from keras_mot.recipes import Recipe as Stages

NAME = "low_rank_endings"
RATE = 1e-3
BITS = {".*": 4}


def endings(epochs):
    """The last stages, by name."""
    trained = FineTune(max(1, epochs // 2), RATE / 10, schedule="cosine", batch_size=32)
    return {
        "GPTQ": PostTraining(overrides=BITS),
        "AdaRound": PostTraining(overrides=BITS, rounding="adaround"),
        "trained in integers": QuantizeAware(overrides=BITS, fine_tune=trained),
    }


def rows_of(part, arguments):
    """The results of one part: of the tuned float model, of its products of smaller kernels, and of the endings."""
    task = TASKS["ds_cnn_l"]()
    train, validation, test = by_speaker(task, part)
    if arguments.quick:
        train, validation, test = (tuple(values[:256] for values in pair) for pair in (train, validation, test))
    tuned = tuned_on(task, train, arguments)
    epochs = 1 if arguments.quick else arguments.epochs
    fine_tune = FineTune(epochs, RATE, schedule="cosine", batch_size=32)
    data = Augmented(*train, arguments.seed, Recipe(epochs, RATE, 32), **task.augmentation)
    options = {"loss": keras.losses.SparseCategoricalCrossentropy(from_logits=task.from_logits), "latency_runs": 0}
    options |= {"seed": arguments.seed}

    def run(model, stage):
        folder = tempfile.mkdtemp(prefix="endings_")
        result = compress(model, Stages([stage], "endings"), data, validation, output_dir=folder, **options)
        return result.stages, result.model

    def row(name, stage, seconds):
        accuracy = measure({name: stage.artifact}, data=test)[name].metric
        found = {"part": part, "seed": arguments.seed, "row": name, "clips": len(test[1]), "accuracy": 100 * accuracy}
        found |= {"validation": 100 * stage.metric, "bytes": stage.bytes, "zipped": stage.zipped_bytes}
        return {**found, "seconds": seconds, "share": arguments.share}

    (plain, low), small = run(tuned, Factorize(parameters=arguments.share, fine_tune=fine_tune))
    rows = [row("float, tuned", plain, 0.0), row("low rank", low, low.seconds)]
    for name, stage in endings(epochs).items():
        stages, _ = run(small, stage)
        rows.append(row(name, stages[-1], stages[-1].seconds))
        print(json.dumps(rows[-1]), flush=True)
    return rows


def table_of(rows):
    names = list(dict.fromkeys(row["row"] for row in rows))
    parts = sorted({row["part"] for row in rows})
    headers = ("", *(f"part {part}, %" for part in parts), "mean, %", "below float", "bytes", "zipped", "s")
    note = (
        f"Accuracy of files on the speakers of a part, {min(row['clips'] for row in rows)} clips or a few more; means "
        f"over the parts. Kernels keep {rows[0]['share']:.0%} of their parameters. Zipped: the largest of the parts."
    )
    table = Table("DS-CNN-L: low rank and 4 bits, by what comes last", headers, notes=(note,))
    base = None
    for name in names:
        own = {row["part"]: row for row in rows if row["row"] == name}
        mean = sum(row["accuracy"] * row["clips"] for row in own.values()) / sum(row["clips"] for row in own.values())
        base = mean if base is None else base
        largest = [f"{max(row[key] for row in own.values()):,}" for key in ("bytes", "zipped")]
        seconds = max(row["seconds"] for row in own.values())
        cells = [f"{own[part]['accuracy']:.2f}" for part in parts]
        table.add(name, *cells, f"{mean:.2f}", f"{base - mean:.2f}", *largest, f"{seconds:.0f}")
    return table


def main():
    parser = common_parser(__doc__.splitlines()[0])
    parser.add_argument("--parts", type=int, nargs="+", default=[0, 1, 2], help="of the three parts of the speakers")
    parser.add_argument("--share", type=float, default=0.42, help="of the parameters that low rank leaves")
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--again", action="store_true", help="run also what has a result")
    arguments = parser.parse_args()
    path = (arguments.output or RESULTS) / f"{NAME}.json"
    keep = path.is_file() and not arguments.again and not arguments.quick
    rows = json.loads(path.read_text())["rows"] if keep else []
    for part in arguments.parts:
        if not any((row["part"], row["seed"]) == (part, arguments.seed) for row in rows):
            rows += rows_of(part, arguments)
            write_results(arguments, NAME, {"environment": environment(), "rows": rows}, [table_of(rows)])


if __name__ == "__main__":
    main()
