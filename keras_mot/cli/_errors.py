"""The two ways in which a command can end badly, and their exit codes."""

import contextlib

EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_INTERRUPTED = 130


class UsageError(Exception):
    """What the user gave cannot be worked with: an argument, a file, an array."""


class FailedError(Exception):
    """The work itself failed, although what the user gave looked right."""


@contextlib.contextmanager
def blamed_on_input(way_out_of_overrides=""):
    """Turns the library's complaints about its arguments into a `UsageError`.

    Where a message points to the argument `overrides`, which the command line lacks, the given text follows.
    """
    try:
        yield
    except (TypeError, ValueError) as error:
        message = str(error)
        raise UsageError(message + (way_out_of_overrides if "`overrides" in message else "")) from error
