"""Compressed weights for microcontrollers: DS-CNN-L in flash, running in TFLM, and what that costs in accuracy.

KERAS_BACKEND=tensorflow python benchmarks/micro_weights.py --models FOLDER

Trained models are kept in the folder; what is there is not trained again. Rows are kept as they come.
"""

import dataclasses
import pathlib
import tempfile
import time

import keras
from _common import Table, environment, load_model, write_results
from _common import parser as common_parser
from _training import cut
from collaborative_accuracy import DS_CLUSTERING_TUNED, DS_PRUNING, DS_TUNING, keyword_trials

import keras_mot
from keras_mot.export import export_litert
from keras_mot.quantization import INT8, quantize_post_training

EQUAL = dataclasses.replace(DS_TUNING, epochs=DS_TUNING.epochs + DS_PRUNING.epochs + DS_CLUSTERING_TUNED.epochs)
RECIPES = {"equal": EQUAL, "tuning": DS_TUNING, "pruning": DS_PRUNING, "clustering": DS_CLUSTERING_TUNED}
VALUES, SPARSITY, ENTROPY_WEIGHT = 16, 0.5, 0.02
BOTH, CLUSTERED = f"{SPARSITY:.0%} zeros and {VALUES} values", f"{VALUES} values"
ASKED = {BOTH: (168_000, 145_000), CLUSTERED: (219_000, None)}
POINTS = 0.7


def trained(trial, number, folder, quick):
    """The models of a part of the speakers by their names: in floats, and quantized for microcontrollers."""
    recipes = {name: dataclasses.replace(each, epochs=1) if quick else each for name, each in RECIPES.items()}

    def kept(name, make):
        path = None if folder is None else folder / f"ds_cnn_l_{number}_{name}.keras"
        if path is not None and path.is_file():
            return keras.models.load_model(path, compile=False)
        started = time.perf_counter()
        model, seconds = make()
        print(f"--- {name}: {time.perf_counter() - started:.0f} s, of which fit {seconds:.0f}", flush=True)
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            model.save(path)
        return model

    float_model = kept("float", lambda: trial.trained(trial.plain(), recipes["equal"], number))
    tuned = kept("tuned", lambda: trial.trained(trial.plain(), recipes["tuning"], number))
    trial = trial.taught_by(tuned)

    def clustered(model, seconds=0.0):
        found, more = trial.clustered(model, VALUES, recipes["clustering"], number, entropy_weight=ENTROPY_WEIGHT)
        return quantize_post_training(found, INT8, trial.calibration, target="micro"), seconds + more

    both = kept("both", lambda: clustered(*trial.pruned(SPARSITY, recipes["pruning"], number)))
    return float_model, {BOTH: both, CLUSTERED: kept("clustered", lambda: clustered(tuned))}


def rows_of(number, trial, float_model, models):
    """The rows of a part: each model's file, what it takes, and how often it is right, in TFLM itself."""
    options = {"data": trial.test, "batch_size": 100, "latency_runs": 0, "progress": False}
    known = keras_mot.analysis.measure({"float": float_model}, **options)["float"]
    for name, model in models.items():
        with tempfile.TemporaryDirectory() as folder:
            file = export_litert(model, pathlib.Path(folder) / "model.tflite", compress_weights="auto")
            measured = keras_mot.analysis.measure({name: file}, **options)[name]
        kernels = [tensor for tensor in measured.tensors if tensor.is_kernel]
        row = {
            "name": name,
            "part": number,
            "clips": len(trial.test[1]),
            "accuracy": measured.metric,
            "float_accuracy": known.metric,
            "bytes": file.bytes,
            "dense_bytes": file.dense_bytes,
            "zipped_bytes": measured.zipped_bytes,
            "arena_bytes": file.arena_bytes,
            "sparsity": measured.sparsity,
            "values": max(each.unique_values for each in kernels if each.encoding),
            "verification": file.verification,
            "weights": [dataclasses.asdict(each) for each in file.compressed_weights],
        }
        print({key: value for key, value in row.items() if key != "weights"}, flush=True)
        yield row


def table_of(rows):
    headers = ("model", "part", "bytes", "asked", "dense", "zipped", "arena, bytes", "asked", "accuracy in TFLM, %")
    table = Table(
        "DS-CNN-L for microcontrollers, weights compressed",
        (*headers, "float trained as long, %", "points lost", "asked", "zeros in kernels, %", "most values"),
        notes=(
            "Bytes: of the whole file, as it lies in flash. Arena: with pointers of 64 bits. Each part holds speakers "
            "of its own, and is measured on after training on the others; the means are weighted by clips.",
            "Depthwise kernels are neither pruned nor clustered. Outputs are those of the file with dense weights, to "
            "the last bit, which the export checks.",
            f"Clustered with an entropy weight of {ENTROPY_WEIGHT}; ranges by calibration, after training. Epochs: "
            f"tuning {DS_TUNING.epochs}, pruning {DS_PRUNING.epochs}, clustering {DS_CLUSTERING_TUNED.epochs}; float "
            f"{EQUAL.epochs}, which is more than '{CLUSTERED}' took.",
        ),
    )
    for name, (size, arena) in ASKED.items():
        chosen = [row for row in rows if row["name"] == name]
        for row in (mean(chosen), *chosen) if len(chosen) > 1 else chosen:
            lost = 100 * (row["float_accuracy"] - row["accuracy"])
            table.add(
                name,
                row["part"],
                *(f"{row['bytes']:,}", f"{size:,}", f"{row['dense_bytes']:,}", f"{row['zipped_bytes']:,}"),
                *(f"{row['arena_bytes']:,}", "" if arena is None else f"{arena:,}"),
                *(f"{100 * row['accuracy']:.2f}", f"{100 * row['float_accuracy']:.2f}", f"{lost:.2f}", POINTS),
                *(f"{100 * row['sparsity']:.2f}", row["values"]),
            )
    return table


def mean(rows):
    """The mean over parts, weighted by clips; of sizes, the largest."""
    clips = sum(row["clips"] for row in rows)
    largest = ("bytes", "dense_bytes", "zipped_bytes", "arena_bytes", "values")
    means = ("accuracy", "float_accuracy", "sparsity")
    return {
        "part": "all",
        **{key: max(row[key] for row in rows) for key in largest},
        **{key: sum(row[key] * row["clips"] for row in rows) / clips for key in means},
    }


def main():
    parser = common_parser(__doc__.splitlines()[0])
    parser.add_argument("--models", type=pathlib.Path, help="folder to keep trained models in, and to take them from")
    parser.add_argument("--parts", type=int, nargs="+", default=[0, 1, 2], help="of the three parts of the speakers")
    parser.add_argument("--only-train", action="store_true", help="fill the folder, and measure nothing")
    arguments = parser.parse_args()
    if arguments.only_train and arguments.models is None:
        parser.error("--only-train needs --models FOLDER")
    rows, name = [], f"micro_weights_{keras.backend.backend()}"
    for number, trial in keyword_trials(load_model("kws/ds_cnn_l.keras"), arguments.quick):
        if number not in arguments.parts:
            continue
        if arguments.quick:
            trial = dataclasses.replace(trial, test=cut(trial.test, 50))
        float_model, models = trained(trial, number, arguments.models, arguments.quick)
        if arguments.only_train:
            continue
        rows += rows_of(number, trial, float_model, models)
        write_results(arguments, name, {"environment": environment(), "rows": rows}, [table_of(rows)])


if __name__ == "__main__":
    main()
