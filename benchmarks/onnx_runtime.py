"""ONNX files: whether ONNX Runtime computes what the quantized model and LiteRT compute, what it fuses, and how fast.

KERAS_BACKEND=tensorflow python benchmarks/onnx_runtime.py
KERAS_BACKEND=tensorflow python benchmarks/onnx_runtime.py --models ds_cnn_s resnet8 --samples 500
KERAS_BACKEND=tensorflow python benchmarks/onnx_runtime.py --zoo

With `--zoo`, models of the zoo with random weights, whose classes are often nearly tied: then the share of outputs that
are equal, or one step apart at most, says more than that of equal classes.
"""

import collections
import pathlib
import statistics
import tempfile

import _zoo
import keras
import numpy as np
from _common import Table, measure_each
from _common import parser as common_parser
from _zoo_compare import predictions, signal_to_noise
from quantization_accuracy import CALIBRATION, TASKS

from keras_mot.export import LiteRTRunner, OnnxRunner, export_litert, export_onnx
from keras_mot.quantization import INT8, quantize_post_training

MODELS = ("ds_cnn_s", "ds_cnn_l", "cnn_s", "gru_s", "resnet8", "mnist", "mobilenet")
ZOO = (
    *("vit", "convmixer", "compact_transformer", "involution", "deeplab", "text_transformer", "fnet", "character_rnn"),
    *("raw_wave_net", "wide_and_deep"),
)
_ZOO_FILES = "vision", "dense_vision", "text", "audio", "series", "tables"
_RUNS = 100
_ZOO_CALIBRATION = 48
_IN_FLOATS = "Conv", "FusedConv", "NhwcFusedConv"


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
        "convolutions_in_floats": sum(kinds[kind] for kind in _IN_FLOATS),
        "operators": dict(kinds),
        "bytes": sizes[0],
        "litert_bytes": sizes[1],
        "milliseconds": times[0],
        "litert_milliseconds": times[1],
    }


def measure_zoo(name, samples):
    architecture = _zoo.ARCHITECTURES[name]
    model, x = architecture.build(), architecture.inputs(samples)
    quantized = quantize_post_training(model, INT8, architecture.inputs(_ZOO_CALIBRATION, seed=4), placement="integer")
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        result = export_onnx(quantized, folder / f"{name}.onnx", verify=False)
        (received,) = keras.tree.flatten(result.run(x))
        (alone,) = (
            OnnxRunner(result.path, input_names=result.input_names, optimized=False).run(keras.tree.flatten(x)).values()
        )
        (fast,) = keras.tree.flatten(export_litert(quantized, folder / f"{name}.tflite", verify=False).run(x))
        kinds = fused(result.path, folder)
    (simulated,), (floats,) = predictions(quantized, x), predictions(model, x)
    step = float(np.diff(np.unique(simulated)).min())
    off = np.abs(received - simulated) / step
    largest = np.sort(simulated, axis=-1)
    decided = largest[..., -1] - largest[..., -2] > 1.5 * step if simulated.shape[-1] > 1 else np.array([])
    same = received.argmax(-1) == simulated.argmax(-1)
    return {
        "name": name,
        "domain": architecture.domain,
        "equal_to_model": float(np.mean(off < 0.5)),
        "within_one_step": float(np.mean(off < 1.5)),
        "largest_difference_in_steps": float(off.max()),
        "unfused_equal_to_model": float(np.mean(np.abs(alone - simulated) < step / 2)),
        "equal_to_xnnpack": float(np.mean(np.abs(received - fast) < step / 2)),
        "xnnpack_equal_to_model": float(np.mean(np.abs(fast - simulated) < step / 2)),
        "same_class": float(np.mean(same)) if decided.size else None,
        "decided": float(np.mean(decided)) if decided.size else None,
        "same_class_where_decided": float(np.mean(same[decided])) if decided.any() else None,
        "signal_to_noise": signal_to_noise([received], [floats], [True]),
        "simulated_signal_to_noise": signal_to_noise([simulated], [floats], [True]),
        "convolutions_in_integers": kinds["QLinearConv"],
        "convolutions_in_floats": sum(kinds[kind] for kind in _IN_FLOATS),
        "products_in_integers": kinds["QGemm"] + kinds["QLinearMatMul"],
        "products_in_floats": kinds["Gemm"] + kinds["FusedGemm"] + kinds["MatMul"] + kinds["FusedMatMul"],
        "in_floats": len(result.float_operators),
        "operators": dict(kinds),
    }


def main():
    parser = common_parser(__doc__.splitlines()[0])
    parser.add_argument("--zoo", action="store_true", help="models of the zoo, with random weights")
    parser.add_argument("--models", nargs="+", help=f"of {', '.join(TASKS)}; with --zoo names of the zoo")
    parser.add_argument("--samples", type=int, default=500)
    arguments = parser.parse_args()
    samples = 8 if arguments.quick else arguments.samples
    if arguments.zoo:
        _zoo.load(*_ZOO_FILES)
    known = _zoo.ARCHITECTURES if arguments.zoo else TASKS
    arguments.models = arguments.models or list(ZOO if arguments.zoo else MODELS)
    if unknown := set(arguments.models) - set(known):
        parser.error(f"no such models: {', '.join(sorted(unknown))}; there are {', '.join(known)}")
    name = f"onnx_runtime_{'zoo_' if arguments.zoo else ''}{keras.backend.backend()}"
    work, table, shown = (
        (measure_zoo, zoo_table(samples), zoo_cells) if arguments.zoo else (measure, real_table(samples), cells)
    )
    measure_each(arguments, lambda model: work(model, samples), table, shown, name, samples=samples)


def real_table(samples):
    return Table(
        f"int8 ONNX files in ONNX Runtime beside the quantized model and LiteRT, {samples} real inputs, one thread",
        (
            *("model", "equal to the model", "equal to XNNPACK", "same class", "accuracy", "LiteRT's"),
            *("fused convolutions", "in floats", "bytes", "LiteRT's", "ms", "LiteRT's ms"),
        ),
        notes=("Same class as the quantized model; asked: 99.5 %, and no convolution in floats.",),
    )


def zoo_table(samples):
    return Table(
        f"int8 ONNX files of models with random weights in ONNX Runtime beside the quantized model, {samples} inputs",
        (
            *("model", "domain", "equal", "within a step", "unfused, equal", "XNNPACK, equal", "same class"),
            *("decided", "same class there", "dB to float", "simulated", "fused convolutions", "in floats"),
            *("fused products", "in floats"),
        ),
        notes=(
            "Equal: outputs that are the same integer as the quantized model's; unfused: without ONNX Runtime's "
            "fusions; XNNPACK: LiteRT's file. Decided: inputs for which the two largest scores of the quantized model "
            "are more than a step apart. dB to float: signal to noise of the outputs beside the float model's, of the "
            "file and of the quantized model. Asked: same class 99.5 %, no convolution in floats.",
        ),
    )


def zoo_cells(row):
    return (
        row["domain"],
        *(
            "" if row[key] is None else f"{row[key]:.2%}"
            for key in (
                *("equal_to_model", "within_one_step", "unfused_equal_to_model", "xnnpack_equal_to_model"),
                *("same_class", "decided", "same_class_where_decided"),
            )
        ),
        *(f"{row[key]:.1f}" for key in ("signal_to_noise", "simulated_signal_to_noise")),
        *(row[key] for key in ("convolutions_in_integers", "convolutions_in_floats")),
        *(row[key] for key in ("products_in_integers", "products_in_floats")),
    )


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
