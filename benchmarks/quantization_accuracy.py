"""Accuracy of quantized models in the runtime, beside the float models and TensorFlow's own converter.

KERAS_BACKEND=tensorflow python benchmarks/quantization_accuracy.py ptq
KERAS_BACKEND=tensorflow python benchmarks/quantization_accuracy.py qat --models mnist
"""

import dataclasses
import pathlib
import tempfile
import time

import keras
import numpy as np
from _common import (
    Table,
    cifar10,
    compile_classifier,
    data_file,
    environment,
    load_model,
    loaders,
    mnist,
    write_results,
)
from _common import parser as common_parser
from pruning_accuracy import cut

import keras_mot
from keras_mot.analysis import zipped_bytes
from keras_mot.export import LiteRTRunner, export_litert
from keras_mot.quantization import (
    INT4_WEIGHTS,
    INT8,
    INT16X8,
    LeastSquares,
    MinMax,
    Percentile,
    quantize_model,
    quantize_post_training,
)

CALIBRATION = 500


@dataclasses.dataclass(frozen=True)
class Task:
    """A real model with its data.

    Args:
        model: the float model.
        train: (inputs, labels) to calibrate and train on.
        test: (inputs, labels) to measure on.
        drop: the asked largest loss of accuracy of int8, in points.
        from_logits: whether the model returns logits.
    """

    model: keras.Model
    train: tuple
    test: tuple
    drop: float
    from_logits: bool = False


def mnist_task():
    train, test = mnist()
    return Task(load_model("mnist/mnist_cnn.keras"), train, test, 0.05)


def resnet8_task():
    return Task(load_model("cifar10/resnet8_jpegft.keras"), cifar10("train"), cifar10("test"), 0.4)


def keyword_task(name, drop):
    data_file("kws/kws_mfcc.npz")
    clips = loaders().keyword_spotting()
    model = load_model(f"kws/{name}.keras")
    x, calibration = (clips["x"], clips["x_cal"])
    if name == "gru_s":
        x, calibration = (value[:, ::2, :, 0] for value in (x, calibration))
    train, test = (calibration, clips["y_cal"].astype("int32")), (x, clips["y"].astype("int32"))
    return Task(model, train, test, drop, from_logits=True)


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


TASKS = {
    "mnist": mnist_task,
    "ds_cnn_l": lambda: keyword_task("ds_cnn_l", 0.4),
    "ds_cnn_s": lambda: keyword_task("ds_cnn_s", 0.4),
    "cnn_s": lambda: keyword_task("cnn_s", 0.3),
    "gru_s": lambda: keyword_task("gru_s", 0.6),
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
    return rows


def qat(task, arguments):
    """Quantization-aware training for an epoch from a calibrated start."""
    x, y = task.train
    if arguments.quick:
        x, y = x[:640], y[:640]
    rows = [exported("float", task.model, task)]
    for name, scheme in (("int8", INT8), ("int4 weights", INT4_WEIGHTS)):
        keras.utils.set_random_seed(arguments.seed)
        quantized = quantize_model(task.model, scheme, calibration_data=x[:CALIBRATION])
        rows.append(exported(f"{name}, not trained", quantized, task, quantized))
        steps = arguments.epochs * -(-len(x) // 128)
        rate = keras.optimizers.schedules.CosineDecay(arguments.learning_rate, steps)
        compile_classifier(quantized, rate, task.from_logits)
        started = time.perf_counter()
        quantized.fit(x, y, batch_size=128, epochs=arguments.epochs, verbose=2)
        seconds = time.perf_counter() - started
        row = exported(f"{name}, trained", quantized, task, quantized)
        rows.append({**row, "fit_seconds": round(seconds, 1)})
    return rows


def rows_table(name, rows, task):
    headers = ("model", "accuracy in runtime, %", "same class as simulated, %", ".tflite bytes", "zipped", "in floats")
    table = Table(name, headers, notes=(f"Asked of int8 after training: at most {task.drop} points below float.",))
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


EXPERIMENTS = {"ptq": ptq, "qat": qat}


def main():
    parser = common_parser(__doc__.splitlines()[0])
    parser.add_argument("experiment", choices=EXPERIMENTS)
    parser.add_argument("--models", nargs="+", choices=TASKS, default=None)
    parser.add_argument("--all", action="store_true", help="ptq: more estimators, and 4 bits")
    parser.add_argument("--epochs", type=int, default=1, help="qat")
    parser.add_argument("--learning-rate", type=float, default=1e-4, help="qat")
    parser.add_argument("--seed", type=int, default=0, help="qat")
    arguments = parser.parse_args()
    names = arguments.models or (list(TASKS) if arguments.experiment == "ptq" else ["mnist", "resnet8"])
    tables, results = [], {}
    for name in names:
        print(f"=== {name}", flush=True)
        task = TASKS[name]()
        if arguments.quick:
            task = dataclasses.replace(task, test=cut(task.test, 200))
        results[name] = EXPERIMENTS[arguments.experiment](task, arguments)
        tables.append(rows_table(f"{name}, {arguments.experiment}", results[name], task))
    values = {"environment": environment(), "version": keras_mot.__version__, "results": results}
    suffix = "" if arguments.models is None else "_" + "_".join(names)
    write_results(arguments, f"quantization_{arguments.experiment}{suffix}_{keras.backend.backend()}", values, tables)


if __name__ == "__main__":
    main()
