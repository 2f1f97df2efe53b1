"""`keras-mot completion`: the script that completes commands and options in a shell."""

import argparse

from keras_mot._packages import how_to_install, is_installed
from keras_mot.cli._errors import FailedError
from keras_mot.cli._result import Result

_DESCRIPTION = """\
Prints a script by which the shell completes commands, options and file names.
Needs the package shtab."""

_EPILOG = """\
example:
  keras-mot completion bash > ~/.local/share/bash-completion/completions/keras-mot"""


def add_parser(commands: argparse._SubParsersAction) -> None:
    """Adds the command to the parser."""
    parser = commands.add_parser(
        "completion",
        help="print a script by which the shell completes commands and options",
        description=_DESCRIPTION,
        epilog=_EPILOG,
    )
    parser.add_argument("shell", choices=["bash", "zsh", "tcsh"], help="the shell")
    parser.set_defaults(run=run, without_library=True)


def run(options: argparse.Namespace) -> Result:
    """Runs the command."""
    if not is_installed("shtab"):
        raise FailedError(f"The script is made by shtab, which is missing: {how_to_install('shtab')}.")
    import shtab

    from keras_mot.cli._main import make_parser

    script = shtab.complete(make_parser(), options.shell)
    return Result(script, {"shell": options.shell, "script": script})
