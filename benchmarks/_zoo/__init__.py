"""Small models of many architectures, with random weights: what users of Keras write, by our own hand."""

import importlib

from .registry import ARCHITECTURES, Architecture, architecture, settled

MODULES = (
    "vision",
    "dense_vision",
    "text",
    "audio",
    "series",
    "tables",
    "generative",
    "recommender",
    "applications",
    "hub",
)

__all__ = ["ARCHITECTURES", "Architecture", "architecture", "load", "settled"]


def load(*modules):
    """Imports files of architectures, by default all; those whose packages are missing are left out, and named."""
    missing = {}
    for module in modules or MODULES:
        try:
            importlib.import_module(f"{__name__}.{module}")
        except ImportError as error:
            if (error.name or "").startswith("_zoo"):
                raise
            missing[module] = str(error)
    return missing
