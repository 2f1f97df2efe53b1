"""Decisions and latency of trained models that Python packages ship, in integers, beside the float models and stock.

KERAS_BACKEND=tensorflow python benchmarks/wild_models.py
"""

import dataclasses
import pathlib
import tempfile
import time
from collections.abc import Callable

import keras
import numpy as np
from _common import Table, data_file, environment, load_model, write_results
from _common import parser as common_parser

import keras_mot
from keras_mot.export import LiteRTRunner, export_litert
from keras_mot.quantization import quantize_post_training

INPUTS = ("x", "x2")


@dataclasses.dataclass(frozen=True)
class Wild:
    """A model with inputs to calibrate and to judge on.

    Args:
        calibration: how many of the first samples calibrate; the others judge.
        decide: function from the outputs, in the model's order, to an array of decisions.
        asked: share of the float model's decisions.
        faster: how many times as fast as in floats it is asked to be, or `None`.
        varied: function from an image to further inputs like it, where there are too few samples; or `None`.
    """

    calibration: int
    decide: Callable
    asked: float
    faster: float | None = None
    varied: Callable | None = None


def largest(outputs):
    return outputs[0].argmax(axis=-1)


def mirrored_moved_and_lit(image):
    """An image as it is and mirrored, in five places up to two pixels apart, in three brightnesses: 30 of them."""
    height, width, _ = image.shape
    edged = np.pad(image, ((2, 2), (2, 2), (0, 0)), mode="edge")
    places = [(2, 2), (0, 2), (4, 2), (2, 0), (2, 4)]
    moved = [edged[top : top + height, left : left + width] for top, left in places]
    lit = [np.clip((each + 1) * factor - 1, -1, 1) for each in moved for factor in (1.0, 0.85, 1.15)]
    return np.stack([*lit, *(each[:, ::-1] for each in lit)]).astype("float32")


MODELS = {
    "deepcut_cnn": Wild(500, lambda outputs: outputs[0][:, 0] > 0.5, 0.995),
    "fer_mini_xception": Wild(40, largest, 0.97, varied=mirrored_moved_and_lit),
    "mtcnn_rnet": Wild(200, lambda outputs: outputs[1][:, 1] > 0.7, 0.995, 1.5),
}


def samples_of(name):
    """A list of the inputs, as float32, and the labels or `None`."""
    with np.load(data_file(f"wild/{name}.npz")) as data:
        inputs = [data[key].astype("float32") for key in INPUTS if key in data.files]
        return inputs, data["labels"] if "labels" in data.files else None


def by_name(model, inputs):
    """The inputs by the names that the model gives them."""
    return {tensor.name: values for tensor, values in zip(model.inputs, inputs, strict=True)}


def in_order(model, file, inputs):
    """What a file returns, in the order of the model's outputs, by how near it is to them."""
    expected = keras.tree.flatten(model.predict(inputs if len(inputs) > 1 else inputs[0], verbose=0, batch_size=100))
    found = list(LiteRTRunner(file, num_threads=1).run(matched(model, file, inputs)).values())
    return [min(same_shape(found, each), key=lambda got: np.abs(got - each).mean()) for each in expected], expected


def same_shape(found, expected):
    return [each for each in found if each.shape == expected.shape]


def matched(model, file, inputs):
    """The inputs by the names of the file, which may contain those of the model; the only one as it is."""
    if len(inputs) == 1:
        return inputs[0]
    named = by_name(model, inputs)
    names = [tensor.name for tensor in LiteRTRunner(file).inputs]
    return {key: named[next(name for name in named if name in key)] for key in names}


def stock(model, calibration):
    """The integer file that TensorFlow's converter makes with the same samples, and its seconds."""
    import tensorflow as tf

    def representative_dataset():
        for sample in zip(*calibration, strict=True):
            sample = [values[None] for values in sample]
            yield by_name(model, sample) if len(sample) > 1 else sample

    started = time.perf_counter()
    converter = tf.lite.TFLiteConverter.from_keras_model(model)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = representative_dataset
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8, tf.lite.OpsSet.TFLITE_BUILTINS]
    return bytes(converter.convert()), time.perf_counter() - started


def measure(name, arguments):
    wild = MODELS[name]
    model = load_model(f"wild/{name}.keras")
    inputs, labels = samples_of(name)
    count = 20 if arguments.quick else wild.calibration
    seen, rest = ([values[part] for values in inputs] for part in (slice(count), slice(wild.calibration, None)))
    if arguments.quick:
        rest = [values[:100] for values in rest]
    started = time.perf_counter()
    data = lambda: ([sample[None] for sample in samples] for samples in zip(*seen, strict=True))  # noqa: E731
    quantized = quantize_post_training(model, calibration_data=data)
    calibrating = time.perf_counter() - started
    with tempfile.TemporaryDirectory() as folder:
        paths = {kind: pathlib.Path(folder) / f"{kind}.tflite" for kind in ("float", "int8", "stock")}
        export_litert(model, paths["float"], sparse_encoding=False)
        started = time.perf_counter()
        result = export_litert(quantized, paths["int8"])
        exporting = time.perf_counter() - started
        content, converting = stock(model, seen)
        paths["stock"].write_bytes(content)
        row = {"name": name, "judged": len(rest[0]), "float_operators": [list(each) for each in result.float_operators]}
        for kind, path in paths.items():
            received, expected = in_order(model, path, rest)
            chosen = wild.decide(received)
            row[f"{kind}_same"] = float(np.mean(chosen == wild.decide(expected)))
            if labels is not None:
                row[f"{kind}_right"] = float(np.mean(chosen == labels[wild.calibration :][: len(chosen)]))
        if wild.varied is not None:
            row["varied"] = varied(wild, model, paths, rest[0])
        report = keras_mot.analysis.measure(paths, latency_runs=arguments.runs, num_threads=1, progress=False)
        for kind in paths:
            row[f"{kind}_ms"], row[f"{kind}_bytes"] = report[kind].latency_ms, report[kind].bytes
    seconds = {"calibrating_seconds": calibrating, "exporting_seconds": exporting, "stock_seconds": converting}
    return {**row, **seconds}


def varied(wild, model, paths, images):
    """Shares of equal decisions on inputs like the images; those of one image are no independent samples.

    Returns:
        The numbers of images and of inputs; of both integer files, the share, and by how much it may be off: the
        standard error of the mean over images. The same of our share less stock's.
    """
    inputs = np.concatenate([wild.varied(image) for image in images])
    same = {}
    for kind in ("int8", "stock"):
        received, expected = in_order(model, paths[kind], [inputs])
        same[kind] = (wild.decide(received) == wild.decide(expected)).reshape(len(images), -1).mean(axis=1)
    same["more"] = same["int8"] - same["stock"]
    spread = {kind: (float(each.mean()), float(each.std(ddof=1) / len(each) ** 0.5)) for kind, each in same.items()}
    return {"images": len(images), "inputs": len(inputs), **spread}


def varied_table(rows):
    table = Table(
        "The same on inputs like the images: mirrored, moved by up to two pixels, darker and brighter",
        ("model", "images", "inputs", "same decisions", "stock", "more than stock"),
        notes=("What follows +- is the standard error over images: inputs made of one image are alike.",),
    )
    for row in rows:
        if "varied" in row:
            found = row["varied"]
            shares = (f"{found[kind][0]:.2%} +- {found[kind][1]:.2%}" for kind in ("int8", "stock", "more"))
            table.add(row["name"], found["images"], found["inputs"], *shares)
    return table


def rows_table(rows, arguments):
    table = Table(
        f"Decisions of the float model that integers keep; latency of one sample, {arguments.runs} interleaved runs",
        (
            *("model", "judged on", "same decisions", "asked", "stock", "right: float, int8, stock", "float operators"),
            *("float, ms", "int8, ms", "speed-up", "asked", "stock, ms", "calibrating + exporting, s", "stock, s"),
        ),
        notes=("Calibrated on the first samples, judged on the others. One thread.",),
    )
    for row in rows:
        wild = MODELS[row["name"]]
        right = [row.get(f"{kind}_right") for kind in ("float", "int8", "stock")]
        table.add(
            row["name"],
            row["judged"],
            f"{row['int8_same']:.2%}",
            f"{wild.asked:.1%}",
            f"{row['stock_same']:.2%}",
            ", ".join(f"{each:.2%}" for each in right) if None not in right else "",
            len(row["float_operators"]),
            f"{row['float_ms']:.3f}",
            f"{row['int8_ms']:.3f}",
            f"{row['float_ms'] / row['int8_ms']:.2f}x",
            "" if wild.faster is None else f"{wild.faster}x",
            f"{row['stock_ms']:.3f}",
            f"{row['calibrating_seconds']:.0f} + {row['exporting_seconds']:.0f}",
            f"{row['stock_seconds']:.0f}",
        )
    return table


def main():
    parser = common_parser(__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--runs", type=int, default=300)
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.runs = 5
    rows = []
    for name in arguments.models:
        rows.append(measure(name, arguments))
        print(rows[-1], flush=True)
    values = {"environment": environment(), "rows": rows}
    write_results(arguments, "wild_models", values, [rows_table(rows, arguments), varied_table(rows)])


if __name__ == "__main__":
    main()
