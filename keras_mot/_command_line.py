"""Whether this process is the command line, which answers `--help` before anything heavy is imported."""

import os
import sys

_PROGRAMS = ("keras-mot", "keras-mot.exe", "keras-mot-script.py")


def is_command_line() -> bool:
    """Whether the process was started as `keras-mot ...` or as `python -m keras_mot ...`."""
    arguments = getattr(sys, "argv", None) or [""]  # an interpreter inside another program may have none
    if os.path.basename(arguments[0]) in _PROGRAMS:
        return True
    # While Python looks for the module of `-m`, that stands in its place; what follows the module is there already.
    return arguments[0] == "-m" and sys.orig_argv[-len(arguments)].removeprefix("-m") == "keras_mot"
