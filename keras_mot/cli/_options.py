"""Options that several commands have, and what can be checked of them before a backend is loaded."""

import argparse
import pathlib
import re
from collections.abc import Callable, Mapping, Sequence

from keras_mot._formats import DEFAULT, KERAS
from keras_mot.cli._errors import UsageError
from keras_mot.cli._files import existing_file, writable_file

_TYPES = ("float32", "int8", "uint8", "int16")
_UNITS = {"kb": 1e3, "mb": 1e6, "kib": 2**10, "mib": 2**20, "b": 1.0, "": 1.0}


def add_model(parser):
    """Adds the model that a command starts from."""
    parser.add_argument("model", metavar="MODEL.keras", help="the trained model")


def add_data(parser, what, required=True):
    """Adds the file of arrays."""
    parser.add_argument("--data", metavar="FILE.npz", required=required, help=what)


def add_output(parser, what):
    """Adds the file to write."""
    parser.add_argument("-o", "--output", metavar="OUT", required=True, help=what)


PLAIN_OUTPUTS = """\
The data are the arrays x_train and y_train, and optionally x_test and y_test (or
x_val and y_val) to evaluate on. OUT ending in .keras holds a plain Keras model,
which loads without keras-mot; OUT ending in .tflite a file for LiteRT, verified
in the runtime."""
"""What the commands that write plain models or files of them say of their data and outputs."""


def add_plain_outputs(parser):
    """Adds the file that such a command writes, and whether to write a second one."""
    add_output(parser, "file to write, .keras or .tflite")
    parser.add_argument("--tflite", action="store_true", help="write a .tflite file beside a .keras output too")


def plain_outputs(options) -> tuple[pathlib.Path, ...]:
    """Their paths; a `UsageError` if they cannot be written."""
    return output_paths(options, (KERAS, DEFAULT.suffix), DEFAULT.suffix if options.tflite else None)


def add_skip(group):
    """Adds the expressions of layers to leave alone."""
    group.add_argument(
        "--skip",
        action="append",
        default=[],
        metavar="REGEX",
        help="leave layers alone whose path matches; may be repeated",
    )


def add_include_depthwise(group):
    """Adds whether depthwise kernels are taken, too."""
    group.add_argument(
        "--include-depthwise",
        action="store_true",
        help="take depthwise kernels too, which are few and cost the most accuracy (default: leave them alone)",
    )


def add_training(parser, epochs, learning_rate):
    """Adds the options of fine-tuning, with these defaults; returns their group."""
    group = parser.add_argument_group("training")
    group.add_argument("--epochs", type=positive(int), default=epochs, metavar="N", help=f"(default: {epochs})")
    group.add_argument("--batch-size", type=positive(int), default=128, metavar="N", help="(default: 128)")
    group.add_argument(
        "--learning-rate",
        type=positive(float),
        default=learning_rate,
        metavar="R",
        help=f"of Adam (default: {learning_rate:g})",
    )
    group.add_argument("--loss", metavar="NAME", help="a Keras loss (default: that of the saved model, else inferred)")
    add_seed(group)
    return group


def add_seed(group):
    """Adds the seed of the random numbers."""
    group.add_argument("--seed", type=at_least(0), default=0, metavar="N", help="(default: 0)")


def add_integer_file(parser):
    """Adds the options of files that compute in integers."""
    group = parser.add_argument_group("integer files")
    for side in ("input", "output"):
        group.add_argument(
            f"--{side}-type",
            choices=_TYPES,
            help=f"type of the file's {side}s (default: float32; int8 for microcontrollers)",
        )
    group.add_argument("--strict", action="store_true", help="refuse a file that computes partly in floats")


def add_batch_size_of_file(parser):
    """Adds the batch size that a file is for alone."""
    parser.add_argument(
        "--batch-size",
        type=at_least(1),
        metavar="N",
        help="batch size of the file, as NPUs want it (default: open, or 1 where the target demands it)",
    )


def of_integer_file(options) -> dict:
    """These options, as arguments of `export_litert`."""
    return {name: getattr(options, name) for name in ("input_type", "output_type", "strict")}


def add_target(group, default="litert"):
    """Adds the runtime that a quantized model is made for."""
    group.add_argument(
        "--target",
        default=default,
        choices=("litert", "micro", "ethos-u", "ethos-u85"),
        help="what the file is for: LiteRT, LiteRT for Microcontrollers, or an Ethos-U NPU, for which a compiled file "
        "is written, too, beside the other one (default: litert)",
    )


def add_calibration(group):
    """Adds how many samples ranges are calibrated on."""
    group.add_argument(
        "--calibration-samples",
        type=positive(int),
        default=512,
        metavar="N",
        help="samples of x_train that ranges are chosen on (default: 512)",
    )
    group.add_argument(
        "--rounding",
        choices=("nearest", "gptq", "adaround"),
        help="how weights are rounded (default: gptq for weights of less than 8 bits that are not trained)",
    )
    group.add_argument(
        "--placement",
        choices=("fast", "integer"),
        help="leave in floats what is faster so, or nothing that has a kernel (default: fast for 8 bits, but with "
        "--strict)",
    )


def add_blocks(group):
    """Adds how many weights share a scale."""
    group.add_argument(
        "--per-tensor",
        action="store_true",
        help="one scale for all channels of a kernel, as Android's NNAPI wants it of dense layers (default: one for "
        "each channel)",
    )
    group.add_argument(
        "--block-size",
        type=int,
        choices=(32, 64, 128, 256),
        metavar="N",
        help="inputs that share a scale, with dynamic-int4: 32, 64, 128 or 256 (default: all of a channel)",
    )


def check_inputs(options):
    """Refuses a model or a file of data that is not there."""
    path = existing_file(options.model, "a `.keras` file")
    if path.suffix != KERAS:
        raise UsageError(f"'{path}' is not a `.keras` file: save the model with `model.save('model.keras')`.")
    if options.data is not None:
        existing_file(options.data, "a `.npz` file of arrays")


def output_paths(options, suffixes: Sequence[str], beside: str | None = None) -> tuple[pathlib.Path, ...]:
    """The path of the output, and that of a second file beside it; a `UsageError` if they cannot be written.

    Args:
        options: with `model` and `output`.
        suffixes: what the output may end in.
        beside: the ending of a second file to write, or `None`.
    """
    path = pathlib.Path(options.output)
    paths = (path,) if beside in (None, path.suffix) else (path, path.with_suffix(beside))
    if not path.is_dir() and path.suffix not in suffixes:
        raise UsageError(f"The output '{path}' should end in {' or '.join(suffixes)}.")
    model = pathlib.Path(options.model)
    for path in paths:
        if path.exists() and model.exists() and path.samefile(model):
            raise UsageError(f"The output '{path}' is the model itself: name another file.")
    return (writable_file(paths[0], *suffixes), *(writable_file(path, beside) for path in paths[1:]))


def check_expressions(expressions):
    """Refuses what is no regular expression."""
    for expression in expressions:
        try:
            re.compile(expression)
        except re.error as error:
            raise UsageError(f"`--skip {expression}` is not a regular expression: {error}.") from error


def positive(kind: type) -> Callable[[str], float]:
    """A parser of numbers of this kind that are greater than 0, and finite."""

    def parse(text):
        value = kind(text)
        if not 0 < value < float("inf"):
            raise argparse.ArgumentTypeError(f"should be greater than 0; received {text}")
        return value

    parse.__name__ = "number" if kind is float else "integer"
    return parse


def at_least(least: int) -> Callable[[str], int]:
    """A parser of integers of at least `least`."""

    def parse(text):
        value = int(text)
        if value < least:
            raise argparse.ArgumentTypeError(f"should be {least} or more; received {text}")
        return value

    parse.__name__ = "integer"  # what argparse calls it in messages
    return parse


def size(text: str) -> int:
    """Bytes, given with a unit or without."""
    value = with_unit(text, _UNITS, "a size such as 40000, 40kB or 1.5MB")
    if not 1 <= value < 2**60:
        raise argparse.ArgumentTypeError(f"a size above 0; received {text!r}")
    return int(value)


def with_unit(text: str, units: Mapping[str, float], what: str) -> float:
    """A number with one of some units, in the smallest; `what` is said of others."""
    number = text.strip().lower()
    unit = number.lstrip("0123456789._e+-")
    try:
        return float(number.removesuffix(unit)) * units[unit.strip()]
    except (KeyError, ValueError):
        raise argparse.ArgumentTypeError(f"{what}; received {text!r}") from None


def by_output(option, values):
    """The name that was given, or a dictionary from the outputs that it was given for."""
    if values is None or (len(values) == 1 and "=" not in values[0]):
        return values and values[0]
    if not all("=" in value for value in values):
        raise UsageError(f"`{option}` is one NAME, or OUTPUT=NAME for each of several outputs; received {values}.")
    return dict(value.split("=", 1) for value in values)
