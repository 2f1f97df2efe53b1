"""Latency and size of integer files beside float ones and those of TensorFlow's own converter.

KERAS_BACKEND=tensorflow python benchmarks/quantization_latency.py
"""

import pathlib
import tempfile
import time

import keras
import numpy as np
from _common import Table, environment, write_results
from _common import parser as common_parser
from _encoders import MODELS as ENCODERS
from _encoders import samples_of

import keras_mot
from keras_mot.export import export_litert
from keras_mot.quantization import quantize_post_training

# The asked speed-up of int8 over float, one thread.
TARGETS = {"MobileNet": 2.6, "MobileNetV2": 1.9, "ResNet50": 3.3, "InceptionV3": 3.0, "NASNetMobile": 1.2}
TARGETS |= dict.fromkeys(ENCODERS, 1.3)
SIZE_TARGET = 0.27


def stock_conversion(model, samples):
    """The integer file that TensorFlow's converter makes after training."""
    import tensorflow as tf

    converter = tf.lite.TFLiteConverter.from_keras_model(model)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = lambda: ([sample[None]] for sample in samples)
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    return bytes(converter.convert())


def timed(function, *arguments, **options):
    """The result and the seconds."""
    started = time.perf_counter()
    result = function(*arguments, **options)
    return result, time.perf_counter() - started


def measure(name, arguments):
    keras.utils.set_random_seed(0)
    if name in ENCODERS:
        model = ENCODERS[name]()
        samples = samples_of(model)
    else:
        model = getattr(keras.applications, name)(weights=None)
        samples = np.random.default_rng(0).normal(size=(8, *model.input_shape[1:])).astype("float32")
    with tempfile.TemporaryDirectory() as folder:
        paths = {kind: pathlib.Path(folder) / f"{kind}.tflite" for kind in ("float", "int8", "stock")}
        export_litert(model, paths["float"], sparse_encoding=False, verify=False)
        quantized, quantizing = timed(quantize_post_training, model, calibration_data=samples)
        result, exporting = timed(export_litert, quantized, paths["int8"], verify=False)
        content, converting = timed(stock_conversion, model, samples)
        paths["stock"].write_bytes(content)
        report = keras_mot.analysis.measure(
            paths, latency_runs=arguments.runs, num_threads=arguments.threads, progress=False
        )
    return {
        "name": name,
        **{f"{kind}_ms": report[kind].latency_ms for kind in paths},
        **{f"{kind}_bytes": report[kind].bytes for kind in paths},
        "float_operators": [list(item) for item in result.float_operators],
        "quantize_seconds": quantizing,
        "export_seconds": exporting,
        "stock_seconds": converting,
    }


def rows_table(rows, arguments):
    table = Table(
        f"Latency, one sample, {arguments.threads} thread(s), medians of {arguments.runs} interleaved runs",
        (
            *("model", "float, ms", "int8, ms", "speed-up", "asked", "stock int8, ms", "stock speed-up"),
            *("size, % of float", "float operators", "calibrating, s", "converting, s", "stock converter, s"),
        ),
        notes=(f"Random weights. Size asked: at most {SIZE_TARGET:.0%} of float. Converting asked: 2x the stock's.",),
    )
    for row in rows:
        table.add(
            row["name"],
            f"{row['float_ms']:.2f}",
            f"{row['int8_ms']:.2f}",
            f"{row['float_ms'] / row['int8_ms']:.2f}x",
            f"{TARGETS[row['name']]}x",
            f"{row['stock_ms']:.2f}",
            f"{row['float_ms'] / row['stock_ms']:.2f}x",
            f"{row['int8_bytes'] / row['float_bytes']:.1%}",
            str(len(row["float_operators"])),
            f"{row['quantize_seconds']:.0f}",
            f"{row['export_seconds']:.0f}",
            f"{row['stock_seconds']:.0f}",
        )
    return table


def main():
    parser = common_parser(__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="+", choices=TARGETS, default=list(TARGETS))
    parser.add_argument("--runs", type=int, default=30)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.models, arguments.runs = arguments.models[:1], 3
    rows = []
    for name in arguments.models:
        rows.append(measure(name, arguments))
        values = {"environment": environment(), "rows": rows}
        write_results(arguments, "quantization_latency", values, [rows_table(rows, arguments)])


if __name__ == "__main__":
    main()
