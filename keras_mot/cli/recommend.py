"""`keras-mot recommend`: which recipe suits a model and a goal, and why."""

import argparse

from keras_mot._tables import wrapped
from keras_mot.cli import _options
from keras_mot.cli._errors import blamed_on_input
from keras_mot.cli._files import existing_file
from keras_mot.cli._models import load_model
from keras_mot.cli._result import Result

_DESCRIPTION = """\
Says which recipe suits a saved model and a goal, and why: where its weights
are, and what of it has integer kernels. Nothing is trained or written."""


def add_parser(commands: argparse._SubParsersAction) -> None:
    """Adds the command to the parser."""
    parser = commands.add_parser(
        "recommend",
        help="say which recipe suits a model and a goal, and why",
        description=_DESCRIPTION,
        epilog="example:\n  keras-mot recommend model.keras --goal speed",
    )
    _options.add_model(parser)
    parser.add_argument(
        "--goal",
        choices=["size", "speed", "micro"],
        default="size",
        help="the smallest file, the shortest time for a sample, or a microcontroller (default: size)",
    )
    parser.add_argument("--no-training", action="store_true", help="there are no data with labels to train with")
    parser.set_defaults(run=run, check=check)


def check(options: argparse.Namespace) -> None:
    """Finds what is wrong with the arguments, before a backend is loaded."""
    existing_file(options.model, "a `.keras` file")


def run(options: argparse.Namespace) -> Result:
    """Runs the command."""
    from keras_mot.recipes import recommend

    model = load_model(options.model)
    with blamed_on_input():
        found = recommend(model, options.goal, training=not options.no_training)
    text = str(found).replace("MODEL.keras", str(options.model))
    return Result("\n".join(map(wrapped, text.splitlines())), found.to_dict())
