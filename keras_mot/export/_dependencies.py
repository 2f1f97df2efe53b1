"""Imports of optional packages, with an error that names the extra to install."""

import importlib
import importlib.util

_EXTRA = "litert"


def require(module):
    """Imports an optional module, or raises ImportError with the command that installs it."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise _missing(module) from error


def check_installed(*modules):
    """Raises ImportError if a package is not installed, without importing it."""
    for module in modules:
        try:
            found = importlib.util.find_spec(module) is not None
        except (ImportError, ValueError):
            found = False
        if not found:
            raise _missing(module)


def _missing(module):
    return ImportError(
        f"The package '{module.split('.')[0]}' is needed for LiteRT files and could not be imported. Install "
        f'it with: pip install "keras-mot[{_EXTRA}]"'
    )
