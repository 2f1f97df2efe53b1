"""Warnings that name the line of the user's code that led to them."""

import sys
import warnings

_INNER = {"keras_mot", "keras", "tensorflow", "jax", "torch", *sys.stdlib_module_names} - {"__main__"}


def warn(message: str) -> None:
    """Warns at the innermost line that is neither in this package nor in a framework.

    In a thread of its own, or from the command line, there may be none: then at the outermost one.
    """
    frame = sys._getframe(1)
    while frame.f_back is not None and str(frame.f_globals.get("__name__")).partition(".")[0] in _INNER:
        frame = frame.f_back
    names = frame.f_globals
    warnings.warn_explicit(
        message,
        UserWarning,
        frame.f_code.co_filename,
        frame.f_lineno,
        module=names.get("__name__"),
        registry=names.setdefault("__warningregistry__", {}),
    )
