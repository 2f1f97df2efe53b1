"""Which optional packages are there, and how those that are missing are installed."""

import importlib
import importlib.metadata
import importlib.util

_DISTRIBUTIONS = {
    "ai_edge_litert": "ai-edge-litert",
    "ethosu": "ethos-u-vela",
    "sklearn": "scikit-learn",
    "tflite_micro": "tflite-micro",
}
"""Names of the distributions, where they are not those of the modules."""
_MODULES = {"ethos-u-vela": "ethosu.vela", "pyyaml": "yaml", "tensorflow-cpu": "tensorflow"}
"""Names of the modules of further distributions."""
_NOTES = {"tensorflow": " (or tensorflow-cpu)"}


def is_installed(module: str) -> bool:
    """Whether a module could be imported, as far as can be told without doing so.

    A folder of that name without an `__init__.py`, such as one of the user's beside the script, is not a package.
    """
    try:
        spec = importlib.util.find_spec(module)
    except (ImportError, ValueError):
        return False
    return spec is not None and spec.origin is not None


def installed_version(module: str) -> str | None:
    """The version of a module's package, without importing it; `None` if it is not installed."""
    if not is_installed(module):
        return None
    name = _DISTRIBUTIONS.get(module, module)
    for distribution in (name, f"{name}-cpu"):
        try:
            return importlib.metadata.version(distribution)
        except importlib.metadata.PackageNotFoundError:
            continue
    return None


def how_to_install(*modules: str) -> str:
    """The command that installs modules' packages, by the names that are published.

    Args:
        modules: names of modules; of dotted ones, the first part counts.
    """
    modules = [module.split(".")[0] for module in modules]
    names = " ".join(_DISTRIBUTIONS.get(module, module) for module in modules)
    return f"pip install {names}{''.join(_NOTES.get(module, '') for module in modules)}"


def module_of(distribution: str) -> str:
    """The module that a distribution is imported by."""
    modules = {**{name: module for module, name in _DISTRIBUTIONS.items()}, **_MODULES}
    return modules.get(distribution, distribution.replace("-", "_"))


def require_matplotlib() -> None:
    """Raises an ImportError that says what to install, if nothing can be drawn."""
    try:
        importlib.import_module("matplotlib")
    except ImportError as error:
        raise ImportError(
            "Plots and reports are drawn with Matplotlib, which is not installed. Install with: "
            f"{how_to_install('matplotlib')} (it is the extra 'plot')."
        ) from error
