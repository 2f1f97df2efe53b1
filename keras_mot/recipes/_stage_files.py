"""The files of stages: what is shipped, how it is written, and that there may be none in floats."""

import contextlib
import pathlib
import tempfile
from collections.abc import Iterable, Iterator

import keras

from keras_mot._formats import DEFAULT
from keras_mot.export.dependencies import check_runtime
from keras_mot.export.litert.engines.conversion import UnsupportedOperationError
from keras_mot.layers import transformed_weights
from keras_mot.layers.activation_quantizer import is_quantized
from keras_mot.layers.technique import strip_model
from keras_mot.recipes._stage import Stage
from keras_mot.targets import LITERT, get


class NoFileError(Exception):
    """The runtime has no kernel for something that a stage still computes in floats."""


@contextlib.contextmanager
def told_from_refusals(model: keras.Model, quantizes: bool) -> Iterator[None]:
    """Where an export without a kernel is a `NoFileError`: of models in floats, if another stage quantizes.

    Integers may be possible all the same: a table stands for a function without a kernel.
    """
    try:
        yield
    except UnsupportedOperationError as error:
        if not quantizes or is_quantized(model):
            raise
        raise NoFileError(str(error)) from error


def plain_model(model: keras.Model) -> keras.Model:
    """What a stage ships: a quantized model as it is, others without transforms."""
    if is_quantized(model) or not transformed_weights(model):
        return model
    return strip_model(model, inplace=False)


def export_options(stages: Iterable[Stage]) -> dict:
    """How the file of the last of these stages is written: what an earlier one asked for still holds."""
    options = {}
    for stage in stages:
        options |= stage.export_options()
    return options


def rehearse_export(stage: Stage, model: keras.Model) -> None:
    """Exports what may be refused, if a stage asks for more than any export can give."""
    options = stage.export_options()
    types = {options.get(f"{side}_type") or "float32" for side in ("input", "output")}
    target = options.get("target", LITERT.name)
    check_runtime(get(target))
    if options.get("strict") or types != {"float32"} or target != LITERT.name:
        export_once(model, options)


def export_once(model: keras.Model, options: dict) -> None:
    """Exports a model for what may be refused alone."""
    with tempfile.TemporaryDirectory(prefix="keras_mot_") as directory:
        path = pathlib.Path(directory) / f"rehearsed{DEFAULT.suffix}"
        DEFAULT.functions.export(plain_model(model), path, verify=False, **options)
