"""The parser, and what all commands share: exit codes, errors without tracebacks, where output goes."""

import argparse
import contextlib
import functools
import importlib
import json
import logging
import os
import sys
import warnings
from collections.abc import Sequence

from keras_mot._quiet import quiet
from keras_mot._tables import fitting
from keras_mot._version import __version__
from keras_mot.cli import (
    check,
    cluster,
    completion,
    compress,
    demo,
    doctor,
    export,
    factorize,
    inspect,
    measure,
    pack,
    prune,
    quantize,
    recommend,
    report,
    search,
    sensitivity,
    train_quantized,
)
from keras_mot.cli._errors import EXIT_FAILED, EXIT_INTERRUPTED, EXIT_USAGE, UsageError

_COMMANDS = (
    demo,
    doctor,
    inspect,
    recommend,
    sensitivity,
    factorize,
    prune,
    cluster,
    quantize,
    train_quantized,
    compress,
    search,
    export,
    measure,
    check,
    report,
    pack,
    completion,
)
_DESCRIPTION = "Makes trained Keras 3 models smaller, and measures what was gained."
_EPILOG = "The Keras backend is chosen as always: KERAS_BACKEND=tensorflow, jax or torch."


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line.

    Args:
        arguments: list of strings; those of the process by default.

    Returns:
        The exit code: 0 if all went well, 1 if the work failed or found something bad, 2 if what was given cannot be
        worked with.

    Raises:
        SystemExit: for `--help`, `--version` and arguments that do not parse (with code 2).

    Example:

    ```python
    keras_mot.cli.main(["inspect", "model.keras"])
    ```
    """
    options = make_parser().parse_args(arguments)
    _quieten()
    try:
        with fitting(sys.stdout), _plain_warnings(sys.stderr), _progress_aside(options.quiet):
            if hasattr(options, "check"):
                options.check(options)
            if not getattr(options, "without_library", False):
                _import_library()
            result = options.run(options)
        _print(json.dumps(result.data, indent=2) if options.json else result.text)
    except KeyboardInterrupt:
        return _complain(options, "interrupted; nothing unfinished was left behind", EXIT_INTERRUPTED)
    except UsageError as error:
        return _complain(options, error, EXIT_USAGE)
    except Exception as error:
        return _complain(options, str(error) or type(error).__name__, EXIT_FAILED)
    return result.code


@contextlib.contextmanager
def _progress_aside(quiet):
    """Within the block, what libraries print is progress, and goes to stderr: the result alone goes to stdout."""
    with contextlib.ExitStack() as stack:
        if quiet:
            nowhere = stack.enter_context(open(os.devnull, "w"))
            stack.enter_context(contextlib.redirect_stderr(nowhere))
        stack.enter_context(contextlib.redirect_stdout(sys.stderr))
        yield


@contextlib.contextmanager
def _plain_warnings(stream):
    """Within the block, warnings of this package are lines that say what is wrong, and not where in its code."""
    with warnings.catch_warnings():
        show = warnings.showwarning

        def say(message, category, filename, lineno, file=None, line=None):
            if issubclass(category, UserWarning):
                print(f"warning: {message}", file=stream)
            else:
                show(message, category, filename, lineno, file, line)

        warnings.showwarning = say
        yield


def _print(text):
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="replace")  # tables have lines that not every terminal can show
    try:
        print(text, flush=True)
    except BrokenPipeError:  # as `head` closes the pipe once it has read enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for what is flushed at exit


def _quieten():
    """Keeps the backends' own words off the terminal: an error of theirs arrives as an exception."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # read by native libraries when they are first loaded
    # TensorFlow warns of what it traces again, where every stage has a model of its own; JAX of accelerators unused.
    for name in ("tensorflow", "absl", "jax"):
        logging.getLogger(name).setLevel(logging.ERROR)


def _import_library():
    """Imports what `import keras_mot` does elsewhere: a file may hold layers and transforms of any of these rooms."""
    import keras_mot

    # TensorFlow says what it was built with when it is loaded, whatever its level of messages; and where it is
    # installed, Keras loads it sooner or later on every backend.
    with quiet():
        from keras_mot import _rooms

        with contextlib.suppress(ImportError):
            importlib.import_module("tensorflow")
    for name in _rooms.__all__:
        setattr(keras_mot, name, getattr(_rooms, name))


def _complain(options, message, code):
    if options.debug:
        raise
    print(f"keras-mot {options.command}: error: {message}", file=sys.stderr)
    return code


def make_parser() -> argparse.ArgumentParser:
    """The parser of all commands."""
    parser = argparse.ArgumentParser(prog="keras-mot", description=_DESCRIPTION, epilog=_EPILOG)
    parser.add_argument("--version", action="version", version=f"keras-mot {__version__}")
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--json", action="store_true", help="print the result as JSON")
    common.add_argument("--quiet", action="store_true", help="print no progress: the result, warnings and errors only")
    common.add_argument("--debug", action="store_true", help="show the traceback of an error")
    kind = functools.partial(
        argparse.ArgumentParser, parents=[common], formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True, parser_class=kind)
    for command in _COMMANDS:
        command.add_parser(commands)
    return parser
