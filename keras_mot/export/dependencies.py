"""Imports of optional packages, with an error that says how to install what is missing."""

import importlib

from keras_mot._packages import how_to_install, is_installed

_RUNTIMES = {"micro": ("tflite_micro",)}
"""Packages that run files, beside that of LiteRT, by the runtimes of targets."""


def require(module):
    """Imports an optional module, or raises ImportError with the command that installs it."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        name = module.split(".")[0]
        if is_installed(name):
            raise ImportError(
                f"The package '{name}' is needed for LiteRT files, and its import fails: {error}"
            ) from error
        raise _missing([name]) from error


def check_installed(*modules, purpose="LiteRT files"):
    """Raises ImportError if packages are not installed, without importing them."""
    missing = [module for module in modules if not is_installed(module)]
    if missing:
        raise _missing(missing, purpose)


def check_runtime(target, compiled=True):
    """Raises ImportError if files for a `Target` cannot be proved, or `compiled`, here."""
    check_installed(*_RUNTIMES.get(target.runtime, ()), purpose="proving files for microcontrollers")
    if compiled and target.accelerator is not None:
        check_compiler()


def check_compiler():
    """Raises ImportError if Vela is not installed, which compiles files for Ethos-U NPUs."""
    check_installed("ethosu.vela", purpose="compiling files for Ethos-U NPUs (the extra 'ethos-u')")


def _missing(modules, purpose="LiteRT files"):
    names = ", ".join(f"'{module}'" for module in modules)
    are = "are" if len(modules) > 1 else "is"
    return ImportError(
        f"{names} {are} needed for {purpose}, and {are} not installed. Install with: {how_to_install(*modules)}"
    )
