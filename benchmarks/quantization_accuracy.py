"""Accuracy of quantized models in the runtime, beside the float models and TensorFlow's own converter.

KERAS_BACKEND=tensorflow python benchmarks/quantization_accuracy.py ptq
KERAS_BACKEND=tensorflow python benchmarks/quantization_accuracy.py qat
KERAS_BACKEND=tensorflow python benchmarks/quantization_accuracy.py by_loss
"""

import dataclasses
import pathlib
import subprocess
import tempfile
import time
from collections.abc import Callable

import keras
import numpy as np
from _common import (
    Table,
    cifar10,
    data_file,
    environment,
    load_model,
    loaders,
    mnist,
    write_results,
)
from _common import parser as common_parser
from _training import (
    Augmented,
    Recipe,
    cut,
    fine_tune,
    mean_row,
    speaker_folds,
    speaker_parts,
    steps_of,
    train_by_recipe,
)

import keras_mot
from keras_mot.analysis import zipped_bytes
from keras_mot.export import LiteRTRunner, export_litert
from keras_mot.quantization import (
    INT4_WEIGHTS,
    INT8,
    INT16X8,
    LeastSquares,
    MeanMinMax,
    MinMax,
    Percentile,
    QuantizationScheme,
    quantize_model,
    quantize_post_training,
)

QUANTIZER_PEER = pathlib.Path(__file__).with_name("_litert_quantizer_peer.py")
CALIBRATION = 500
MOST_LABELLED = 2048
LAMB = Recipe(epochs=2, learning_rate=1e-3, decay_shares=(0.5, 0.8), optimizer="Lamb")
KEYWORDS = Recipe(epochs=8, learning_rate=3e-4, batch_size=32, decay_shares=(0.6, 0.8), temperature=2.0)
KEYWORDS_QUANTIZED = {"epochs": 1, "learning_rate": 1e-4}  # the last of those epochs


@dataclasses.dataclass(frozen=True)
class Task:
    """A real model with its data.

    Args:
        model: the float model.
        train: (inputs, labels) to calibrate and train on.
        test: (inputs, labels) to measure on.
        drop: the asked largest loss of accuracy of int8 after training, in points.
        from_logits: whether the model returns logits.
        qat_drop: the same of quantization-aware training.
        augmentation: arguments of `Augmented` for quantization-aware training, or `None` for the samples as they are.
        prepared: function that turns keyword spotting clips into the model's inputs, or `None` for other tasks.
    """

    model: keras.Model
    train: tuple
    test: tuple
    drop: float
    from_logits: bool = False
    qat_drop: float | None = None
    augmentation: dict | None = None
    prepared: Callable | None = None


def mnist_task():
    train, test = mnist()
    return Task(load_model("mnist/mnist_cnn.keras"), train, test, 0.05, qat_drop=-0.17)


def resnet8_task():
    model = load_model("cifar10/resnet8_jpegft.keras")
    changes = {"shift": (4, 4), "flip": True}
    return Task(model, cifar10("train"), cifar10("test"), 0.4, qat_drop=0.1, augmentation=changes)


def every_second_frame(x):
    return x[:, ::2, :, 0]


def keyword_task(name, drop, qat_drop=None):
    data_file("kws/kws_mfcc.npz")
    clips = loaders().keyword_spotting()
    model = load_model(f"kws/{name}.keras")
    x, calibration = (clips["x"], clips["x_cal"])
    prepared = every_second_frame if name == "gru_s" else np.asarray
    x, calibration = prepared(x), prepared(calibration)
    train, test = (calibration, clips["y_cal"].astype("int32")), (x, clips["y"].astype("int32"))
    changes = {"shift": (4, 0)} if x.ndim == 4 else None
    return Task(model, train, test, drop, True, qat_drop, changes, prepared)


def mobilenet_task():
    model = load_model("imagenet/mobilenet_v1_0.50_160_float.keras")
    generator = np.random.default_rng(0)
    # Its weights lie on a grid of 8 bits: roughened by uniform noise half a step wide.
    for layer in model.layers:
        if layer.weights and "kernel" in layer.weights[0].name:
            kernel = np.array(keras.ops.convert_to_numpy(layer.weights[0]))
            depthwise = isinstance(layer, keras.layers.DepthwiseConv2D)
            channels = kernel.reshape(-1, kernel.shape[-2] if depthwise else kernel.shape[-1])
            for channel in channels.T:
                gaps = np.diff(np.unique(channel))
                gaps = gaps[gaps > 1e-6 * np.abs(channel).max()]
                step = gaps.min() if len(gaps) else 0.0
                channel += generator.uniform(-step / 4, step / 4, channel.shape)
            layer.weights[0].assign(kernel)
    x, y = loaders().imagenet(160)
    return Task(model, (x, y), (x[:500], y[:500].astype("int32")), 1.0)


LEARNED = QuantizationScheme(weight_bits=4, learned_scales=True)
SCHEMES = {"int8": INT8, "int4 weights": INT4_WEIGHTS}
ALL_SCHEMES = {**SCHEMES, "int4 weights, learned scales": LEARNED}
TASKS = {
    "mnist": mnist_task,
    "ds_cnn_l": lambda: keyword_task("ds_cnn_l", 0.4, 0.2),
    "ds_cnn_s": lambda: keyword_task("ds_cnn_s", 0.4),
    "cnn_s": lambda: keyword_task("cnn_s", 0.3),
    "gru_s": lambda: keyword_task("gru_s", 0.6, 0.3),
    "resnet8": resnet8_task,
    "mobilenet": mobilenet_task,
}


def measured(name, content, task, simulation=None, **values):
    """One row: what a file does in the runtime."""
    x, y = task.test
    (outputs,) = LiteRTRunner(content, num_threads=2).run(x).values()
    row = {"name": name, "accuracy": float(np.mean(outputs.argmax(-1) == y)), "bytes": len(content), **values}
    row["zipped_bytes"] = zipped_bytes(content)
    if simulation is not None:
        simulated = simulation.predict(x, batch_size=100, verbose=0)
        row["agreement"] = float(np.mean(simulated.argmax(-1) == outputs.argmax(-1)))
    print(row, flush=True)
    return row


def exported(name, model, task, simulation=None):
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "model.tflite"
        result = export_litert(model, path)
        floats = sorted({kind for kind, _, _ in result.float_operators})
        return measured(name, path.read_bytes(), task, simulation, float_operators=floats)


def stock(model, task, calibration, int16=False):
    """TensorFlow's converter with the same calibration data."""
    import tensorflow as tf

    converter = tf.lite.TFLiteConverter.from_keras_model(model)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = lambda: ([sample[None]] for sample in calibration)
    sets = tf.lite.OpsSet
    chosen = sets.EXPERIMENTAL_TFLITE_BUILTINS_ACTIVATIONS_INT16_WEIGHTS_INT8 if int16 else sets.TFLITE_BUILTINS_INT8
    converter.target_spec.supported_ops = [chosen, sets.TFLITE_BUILTINS]
    name = f"TensorFlow's converter, {'int16x8' if int16 else 'int8'}"
    try:
        return measured(name, bytes(converter.convert()), task)
    except Exception as error:
        print(f"{name} failed: {str(error)[:200]}", flush=True)
        return {"name": f"{name}: failed", "error": str(error)[:500]}


def litert_quantizer(model, task, calibration, python):
    """LiteRT Quantizer with the same calibration data, in the environment of another interpreter."""
    name = "LiteRT Quantizer, int8"
    with tempfile.TemporaryDirectory() as folder:
        try:
            path = litert_quantizer_file(model, [calibration], pathlib.Path(folder), python)
        except RuntimeError as error:
            print(f"{name} failed: {error}", flush=True)
            return {"name": f"{name}: failed", "error": str(error)}
        return measured(name, path.read_bytes(), task)


def litert_quantizer_file(model, calibration, folder, python):
    """The path of the integer file that it makes of a model of one input."""
    if len(calibration) > 1:
        raise RuntimeError("The peer's script is for models of one input.")
    source = export_litert(model, folder / "float.tflite", sparse_encoding=False).path
    np.save(folder / "samples.npy", calibration[0])
    command = [python, str(QUANTIZER_PEER), str(source), str(folder / "samples.npy"), str(folder / "peer.tflite")]
    process = subprocess.run(command, capture_output=True, text=True)
    if process.returncode:
        raise RuntimeError(process.stderr[-500:])
    return folder / "peer.tflite"


def ptq(task, arguments):
    """Post-training quantization with several schemes and estimators."""
    generator = np.random.default_rng(0)
    chosen = generator.permutation(len(task.train[0]))[: 100 if arguments.quick else CALIBRATION]
    calibration = task.train[0][chosen]
    rows = [exported("float", task.model, task)]
    variants = {"int8": (INT8, None), "int16x8": (INT16X8, None)}
    if arguments.all:
        variants |= {
            "int8, percentile 99.99": (INT8, Percentile(99.99)),
            "int8, least squares": (INT8, LeastSquares()),
            "int8, mean of extremes": (INT8, MeanMinMax()),
            "int8, min-max": (INT8, MinMax()),
            "int4 weights": (INT4_WEIGHTS, None),
        }
    for name, (scheme, estimator) in variants.items():
        started = time.perf_counter()
        quantized = quantize_post_training(task.model, scheme, calibration, estimator=estimator)
        seconds = time.perf_counter() - started
        row = exported(name, quantized, task, quantized)
        rows.append({**row, "quantize_seconds": round(seconds, 1)})
    if keras.backend.backend() == "tensorflow":
        rows += [stock(task.model, task, calibration), stock(task.model, task, calibration, int16=True)]
    if arguments.litert_quantizer:
        rows.append(litert_quantizer(task.model, task, calibration, arguments.litert_quantizer))
    return rows


def by_loss(task, arguments):
    """Post-training quantization with labels: half of the test samples to calibrate on, the other to measure on."""
    x, y = task.test
    if task.prepared is not None:  # no speaker in both halves
        clips = loaders().keyword_spotting()
        halves = speaker_folds(clips["speaker"][: len(x)], clips["x"][: len(x)], 2)
    else:
        halves = np.random.default_rng(0).permutation(len(x)) % 2
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=task.from_logits)
    rows = []
    for half in range(2):
        (seen_x, seen_y), unseen = ((x[chosen], y[chosen]) for chosen in (halves != half, halves == half))
        part = dataclasses.replace(task, test=unseen)
        data = seen_x[:MOST_LABELLED], seen_y[:MOST_LABELLED]
        variants = {"int8": {}, "int8, by loss": {"loss": loss}, "int8, mean of extremes": {"estimator": MeanMinMax()}}
        found = [exported("float", task.model, part)]
        for name, options in variants.items():
            calibration = data if "loss" in options else data[0]
            quantized = quantize_post_training(task.model, INT8, calibration, **options)
            found.append(exported(name, quantized, part, quantized))
        rows += [{**row, "clips": len(unseen[1])} for row in found]
    return [mean_of_parts(name, rows) for name in dict.fromkeys(row["name"] for row in rows)] + [
        {**row, "name": f"{row['name']} (a half)"} for row in rows
    ]


def qat(task, arguments):
    """Quantization-aware training from a calibrated start."""
    if task.prepared is not None:
        return keyword_qat(task, arguments)
    x, y = (part[:640] for part in task.train) if arguments.quick else task.train
    recipe = adjusted(LAMB, arguments)
    rows = [exported("float", task.model, task)]
    weighted = [layer for layer in task.model.layers if getattr(layer, "kernel", None) is not None]
    edges = dict.fromkeys((weighted[0], weighted[-1]), INT8) if arguments.edges_in_8_bits else {}
    for name in arguments.schemes or (ALL_SCHEMES if arguments.all else SCHEMES):
        options = {"batch_norm_share": arguments.batch_norm_share, "overrides": edges}
        label = f"{name}, first and last layer in 8 bits" if edges else name
        rows += trained(label, ALL_SCHEMES[name], task.model, task, (x, y), recipe, arguments.seed, **options)
    return rows


def keyword_qat(task, arguments):
    """The same for keyword spotting, cross-validated over speakers, beside the float model trained for as long."""
    recipe = adjusted(KEYWORDS, arguments)
    second = dataclasses.replace(recipe, optimizer="Lamb", **KEYWORDS_QUANTIZED)
    first = dataclasses.replace(recipe, epochs=max(1, recipe.epochs - second.epochs))
    rows = []
    for number, train, test in speaker_parts(3, arguments.quick):
        (train_x, train_y), (test_x, test_y) = train, test
        train = task.prepared(train_x), train_y
        part = dataclasses.replace(task, test=(task.prepared(test_x), test_y))
        found = [exported("float", task.model, part)]
        equal, _ = fine_tune(task.model, batches(task, train, recipe, number), recipe, number, from_logits=True)
        found.append(exported("float, trained for as long", equal, part))
        tuned, _ = fine_tune(task.model, batches(task, train, recipe, number), first, number, from_logits=True)
        taught = dataclasses.replace(part, model=tuned)  # by the model that is quantized
        for name, scheme in SCHEMES.items():
            options = {"batch_norm_share": arguments.batch_norm_share}
            found += trained(name, scheme, tuned, taught, train, second, number, **options)
        rows += [{**row, "clips": len(test_y)} for row in found]
    return [mean_of_parts(name, rows) for name in dict.fromkeys(row["name"] for row in rows)] + [
        {**row, "name": f"{row['name']} (a part)"} for row in rows
    ]


def mean_of_parts(name, rows):
    floats = next(row["float_operators"] for row in rows if row["name"] == name)
    return {**mean_row(name, rows), "float_operators": floats}


def trained(name, scheme, model, task, train, recipe, seed, batch_norm_share=0.0, overrides=None):
    """Two rows: a model quantized by calibration, and after training by the recipe."""
    keras.utils.set_random_seed(seed)
    chosen = np.random.default_rng(0).permutation(len(train[0]))[:CALIBRATION]
    data = batches(task, train, recipe, seed)
    steps = int(batch_norm_share * steps_of(data, recipe))
    options = {"batch_norm_steps": steps, "overrides": overrides}
    quantized = quantize_model(model, scheme, calibration_data=train[0][chosen], **options)
    start = exported(f"{name}, not trained", quantized, task, quantized)
    seconds = train_by_recipe(quantized, data, recipe, task.from_logits)
    how = f", batch norm trained for {batch_norm_share:.0%}" if batch_norm_share else ""
    row = exported(f"{name}, trained{how}", quantized, task, quantized)
    return [start, {**row, "fit_seconds": round(seconds, 1), "recipe": dataclasses.asdict(recipe)}]


def batches(task, train, recipe, seed):
    """The samples as they are, or changed at random with the float model's probabilities as labels."""
    if task.augmentation is None:
        return train
    options = {"teacher": task.model, "logits": task.from_logits, **task.augmentation}
    return Augmented(*train, seed, recipe, **options)


def adjusted(recipe, arguments):
    names = ("epochs", "learning_rate", "optimizer")
    changes = {name: getattr(arguments, name) for name in names if getattr(arguments, name) is not None}
    return dataclasses.replace(recipe, **changes, **({"epochs": 1} if arguments.quick else {}))


def rows_table(name, rows, task, asked):
    headers = ("model", "accuracy in runtime, %", "same class as simulated, %", ".tflite bytes", "zipped", "in floats")
    table = Table(name, headers, notes=(f"Asked of int8: at most {asked} points below float.",))
    for row in rows:
        if "error" in row:
            table.add(row["name"], "", "", "", "", "")
            continue
        agreement = f"{row['agreement']:.2%}" if "agreement" in row else ""
        floats = " ".join(row.get("float_operators", ()))
        table.add(
            row["name"],
            f"{100 * row['accuracy']:.2f}",
            agreement,
            f"{row['bytes']:,}",
            f"{row['zipped_bytes']:,}",
            "" if row["name"] == "float" else floats,
        )
    return table


EXPERIMENTS = {"ptq": ptq, "qat": qat, "by_loss": by_loss}


def main():
    parser = common_parser(__doc__.splitlines()[0])
    parser.add_argument("experiment", choices=EXPERIMENTS)
    parser.add_argument("--models", nargs="+", choices=TASKS, default=None)
    parser.add_argument("--all", action="store_true", help="ptq: more estimators, and 4 bits; qat: learned scales")
    parser.add_argument("--litert-quantizer", metavar="PYTHON", help="ptq: interpreter that has ai-edge-quantizer")
    parser.add_argument("--epochs", type=int, help="qat")
    parser.add_argument("--learning-rate", type=float, help="qat")
    parser.add_argument("--optimizer", choices=["Adam", "Lamb"], help="qat (default: Lamb, for keyword spotting Adam)")
    parser.add_argument("--schemes", nargs="+", choices=ALL_SCHEMES, help="qat of mnist and resnet8 (default: all)")
    parser.add_argument("--edges-in-8-bits", action="store_true", help="qat: the first and the last layer")
    parser.add_argument(
        "--batch-norm-share", type=float, default=0.0, help="qat: share of the steps with the statistics of batches"
    )
    parser.add_argument("--seed", type=int, default=0, help="qat")
    arguments = parser.parse_args()
    defaults = {"ptq": list(TASKS), "by_loss": list(TASKS), "qat": ["mnist", "resnet8", "ds_cnn_l", "gru_s"]}
    names = arguments.models or defaults[arguments.experiment]
    for name in names:
        print(f"=== {name}", flush=True)
        task = TASKS[name]()
        if arguments.quick:
            task = dataclasses.replace(task, test=cut(task.test, 200))
        rows = EXPERIMENTS[arguments.experiment](task, arguments)
        asked = task.qat_drop if arguments.experiment == "qat" else task.drop
        table = rows_table(f"{name}, {arguments.experiment}", rows, task, asked)
        values = {"environment": environment(), "version": keras_mot.__version__, "rows": rows}
        file = f"quantization_{arguments.experiment}_{name}_{keras.backend.backend()}"
        write_results(arguments, file, values, [table])


if __name__ == "__main__":
    main()
