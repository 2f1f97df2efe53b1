"""`keras-mot measure`: sizes, sparsity, quality and latency of files, side by side."""

import argparse

from keras_mot._formats import KERAS, format_of_name
from keras_mot.cli import _options
from keras_mot.cli._errors import UsageError, blamed_on_input
from keras_mot.cli._files import existing_file
from keras_mot.cli._result import Result

_DESCRIPTION = """\
Measures files side by side: their size, zipped size, share of zeros and, with
data, a metric. What runs in LiteRT is judged and timed in its runtime."""

_EPILOG = """\
The data are the arrays x_test and y_test (or x_val and y_val) of a `.npz` file
that holds x_train and y_train too; without them, those are measured on.

example:
  keras-mot measure model.keras small.tflite --data data.npz"""


def add_parser(commands: argparse._SubParsersAction) -> None:
    """Adds the command to the parser."""
    parser = commands.add_parser(
        "measure",
        help="compare files: sizes, zeros, a metric, latency",
        description=_DESCRIPTION,
        epilog=_EPILOG,
    )
    parser.add_argument("files", metavar="FILE", nargs="+", help=".keras, .tflite and .onnx files")
    _options.add_data(parser, "arrays to evaluate on", required=False)
    parser.add_argument(
        "--metric",
        metavar="NAME",
        action="append",
        help="accuracy, f1, precision, recall, auc, top5, mae, mse, rmse, r2 or a Keras metric (default: accuracy, "
        "where the labels are classes); for one of several outputs OUTPUT=NAME, which may be repeated",
    )
    parser.add_argument(
        "--latency-runs",
        type=_options.at_least(0),
        default=50,
        metavar="N",
        help="timed runs of each exported file; 0 for none (default: 50)",
    )
    parser.add_argument(
        "--threads", type=_options.at_least(1), default=1, metavar="N", help="of the runtime (default: 1)"
    )
    parser.set_defaults(run=run, check=check)


def check(options: argparse.Namespace) -> None:
    """Finds what is wrong with the arguments, before a backend is loaded."""
    for file in options.files:
        path = existing_file(file, "a `.keras`, `.tflite` or `.onnx` file")
        if path.suffix != KERAS and format_of_name(path) is None:
            raise UsageError(f"'{file}' is no `.keras`, `.tflite` or `.onnx` file.")
    if options.data is not None:
        existing_file(options.data, "a `.npz` file of arrays")
    elif options.metric is not None:
        raise UsageError("`--metric` needs `--data FILE.npz`, to compute it on.")


def run(options: argparse.Namespace) -> Result:
    """Runs the command."""
    import keras_mot
    from keras_mot.cli._data import load_data
    from keras_mot.cli._fine_tuned import say_what_it_is_measured_on

    for format in filter(None, map(format_of_name, options.files)):
        format.check_run()
    evaluation = None
    if options.data is not None:
        data = load_data(options.data)
        evaluation = data.evaluation
        say_what_it_is_measured_on(data)
        if options.metric is None:
            _check_classes(data)
    with blamed_on_input():
        report = keras_mot.analysis.measure(
            *options.files,
            data=evaluation,
            metric=_options.by_output("--metric", options.metric) or "accuracy",
            latency_runs=options.latency_runs,
            num_threads=options.threads,
        )
    return Result(str(report), report.to_dict())


def _check_classes(data):
    """Refuses labels that are no classes, whose accuracy would be a number without a meaning."""
    import keras

    for labels in keras.tree.flatten(data.evaluation[1]):
        if (labels != labels.round()).any() or (labels < 0).any():
            raise UsageError("The labels are no classes: name a metric, such as `--metric mean_absolute_error`.")
