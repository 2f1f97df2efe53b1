"""`keras-mot sensitivity`: what the outputs of a saved model lose when one layer alone is changed."""

import argparse

from keras_mot._packages import require_matplotlib
from keras_mot.cli import _options
from keras_mot.cli._errors import UsageError, blamed_on_input
from keras_mot.cli._files import writable_file
from keras_mot.cli._result import Result

_DESCRIPTION = """\
Changes one layer at a time of a saved Keras model (bits of weights and of
activations, share of zeros, number of values, low rank), and tells what its
outputs lose, the most harmful first."""

_EPILOG = """\
The data are the arrays x_train and y_train of a `.npz` file; the labels count
with `--loss` alone. Without any of the five techniques, some settings of each
are tried.

example:
  keras-mot sensitivity model.keras --data data.npz --weight-bits 4 --sparsity 0.5,0.8"""

_TECHNIQUES = (
    ("--weight-bits", int, "bits of weights, such as 8,4"),
    ("--activation-bits", int, "bits of activations, 8 or 16"),
    ("--sparsity", float, "shares of zeros, such as 0.5,0.8"),
    ("--values", int, "numbers of values of a kernel, such as 16,4"),
    ("--rank", float, "shares of a kernel's parameters that stay with low rank, such as 0.5,0.25"),
)


def add_parser(commands: argparse._SubParsersAction) -> None:
    """Adds the command to the parser."""
    parser = commands.add_parser(
        "sensitivity",
        help="tell what changing one layer alone costs",
        description=_DESCRIPTION,
        epilog=_EPILOG,
    )
    _options.add_model(parser)
    _options.add_data(parser, "arrays to measure on")
    how = parser.add_argument_group("what is tried")
    for option, kind, text in _TECHNIQUES:
        how.add_argument(option, type=_list_of(kind), default=(), metavar="N[,N...]", help=text)
    how.add_argument("--loss", metavar="NAME", help="a Keras loss, or kl (default: what suits the outputs)")
    how.add_argument(
        "--estimate-below",
        type=float,
        default=0.02,
        metavar="S",
        help="where a layer's own outputs lose less than this share, estimate instead of running (default: 0.02)",
    )
    how.add_argument(
        "--samples", type=_options.positive(int), default=256, metavar="N", help="samples of x_train (default: 256)"
    )
    _options.add_seed(how)
    parser.add_argument("--plot", metavar="FILE", help="draw a picture too, .png or .svg")
    parser.set_defaults(run=run, check=check)


def check(options: argparse.Namespace) -> None:
    """Finds what is wrong with the arguments, before a backend is loaded."""
    _options.check_inputs(options)
    if not 0 <= options.estimate_below <= 1:
        raise UsageError(f"`--estimate-below` should be from 0 to 1; received {options.estimate_below:g}.")
    if options.plot is not None:
        writable_file(options.plot, ".png", ".svg", ".pdf")
        require_matplotlib()


def run(options: argparse.Namespace) -> Result:
    """Runs the command."""
    import keras_mot
    from keras_mot.cli._data import check_names_and_shapes, load_data
    from keras_mot.cli._models import load_model
    from keras_mot.data.arrays import random_part

    data = load_data(options.data)
    model = load_model(options.model)
    check_names_and_shapes(data, model)
    x, y = random_part((data.x, data.y), options.samples, options.seed)
    names = [option[2:].replace("-", "_") for option, *_ in _TECHNIQUES]
    with blamed_on_input():
        found = keras_mot.analysis.sensitivity(
            model,
            x if options.loss in (None, "kl") else (x, y),
            **{name: getattr(options, name) for name in names},
            loss=options.loss,
            estimate_below=options.estimate_below,
            max_samples=options.samples,
        )
    lines = [str(found)]
    if options.plot is not None:
        found.plot(options.plot)
        lines.append(f"Wrote {options.plot}.")
    return Result("\n".join(lines), found.to_dict())


def _list_of(kind):
    """A parser of numbers with commas between them."""

    def parse(text):
        return tuple(kind(part) for part in text.split(","))

    parse.__name__ = "list of numbers"
    return parse
