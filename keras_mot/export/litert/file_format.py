"""What `keras_mot/_formats.py` asks of a format, for LiteRT files."""

from keras_mot.export.litert.exporting import export_litert as export
from keras_mot.export.litert.litert_file import is_litert as recognizes
from keras_mot.export.litert.litert_file import operators as _operators
from keras_mot.export.litert.litert_file import parameters as _parameters
from keras_mot.export.litert.litert_file import parse_model
from keras_mot.export.litert.runner import LiteRTRunner as runner

__all__ = ["export", "operators", "parameters", "recognizes", "runner"]


def parameters(path):
    """The constant tensors of a file, those that are encoded sparsely decoded."""
    return _parameters(parse_model(path))


def operators(path):
    """Dictionary from (operator, type of what it computes) to how often a file has it."""
    return _operators(parse_model(path))
