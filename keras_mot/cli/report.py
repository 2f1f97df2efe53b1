"""`keras-mot report`: a page about the run in a folder, or about files side by side."""

import argparse
import pathlib

from keras_mot._formats import KERAS, format_of_name
from keras_mot._packages import require_matplotlib
from keras_mot.cli import _options
from keras_mot.cli._errors import UsageError, blamed_on_input
from keras_mot.cli._files import existing_file, writable_file
from keras_mot.cli._models import load_model
from keras_mot.cli._result import Result

_DESCRIPTION = """\
Writes a page about the result of `keras-mot compress`, `demo` or `search`: what
was gained, what it cost, where, and how to repeat it; or about files that were
made from a model. One HTML file that loads nothing, for screen, phone and print."""

_EPILOG = """\
examples:
  keras-mot report runs/size -o report.html --data data.npz
  keras-mot report float.tflite int8.tflite --model int8.keras --data data.npz -o report.html"""


def add_parser(commands: argparse._SubParsersAction) -> None:
    """Adds the command to the parser."""
    parser = commands.add_parser(
        "report",
        help="write a page about a run, or about files side by side",
        description=_DESCRIPTION,
        epilog=_EPILOG,
    )
    parser.add_argument(
        "subjects",
        metavar="DIR|FILE",
        nargs="+",
        help="the folder of a run; or .tflite, .onnx and .keras files: the first is what others are compared with, the "
        "last what the page is about",
    )
    parser.add_argument("-o", "--output", metavar="PAGE.html", required=True, help="page to write")
    parser.add_argument(
        "--model", metavar="MODEL.keras", help="of files: the model that the last one was made from (default: the last)"
    )
    _options.add_data(parser, "arrays: ranges and drift are looked at by them, files are measured on them", False)
    parser.add_argument(
        "--metric", metavar="NAME", action="append", help="of files, as of `keras-mot measure` (default: accuracy)"
    )
    parser.add_argument("--sensitivity", metavar="FILE.json", help="what `keras-mot sensitivity --json` printed")
    parser.add_argument(
        "--latency-runs",
        type=_options.at_least(0),
        default=50,
        metavar="N",
        help="of files: timed runs of each; 0 for none (default: 50)",
    )
    parser.add_argument("--numbers", metavar="FILE.json", help="write the numbers of the page, too")
    parser.set_defaults(run=run, check=check)


def check(options: argparse.Namespace) -> None:
    """Finds what is wrong with the arguments, before a backend is loaded."""
    writable_file(options.output, ".html", ".htm")
    if options.numbers is not None:
        writable_file(options.numbers, ".json")
    require_matplotlib()
    for option, what in (("data", "a `.npz` file of arrays"), ("model", "a `.keras` file"), ("sensitivity", "a file")):
        if getattr(options, option) is not None:
            existing_file(getattr(options, option), what)
    folders = [subject for subject in options.subjects if pathlib.Path(subject).is_dir()]
    if folders:
        if len(options.subjects) > 1:
            raise UsageError("Name one folder of a run, or files; not both.")
        if options.model is not None or options.metric is not None:
            raise UsageError("A run has its model and its metric: `--model` and `--metric` go with files.")
        return
    for file in options.subjects:
        path = existing_file(file, "the folder of a run, or a `.keras`, `.tflite` or `.onnx` file")
        if path.suffix != KERAS and format_of_name(path) is None:
            raise UsageError(f"'{file}' is no folder of a run, and no `.keras`, `.tflite` or `.onnx` file.")
    if options.model is None and pathlib.Path(options.subjects[-1]).suffix != KERAS:
        raise UsageError("Name the model that the last file was made from: `--model MODEL.keras`.")
    if options.metric is not None and options.data is None:
        raise UsageError("`--metric` needs `--data FILE.npz`, to compute it on.")


def run(options: argparse.Namespace) -> Result:
    """Runs the command."""
    from keras_mot.cli._data import load_data

    data = None if options.data is None else load_data(options.data)
    sensitivity = None if options.sensitivity is None else _sensitivity(options.sensitivity)
    if pathlib.Path(options.subjects[0]).is_dir():
        found = _of_run(options, data, sensitivity)
    else:
        found = _of_files(options, data, sensitivity)
    # The pictures were drawn when the page was written: only then is either of the files there.
    if options.numbers is not None:
        found.to_json(options.numbers)
    return Result(f"{found}\nThe page: {options.output}", {**found.to_dict(), "page": options.output})


def _of_run(options, data, sensitivity):
    from keras_mot.recipes.reporting import read_result

    with blamed_on_input():
        result = read_result(options.subjects[0])
        inputs = None if data is None else data.x
        return result.report(options.output, data=inputs, sensitivity=sensitivity)


def _of_files(options, data, sensitivity):
    import keras_mot
    from keras_mot.cli._fine_tuned import say_what_it_is_measured_on

    for format in filter(None, map(format_of_name, options.subjects)):
        format.check_run()
    if data is not None:
        say_what_it_is_measured_on(data)
    model = load_model(options.model or options.subjects[-1])
    names = _names(options.subjects)
    with blamed_on_input():
        return keras_mot.analysis.report(
            model,
            dict(zip(names, options.subjects, strict=True)),
            None if data is None else data.evaluation,
            options.output,
            metric=_options.by_output("--metric", options.metric) or "accuracy",
            sensitivity=sensitivity,
            latency_runs=options.latency_runs,
        )


def _names(paths):
    """The names of files, with their folders where names alone would be the same."""
    names = [pathlib.Path(path).name for path in paths]
    return names if len(set(names)) == len(names) else [str(path) for path in paths]


def _sensitivity(path):
    import json

    from keras_mot.analysis import Sensitivity

    try:
        return Sensitivity.from_dict(json.loads(pathlib.Path(path).read_bytes()))
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise UsageError(f"'{path}' is not what `keras-mot sensitivity --json` prints: {error}") from error
