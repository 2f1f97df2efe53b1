"""`keras-mot check`: whether a file maps to an accelerator."""

import argparse

from keras_mot._formats import DEFAULT, KERAS
from keras_mot.cli import _options
from keras_mot.cli._errors import EXIT_FAILED, UsageError, blamed_on_input
from keras_mot.cli._files import existing_file
from keras_mot.cli._result import Result

TARGETS = ("edgetpu", "ethos-u", "ethos-u55", "ethos-u65", "ethos-u85", "micro", "nnapi")

_DESCRIPTION = """\
Checks a .tflite file against what an accelerator takes: types, scales, operators,
shapes and limits. Names the layer, the operator and the reason of what does not
map. For Ethos-U it asks Arm's compiler Vela, where that is installed; for the
others, published rules alone."""

_EPILOG = """\
exit code: 0 if all of the file maps, 1 if something does not.

example:
  keras-mot check small.tflite --target edgetpu"""


def add_parser(commands: argparse._SubParsersAction) -> None:
    """Adds the command to the parser."""
    parser = commands.add_parser(
        "check",
        help="check whether a file maps to an accelerator",
        description=_DESCRIPTION,
        epilog=_EPILOG,
    )
    parser.add_argument("file", metavar="FILE", help="a .tflite file")
    parser.add_argument("--target", required=True, choices=TARGETS, help="what it should map to")
    parser.add_argument(
        "--api-level",
        type=_options.at_least(0),
        metavar="N",
        help="with `--target nnapi`, the API level of Android, 27 to 30 (default: 30)",
    )
    parser.add_argument("--rules-only", action="store_true", help="ask no compiler, even where it is installed")
    parser.set_defaults(run=run, check=check)


def check(options: argparse.Namespace) -> None:
    """Finds what is wrong with the arguments, before a backend is loaded."""
    path = existing_file(options.file, "a `.tflite` file")
    if path.suffix == KERAS:
        raise UsageError(
            f"'{path}' is a saved Keras model; accelerators take `{DEFAULT.suffix}` files: `keras-mot quantize` or "
            "`keras-mot export` makes one."
        )
    if path.suffix != DEFAULT.suffix:
        raise UsageError(f"'{path}' is no `{DEFAULT.suffix}` file.")
    if options.api_level is not None and options.target != "nnapi":
        raise UsageError("`--api-level` is for `--target nnapi`: leave it out.")


def run(options: argparse.Namespace) -> Result:
    """Runs the command."""
    import keras_mot

    with blamed_on_input():
        report = keras_mot.analysis.check(
            options.file, options.target, api_level=options.api_level, compiler=not options.rules_only
        )
    return Result(str(report), report.to_dict(), 0 if report.maps else EXIT_FAILED)
