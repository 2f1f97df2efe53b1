"""Models on Ethos-U NPUs: memory, cycles and time as Vela estimates them, dense, pruned, clustered, and both.

KERAS_BACKEND=tensorflow python benchmarks/ethos_u.py mnist
KERAS_BACKEND=tensorflow python benchmarks/ethos_u.py ds_cnn_l
KERAS_BACKEND=tensorflow python benchmarks/ethos_u.py as_given
KERAS_BACKEND=tensorflow python benchmarks/ethos_u.py n_m
"""

import pathlib
import tempfile

import keras
import numpy as np
from _common import Table, environment, load_model, mnist, write_results
from _common import parser as common_parser
from _training import cut, speaker_parts
from quantization_accuracy import CALIBRATION, TASKS

import keras_mot
from keras_mot.export import export_litert
from keras_mot.layers import update_step
from keras_mot.quantization import INT8, quantize_post_training
from keras_mot.recipes import Cluster, FineTune, PostTraining, Prune, Recipe, Tune
from keras_mot.sparsity import ConstantSparsity, NofM, prune_low_magnitude

AS_GIVEN = ("ds_cnn_l", "gru_s", "cnn_s")
# The epochs and learning rates of `collaborative_accuracy.py mnist`.
MNIST = (Prune(0.9, fine_tune=FineTune(2, 2e-3, schedule="cosine")), Cluster(16, fine_tune=FineTune(1, 2e-4)))
_KEYWORDS = {"batch_size": 32, "schedule": "cosine"}
DS_CNN_L = (
    Tune(FineTune(3, 3e-4, **_KEYWORDS)),
    Prune(0.5, frequency=10, fine_tune=FineTune(4, 3e-4, **_KEYWORDS)),
    Cluster(16, entropy_weight=0.01, fine_tune=FineTune(2, 1e-4, **_KEYWORDS)),
)


def accuracy(path, test):
    """Of an integer file, in LiteRT. The compiled file holds the same integers."""
    report = keras_mot.analysis.measure({"file": path}, data=test, batch_size=100, latency_runs=0, progress=False)
    return report["file"].metric


def row(name, path, estimate, test):
    values = {
        "name": name,
        "accuracy": None if test is None else accuracy(path, test),
        "file_bytes": estimate.bytes,
        **estimate.to_dict(),
    }
    print({key: value for key, value in values.items() if key != "layers"}, flush=True)
    return values


def after_training(name, model, calibration, test, folder, target="ethos-u"):
    """A row of a model that is quantized as it is: masks and codebooks of stages are kept."""
    quantized = quantize_post_training(model, INT8, calibration, target=target)
    exported = export_litert(quantized, folder / "model.tflite")
    return row(name, exported.path, exported.compiled.estimate, test)


def compressed(model, stages, train, test):
    """Rows of a model: dense; pruned; clustered; and both, in one call of `compress`."""
    calibration, rows = train[0][:CALIBRATION], []
    cluster = [stage for stage in stages if isinstance(stage, Cluster)]
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)

        def run(name, model, *stages):
            recipe = Recipe([*stages, PostTraining()], name)
            options = {"target": "ethos-u", "latency_runs": 0, "output_dir": folder / name}
            result = keras_mot.compress(model, recipe, train, test, **options)
            print(result, flush=True)
            return result

        both = run("both", model, *stages)
        names = [stage.name for stage in both.stages]
        start = both.stages[1 if "tune" in names else 0]
        dense = keras.models.load_model(start.model_path, compile=False)
        rows.append(after_training("dense", dense, calibration, test, folder))
        pruned = keras.models.load_model(both["prune"].model_path, compile=False)
        rows.append(after_training("pruned", pruned, calibration, test, folder))
        clustered = run("clustered", dense, *cluster)
        rows.append(row("clustered", clustered.artifact, clustered.compiled.estimate, test))
        rows.append(row("pruned and clustered, by `compress`", both.artifact, both.compiled.estimate, test))
    return rows, {stage.name: stage.metric for stage in both.stages}


def mnist_rows(arguments):
    train, test = mnist()
    stages = MNIST
    if arguments.quick:
        train, test = cut(train, 640), cut(test, 500)
    rows, stages = compressed(load_model("mnist/mnist_cnn.keras"), stages, train, test)
    notes = ["Asked: 3.12 MB to 361 kB, 3.22 to 0.56 million cycles, at no less than 99.1 %."]
    return rows, [*notes, accuracies(stages)]


def keyword_rows(arguments):
    number, train, test = next(speaker_parts(3, arguments.quick))
    if arguments.quick:
        train, test = cut(train, 320), cut(test, 100)
    rows, stages = compressed(load_model("kws/ds_cnn_l.keras"), DS_CNN_L, train, test)
    notes = [f"Trained on speakers that part {number} is without, measured on part {number}. Asked: at most 195 kB."]
    return rows, [*notes, accuracies(stages)]


def accuracies(stages):
    return "In LiteRT after each stage of both: " + ", ".join(f"{name} {value:.2%}" for name, value in stages.items())


def as_given(arguments):
    """Models as they are, quantized after training: all of them on the NPU."""
    rows = []
    for name in arguments.models:
        task = TASKS[name]()
        test = cut(task.test, 50 if arguments.quick else 1000)
        chosen = np.random.default_rng(0).permutation(len(task.train[0]))[:CALIBRATION]
        with tempfile.TemporaryDirectory() as folder:
            rows.append(after_training(name, task.model, task.train[0][chosen], test, pathlib.Path(folder)))
        keras.backend.clear_session()
    return rows, ["Quantized after training; accuracy of the integer file on the first 1000 samples at most."]


def n_m(arguments):
    """DS-CNN-L's zeros anywhere, and in a 2:4 pattern, on Ethos-U85; pruned at once."""
    _, train, test = next(speaker_parts(3, arguments.quick))
    model, rows = load_model("kws/ds_cnn_l.keras"), []
    for name, options in {"dense": None, "50 %": {}, "2:4": {"granularity": NofM(2, 4)}}.items():
        pruned = model
        if options is not None:  # the first layer has one input, which makes no groups of four
            pruned = prune_low_magnitude(model, ConstantSparsity(0.5, 0), overrides={"conv_1$": None}, **options)
            update_step(pruned, 0)
        with tempfile.TemporaryDirectory() as folder:
            calibration = train[0][:CALIBRATION]
            rows.append(after_training(name, pruned, calibration, test, pathlib.Path(folder), "ethos-u85"))
    return rows, ["Pruned at once, by magnitude, without training; the first layer is left alone."]


EXPERIMENTS = {"mnist": mnist_rows, "ds_cnn_l": keyword_rows, "as_given": as_given, "n_m": n_m}


def rows_table(title, rows, notes):
    headers = ("model", "accuracy, %", "NPU", "on the NPU", ".tflite bytes", "compiled bytes", "flash + DRAM, bytes")
    headers = (*headers, "SRAM, bytes", "weights encoded, bytes", "cycles", "ms (estimated)")
    table = Table(title, headers, notes=tuple(notes))
    for each in rows:
        table.add(
            each["name"],
            "" if each["accuracy"] is None else f"{100 * each['accuracy']:.2f}",
            each["accelerator"],
            f"{each['npu_operators']} of {each['operators']}",
            f"{each['file_bytes']:,}",
            f"{each['compiled_bytes']:,}",
            f"{each['flash_bytes'] + each['dram_bytes']:,}",
            f"{each['sram_bytes']:,}",
            f"{each['encoded_weight_bytes']:,}",
            f"{each['cycles']:,}",
            f"{each['milliseconds']:.3f}",
        )
    return table


def main():
    parser = common_parser(__doc__.splitlines()[0])
    parser.add_argument("experiment", choices=EXPERIMENTS)
    parser.add_argument("--models", nargs="+", choices=tuple(TASKS), default=list(AS_GIVEN), help="as_given")
    arguments = parser.parse_args()
    rows, notes = EXPERIMENTS[arguments.experiment](arguments)
    first = rows[0]
    notes = [*notes, f"{first['compiler']}, its default settings; nothing ran on an NPU."]
    values = {"environment": environment(), "version": keras_mot.__version__, "rows": rows, "notes": notes}
    name = f"ethos_u_{arguments.experiment}_{keras.backend.backend()}"
    write_results(arguments, name, values, [rows_table(arguments.experiment, rows, notes)])


if __name__ == "__main__":
    main()
