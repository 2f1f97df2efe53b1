"""What `keras_mot/_formats.py` asks of a format, for LiteRT files."""

from keras_mot.export.litert.exporting import export_litert as export
from keras_mot.export.litert.litert_file import is_litert as recognizes
from keras_mot.export.litert.litert_file import operators as _operators
from keras_mot.export.litert.litert_file import parameters as _parameters
from keras_mot.export.litert.litert_file import parse_content, parse_model, read_content
from keras_mot.export.litert.micro.runner import MicroRunner
from keras_mot.export.litert.micro.weights.reading import DECODE, has_encoded_weights, with_decoded_weights
from keras_mot.export.litert.runner import LiteRTRunner

__all__ = ["export", "operators", "parameters", "recognizes", "runner"]


def parameters(path):
    """The constant tensors of a file, those that are encoded sparsely, or for TFLM, decoded."""
    model = parse_model(path)
    try:
        model, encodings = with_decoded_weights(model)
    except ValueError as error:
        raise ValueError(f"The weights of '{path}' cannot be read. {error}") from error
    return _parameters(model, encodings)


def operators(path):
    """Dictionary from (operator, type of what it computes) to how often a file has it."""
    return _operators(parse_model(path))


def runner(path, num_threads=1, input_names=None):
    """A runner of a file: LiteRT's, or TFLM's where only that can decode the weights."""
    content, label = read_content(path)
    if DECODE in content and has_encoded_weights(parse_content(content, label)):
        return MicroRunner(path, input_names)
    return LiteRTRunner(path, num_threads, input_names)
