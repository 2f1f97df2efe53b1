"""Low rank: parameters, bytes, accuracy and latency of factorized models beside the given ones.

KERAS_BACKEND=tensorflow python benchmarks/low_rank.py mnist mobilenet cnn_s vgg

The MNIST CNN's dense layer (3.2 million weights) is asked to keep its accuracy with a tenth of them. MobileNetV1's
1 x 1 convolutions, a plain CNN on keywords and a VGG (random weights, for its latency alone) are measured.
"""

import pathlib
import tempfile
import time

import keras
import numpy as np
from _common import Table, compile_classifier, environment, load_model, loaders, mnist, write_results
from _common import parser as common_parser

import keras_mot
from keras_mot.export import export_litert
from keras_mot.low_rank import InputChannels, OutputChannels, ParameterShare, Spatial, Tucker, plan_factorization
from keras_mot.quantization import quantize_post_training


def mnist_cells(arguments):
    """The dense layer alone, with and without data and training; the last one in integers, too."""
    train, test = mnist()
    model = load_model("mnist/mnist_cnn.keras")
    dense = max(
        (layer for layer in model.layers if isinstance(layer, keras.layers.Dense)), key=lambda d: d.kernel.shape[0]
    )
    samples = train[0][: 256 if arguments.quick else 1024]
    yield "float", model, test, {}
    for data in (None, samples):
        started = time.perf_counter()
        plan = plan_factorization(model, None, calibration_data=data, overrides={dense: ParameterShare(0.1)})
        small = plan.build()
        name = "dense layer to a tenth" + ("" if data is None else f", {len(data)} samples")
        yield name, small, test, {"plan": plan, "seconds": time.perf_counter() - started}
    yield f"{name}, int8", quantize_post_training(small, calibration_data=samples[:128]), test, {}
    compile_classifier(small, 1e-4)
    started = time.perf_counter()
    small.fit(*(each[: 2000 if arguments.quick else 10000] for each in train), batch_size=128, epochs=1, verbose=0)
    yield f"{name}, trained", small, test, {"plan": plan, "seconds": time.perf_counter() - started}


def mobilenet_cells(arguments):
    """All 1 x 1 convolutions, by shares of their parameters."""
    x, y = loaders().imagenet(160)
    chosen = np.random.default_rng(0).permutation(len(x))
    seen, others = chosen[:250], chosen[250:]  # calibrated on other images than it is measured on
    data, test = x[seen], (x[others], y[others])
    test = tuple(each[:100] for each in test) if arguments.quick else test
    model = load_model("imagenet/mobilenet_v1_0.50_160_float.keras")
    yield "float", model, test, {}
    for share in (0.75,) if arguments.quick else (0.9, 0.75):
        for samples in (None, data):
            yield from cell(model, share, samples, test)


def cnn_s_cells(arguments):
    """A plain CNN on keywords; calibrated on other clips than it is measured on."""
    clips = loaders().keyword_spotting()
    test, data = (clips["x"], clips["y"].astype("int32")), clips["x_cal"]
    model = load_model("kws/cnn_s.keras")
    yield "float", model, test, {}
    for share in (0.5,) if arguments.quick else (0.75, 0.5, 0.25):
        for samples in (None, data):
            yield from cell(model, share, samples, test)


def vgg_cells(arguments):
    """VGG16 without its dense layers and with random weights: latency alone, for each decomposition."""
    keras.utils.set_random_seed(0)
    model = keras.applications.VGG16(include_top=False, weights=None, input_shape=(64, 64, 3), pooling="avg")
    yield "float", model, None, {}
    for decomposition in (OutputChannels(), InputChannels(), Spatial(), Tucker())[: 1 if arguments.quick else 4]:
        yield from cell(model, 0.25, None, None, decomposition)


def cell(model, share, data, test, decomposition=None):
    started = time.perf_counter()
    plan = plan_factorization(model, ParameterShare(share), calibration_data=data, decomposition=decomposition)
    small = plan.build()
    name = f"{share:.0%} of the parameters" + ("" if data is None else f", {len(data)} samples")
    name += "" if decomposition is None else f", {type(decomposition).__name__}"
    yield name, small, test, {"plan": plan, "seconds": time.perf_counter() - started}


CELLS = {"mnist": mnist_cells, "mobilenet": mobilenet_cells, "cnn_s": cnn_s_cells, "vgg": vgg_cells}


def measured(cells, arguments):
    """The rows of one model: accuracy in Keras (what a file computes is the same), bytes and latency of the files."""
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        paths = {}
        for name, model, test, more in cells(arguments):
            path = pathlib.Path(folder) / f"{len(rows)}.tflite"
            export_litert(model, path, sparse_encoding=False, verify=False)
            paths[str(len(rows))] = path
            plan = more.pop("plan", None)
            row = {"name": name, "parameters": model.count_params(), **more}
            if plan is not None:
                row["layers"] = [[each.layer, each.decomposition, list(each.ranks), each.error] for each in plan.rows]
                row["kernel_share"] = plan.parameters_after / plan.parameters_before
            if test is not None:
                predicted = model.predict(test[0], batch_size=100, verbose=0)
                row["accuracy"] = float(np.mean(predicted.argmax(axis=-1) == test[1]))
            rows.append(row)
            print(row["name"], row.get("accuracy"), row["parameters"], flush=True)
        report = keras_mot.analysis.measure(paths, latency_runs=arguments.runs, progress=False)
    for number, row in enumerate(rows):
        file = report[str(number)]
        row |= {"bytes": file.bytes, "zipped_bytes": file.zipped_bytes, "latency_ms": file.latency_ms}
    return rows


def rows_table(name, rows, runs):
    table = Table(
        f"Low rank: {name}",
        ("model", "parameters", "bytes", "latency, ms", "of float", "accuracy, %", "against float", "seconds"),
        notes=(f"Latency: one sample, one thread, medians of {runs} interleaved runs in LiteRT.",),
    )
    first = rows[0]
    for row in rows:
        known = "accuracy" in row
        table.add(
            *(row["name"], f"{row['parameters']:,}", f"{row['bytes']:,}", f"{row['latency_ms']:.3f}"),
            f"{row['latency_ms'] / first['latency_ms']:.2f}",
            f"{row['accuracy']:.2%}"[:-1] if known else "-",
            f"{100 * (row['accuracy'] - first['accuracy']):+.2f}" if known else "-",
            f"{row['seconds']:.1f}" if "seconds" in row else "-",
        )
    return table


def main():
    parser = common_parser(__doc__.split("\n")[0])
    parser.add_argument("models", nargs="*", choices=[*CELLS, []], default=list(CELLS), help="what to measure")
    parser.add_argument("--runs", type=int, default=50, help="timed runs of each file")
    arguments = parser.parse_args()
    for name in arguments.models:
        rows = measured(CELLS[name], arguments)
        values = {"rows": rows, "environment": environment()}
        write_results(arguments, f"low_rank_{name}", values, [rows_table(name, rows, arguments.runs)])


if __name__ == "__main__":
    main()
