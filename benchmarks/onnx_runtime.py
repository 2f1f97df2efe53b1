"""ONNX files: whether ONNX Runtime computes what the quantized model and LiteRT compute, what it fuses, and how fast.

KERAS_BACKEND=tensorflow python benchmarks/onnx_runtime.py
KERAS_BACKEND=tensorflow python benchmarks/onnx_runtime.py --models ds_cnn_s resnet8 --samples 500
"""

import collections
import pathlib
import statistics
import tempfile

import keras
import numpy as np
from _common import Table, measure_each
from _common import parser as common_parser
from quantization_accuracy import CALIBRATION, TASKS

from keras_mot.export import LiteRTRunner, OnnxRunner, export_litert, export_onnx
from keras_mot.quantization import INT8, quantize_post_training

MODELS = ("ds_cnn_s", "ds_cnn_l", "cnn_s", "gru_s", "resnet8", "mnist", "mobilenet")
_RUNS = 100


def milliseconds(runner, sample):
    runner.set_inputs(sample)
    for _ in range(5):
        runner.invoke()
    return 1000 * statistics.median(runner.timed_invoke() for _ in range(_RUNS))


def fused(path, folder):
    """The operators that are left after ONNX Runtime has fused, counted."""
    import onnx
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath, options.log_severity_level = str(folder / "optimized.onnx"), 4
    onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return collections.Counter(node.op_type for node in onnx.load(folder / "optimized.onnx").graph.node)


def measure(name, samples):
    task = TASKS[name]()
    picked = np.random.default_rng(1).permutation(len(task.test[0]))[:samples]
    x, y = (part[picked] for part in task.test)
    chosen = np.random.default_rng(0).permutation(len(task.train[0]))[:CALIBRATION]
    quantized = quantize_post_training(task.model, INT8, task.train[0][chosen], placement="integer")
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        result = export_onnx(quantized, folder / f"{name}.onnx")
        other = export_litert(quantized, folder / f"{name}.tflite", verify=False)
        ours, lite = OnnxRunner(result.path), LiteRTRunner(other.path)
        (received,), (fast,) = ours.run(x).values(), lite.run(x).values()
        kinds = fused(result.path, folder)
        times = milliseconds(ours, x[:1]), milliseconds(lite, x[:1])
        sizes = result.bytes, other.bytes
    simulated = quantized.predict(x, verbose=0, batch_size=50)
    step = float(np.diff(np.unique(simulated)).min())
    return {
        "name": name,
        "equal_to_model": float(np.mean(np.abs(received - simulated) < step / 2)),
        "equal_to_xnnpack": float(np.mean(np.abs(received - fast) < step / 2)),
        "same_class": float(np.mean(received.argmax(-1) == simulated.argmax(-1))),
        "accuracy": float(np.mean(received.argmax(-1) == y)),
        "litert_accuracy": float(np.mean(fast.argmax(-1) == y)),
        "convolutions_in_integers": kinds["QLinearConv"],
        "convolutions_in_floats": kinds["Conv"] + kinds["FusedConv"] + kinds["NhwcFusedConv"],
        "operators": dict(kinds),
        "bytes": sizes[0],
        "litert_bytes": sizes[1],
        "milliseconds": times[0],
        "litert_milliseconds": times[1],
    }


def main():
    parser = common_parser(__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="+", choices=tuple(TASKS), default=list(MODELS))
    parser.add_argument("--samples", type=int, default=500)
    arguments = parser.parse_args()
    samples = 8 if arguments.quick else arguments.samples
    table = Table(
        f"int8 ONNX files in ONNX Runtime beside the quantized model and LiteRT, {samples} real inputs, one thread",
        (
            *("model", "equal to the model", "equal to XNNPACK", "same class", "accuracy", "LiteRT's"),
            *("fused convolutions", "in floats", "bytes", "LiteRT's", "ms", "LiteRT's ms"),
        ),
        notes=("Same class as the quantized model; asked: 99.5 %, and no convolution in floats.",),
    )
    name = f"onnx_runtime_{keras.backend.backend()}"
    measure_each(arguments, lambda model: measure(model, samples), table, cells, name, samples=samples)


def cells(row):
    return (
        *(f"{row[key]:.2%}" for key in ("equal_to_model", "equal_to_xnnpack", "same_class")),
        *(f"{row[key]:.1%}" for key in ("accuracy", "litert_accuracy")),
        *(row[key] for key in ("convolutions_in_integers", "convolutions_in_floats")),
        *(f"{row[key]:,}" for key in ("bytes", "litert_bytes")),
        *(f"{row[key]:.2f}" for key in ("milliseconds", "litert_milliseconds")),
    )


if __name__ == "__main__":
    main()
