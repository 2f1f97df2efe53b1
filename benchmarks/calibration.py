"""What int8 loses on data that it was not calibrated on, by how ranges are chosen, over all models at hand.

KERAS_BACKEND=torch python benchmarks/calibration.py ranges
KERAS_BACKEND=tensorflow python benchmarks/calibration.py files --litert-quantizer PYTHON
"""

import functools
import json
import pathlib
import re
import tempfile
import time

import keras
import numpy as np
from _calibration_models import SPLITS, SUBJECTS
from _common import Table, environment, write_results
from _common import parser as common_parser
from quantization_accuracy import litert_quantizer_file
from wild_models import in_order
from wild_models import stock as converted

from keras_mot.export import export_litert
from keras_mot.quantization import INT8, LeastSquares, MeanMinMax, MinMax, Percentile, quantize_post_training
from keras_mot.quantization.estimators.calibrating import avoid_ties, observe, set_by_place, set_ranges
from keras_mot.quantization.estimators.passes import Passes

COUNTS = (64, 512)
MOST = 850  # test samples of a split
ESTIMATORS = {
    "default": None,
    "MinMax": MinMax(),
    "MeanMinMax": MeanMinMax(),
    "Percentile": Percentile(),
    "LeastSquares": LeastSquares(),
}
BY_CLASS = "default, in the order of classes"
METRICS = ("lost", "others", "loss", "noise")


def calibrated_on(split, number, count, by_class=False):
    """The inputs that calibrate: the same ones in a random order, or sorted by label."""
    (inputs, labels), _ = split
    chosen = np.random.default_rng(number).permutation(len(labels))[:count]
    if by_class:
        chosen = chosen[np.argsort(labels[chosen], kind="stable")]
    return [values[chosen] for values in inputs]


def batches_of(inputs, size=64):
    """List of batches in the structure that the model takes."""
    starts = range(0, len(inputs[0]), size)
    batches = [[values[start : start + size] for values in inputs] for start in starts]
    return batches if len(inputs) > 1 else [batch for (batch,) in batches]


def as_given(inputs):
    return inputs if len(inputs) > 1 else inputs[0]


def judged(subject, labels, expected, received):
    """What integers lose: points of accuracy, of decisions as in floats, of loss; and noise of the outputs in dB."""
    right, same = (float(np.mean(subject.decide(received) == other)) for other in (labels, subject.decide(expected)))
    row = {"lost": 100 * (float(np.mean(subject.decide(expected) == labels)) - right), "others": 100 * (1 - same)}
    if subject.loss is not None:
        row["loss"] = float(np.mean(subject.loss(labels, received) - subject.loss(labels, expected)))
    noise = signal = 0.0
    for wanted, got in zip(expected, received, strict=True):
        noise += float(np.square(wanted - got).sum())
        signal += float(np.square(wanted - wanted.mean(axis=0)).sum())
    return {**row, "noise": 10 * np.log10(max(noise, 1e-30) / signal)}


def ranges(name, arguments):
    """Rows of one model: ranges alone are judged, in the simulation, whose outputs files have."""
    subject = SUBJECTS[name](arguments.most)
    counts = (32,) if arguments.quick else COUNTS
    simulation, rows = None, []
    for number in range(arguments.splits):
        split = subject.splits[number]
        several = isinstance(subject.model, list)
        if simulation is None or several:
            model = subject.model[number] if several else subject.model
            data = as_given(calibrated_on(split, number, 64))
            options = {"estimator": MinMax(), "equalize": False, "correct_biases": False, "progress": False}
            simulation = quantize_post_training(model, INT8, data, **options)
            passes = Passes(simulation)
            states = [(quantizer, quantizer.state()) for quantizer in passes.quantizers]
        inputs, labels = split[1]
        test, outputs = batches_of(inputs), len(simulation.outputs)

        def run(passes=passes, test=test, outputs=outputs, **options):
            arrays = passes.outputs(test, **options)
            return [np.concatenate(arrays[place::outputs]) for place in range(outputs)]

        expected = run(rounding=(), floats=True)
        for count in counts:
            for by_class in (False, True):
                batches = batches_of(calibrated_on(split, number, count, by_class))
                started = time.perf_counter()
                seen = observe(simulation, batches, progress=False, histograms=not by_class)
                seconds = time.perf_counter() - started
                for label, estimator in ({BY_CLASS: None} if by_class else ESTIMATORS).items():
                    if estimator is None:
                        set_by_place(simulation, seen)
                    else:
                        set_ranges(seen, estimator)
                    avoid_ties(simulation, batches[0])
                    row = {"model": name, "split": number, "samples": count, "ranges": label, "tested": len(labels)}
                    rows.append({**row, "seconds": seconds, **judged(subject, labels, expected, run())})
                    for quantizer, state in states:
                        quantizer.restore(state)
                    print(json.dumps(rows[-1], default=float), flush=True)
    return rows


def files(name, arguments):
    """Rows of one model: what the files do, beside those of TensorFlow's converter and of LiteRT Quantizer."""
    subject, rows = SUBJECTS[name](arguments.most), []
    makers = {"default": ours, "TensorFlow's converter": stock}
    if arguments.litert_quantizer:
        makers["LiteRT Quantizer"] = functools.partial(litert_quantizer_file, python=arguments.litert_quantizer)
    for number in range(arguments.splits):
        model = subject.model[number] if isinstance(subject.model, list) else subject.model
        seen = calibrated_on(subject.splits[number], number, COUNTS[-1])
        for label, make in makers.items():
            row = {"model": name, "split": number, "samples": len(seen[0]), "ranges": label}
            rows.append({**row, **of_file(make, model, seen, subject, subject.splits[number][1])})
            print(json.dumps(rows[-1], default=float), flush=True)
    return rows


def of_file(make, model, seen, subject, test):
    """What the file loses that a function makes; why there is none, for a peer that cannot convert or run the model."""
    inputs, labels = test
    with tempfile.TemporaryDirectory() as folder:
        try:
            received, expected = in_order(model, make(model, seen, pathlib.Path(folder)), inputs)
        except Exception as error:
            if make is ours:
                raise
            return {"failed": re.sub(r"/[^\s\"]*/site-packages/", "", str(error)[-300:])}
    return {"tested": len(labels), **judged(subject, labels, expected, received)}


def ours(model, seen, folder):
    quantized = quantize_post_training(model, INT8, as_given(seen), progress=False)
    return export_litert(quantized, folder / "int8.tflite").path


def stock(model, seen, folder):
    (folder / "stock.tflite").write_bytes(converted(model, seen)[0])
    return folder / "stock.tflite"


def means(rows):
    """One row for each model, count and kind of ranges: the means over the splits."""
    found = {}
    for row in rows:
        if "failed" not in row:
            found.setdefault((row["model"], row["samples"] > COUNTS[0], row["ranges"]), []).append(row)
    return {
        key: {metric: float(np.mean([row[metric] for row in group])) for metric in METRICS if metric in group[0]}
        for key, group in found.items()
    }


def tables(rows, kind):
    found = means(rows)
    names = list(dict.fromkeys(row["model"] for row in rows))
    labels = list(dict.fromkeys(row["ranges"] for row in rows))
    result = []
    titles = {
        "lost": "points of accuracy lost",
        "others": "decisions other than in floats, %",
        "loss": "loss above that of floats",
        "noise": "noise of the outputs, dB",
    }
    for metric, title in titles.items():
        many = [key for key in dict.fromkeys(key[1] for key in found)]
        headers = ("model", *(f"{label}, {'512' if more else '64'}" for label in labels for more in many))
        table = Table(f"{kind}: {title}", headers, notes=("Means over three splits; on data not calibrated on.",))
        for name in names:
            cells = [found.get((name, more, label), {}).get(metric) for label in labels for more in many]
            table.add(
                name, *("" if cell is None else f"{cell:.3f}" if metric == "loss" else f"{cell:.2f}" for cell in cells)
            )
        result.append(table)
    return result


def main():
    parser = common_parser(__doc__.splitlines()[0])
    parser.add_argument("kind", choices=("ranges", "files"))
    parser.add_argument("--models", nargs="+", choices=SUBJECTS, default=list(SUBJECTS))
    parser.add_argument("--splits", type=int, choices=range(1, SPLITS + 1), default=SPLITS)
    parser.add_argument("--most", type=int, default=MOST, help="test samples of a split")
    parser.add_argument("--litert-quantizer", help="the Python interpreter of an environment with ai-edge-quantizer")
    parser.add_argument("--add", action="store_true", help="keep the rows of other models that were measured before")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.splits, arguments.most = 1, 100
    rows = []
    for name in arguments.models:
        rows += {"ranges": ranges, "files": files}[arguments.kind](name, arguments)
        keras.backend.clear_session()
    target = f"calibration_{arguments.kind}"
    path = (arguments.output or pathlib.Path(__file__).parent / "results") / f"{target}.json"
    if arguments.add and path.exists():
        rows = [row for row in json.loads(path.read_text())["rows"] if row["model"] not in arguments.models] + rows
    write_results(arguments, target, {"environment": environment(), "rows": rows}, tables(rows, arguments.kind))


if __name__ == "__main__":
    main()
