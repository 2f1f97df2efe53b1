"""`keras-mot export`: writes a saved model as a file for LiteRT, or for ONNX runtimes."""

import argparse
import dataclasses

from keras_mot._formats import DEFAULT, format_of_name, suffixes
from keras_mot.cli import _options
from keras_mot.cli._errors import UsageError, blamed_on_input
from keras_mot.cli._models import load_model
from keras_mot.cli._result import Result

_DESCRIPTION = """\
Writes a saved Keras model as a file for LiteRT, or as ONNX if OUT ends in .onnx,
runs it in the runtime, and compares its outputs with the model's. A quantized
model becomes a file that computes in integers."""

_EPILOG = """\
With `--data` the two are compared on samples of the data, else on random ones.

example:
  keras-mot export model.keras --weights float16 -o model.tflite"""

_SUFFIXES = suffixes()
_SPARSE = {"auto": "auto", "yes": True, "no": False}


def add_parser(commands: argparse._SubParsersAction, common: argparse.ArgumentParser) -> None:
    """Adds the command to the parser."""
    parser = commands.add_parser(
        "export",
        parents=[common],
        help="write a saved model as a .tflite or .onnx file",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    _options.add_model(parser)
    _options.add_output(parser, "file to write, .tflite or .onnx")
    _options.add_data(parser, "arrays to compare on", required=False)
    parser.add_argument(
        "--weights",
        choices=("float32", "float16", "int8"),
        default="float32",
        help="how a float model's weights are stored (default: float32)",
    )
    parser.add_argument(
        "--sparse",
        choices=_SPARSE,
        default="auto",
        help="store only what is not zero: where it is safe and smaller (auto, the default), always, or never",
    )
    parser.add_argument(
        "--batch-size", type=_options.at_least(1), metavar="N", help="batch size of the file (default: open)"
    )
    _options.add_integer_file(parser)
    parser.set_defaults(run=run, check=check)


def check(options: argparse.Namespace) -> None:
    """Finds what is wrong with the arguments, before a backend is loaded."""
    _options.check_inputs(options)
    (path,) = _options.output_paths(options, _SUFFIXES)
    if path.suffix != DEFAULT.suffix:
        types = (f"--{side}-type" for side in ("input", "output") if getattr(options, f"{side}_type") is not None)
        others = ("--weights",) * (options.weights != "float32") + ("--sparse",) * (options.sparse != "auto")
        for name in (*types, *others):
            raise UsageError(f"`{name}` is for `{DEFAULT.suffix}` files: leave it out.")


def run(options: argparse.Namespace) -> Result:
    """Runs the command."""
    (path,) = _options.output_paths(options, _SUFFIXES)
    format = format_of_name(path)
    format.check_written()
    samples, model = _loaded(options)
    arguments = {"batch_size": options.batch_size, "verification_data": samples}
    if format is DEFAULT:
        arguments |= {"weights": options.weights, "sparse_encoding": _SPARSE[options.sparse]}
        arguments |= _options.of_integer_file(options)
    else:
        arguments["strict"] = options.strict
    with blamed_on_input():
        exported = format.functions.export(model, path, **arguments)
    data = {**dataclasses.asdict(exported), "path": str(path)}
    compiled = getattr(exported, "compiled", None)
    if compiled is not None:
        data["compiled"] = compiled.to_dict()
    return Result(str(exported), data)


def _loaded(options):
    """Samples to compare on, or `None`, and the model."""
    from keras_mot.cli._data import check_against_model, first_samples, load_data

    data = None if options.data is None else load_data(options.data)
    model = load_model(options.model)
    if data is None:
        return None, model
    check_against_model(data, model)
    return first_samples(data.evaluation[0], model), model
