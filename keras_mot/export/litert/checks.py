"""Everything a user can get wrong in an export, found before any work starts."""

import os
import pathlib

import keras
import numpy as np

from keras_mot._arrays import float_value
from keras_mot._files import writable_file
from keras_mot._keras import flatten_layers
from keras_mot._messages import describe
from keras_mot._numbers import is_number, is_whole
from keras_mot.graph.preprocessing import is_lookup
from keras_mot.layers import is_transformed
from keras_mot.layers.activation_quantizer import activation_quantizers, is_quantized

WEIGHTS = ("float32", "float16", "int8")
SUFFIXES = (".tflite", ".lite")


def check_options(weights, sparse_encoding, batch_size, verify, tolerance, compiled=True):
    """Checks the values of the options of an export."""
    if weights not in WEIGHTS:
        raise ValueError(f"`weights` must be one of {list(WEIGHTS)}. Received: {describe(weights)}.")
    if sparse_encoding != "auto" and not isinstance(sparse_encoding, bool):
        raise ValueError(f"`sparse_encoding` must be 'auto', True or False. Received: {describe(sparse_encoding)}.")
    if batch_size is not None and not is_whole(batch_size):
        raise TypeError(f"`batch_size` must be an integer or None. Received: {describe(batch_size)}.")
    if batch_size is not None and batch_size < 1:
        raise ValueError(f"`batch_size` must be 1 or more, or None for any. Received: {batch_size}.")
    for name, value in (("verify", verify), ("compiled", compiled)):
        if not isinstance(value, bool):
            raise TypeError(f"`{name}` must be True or False. Received: {describe(value)}.")
    if tolerance is None:
        return
    if not is_number(tolerance):
        raise TypeError(f"`tolerance` must be a number or None. Received: {describe(tolerance)}.")
    if not tolerance > 0:
        raise ValueError(f"`tolerance` must be greater than 0. Received: {tolerance}.")


def check_micro_options(target, compress_weights, arena_limit):
    """Checks the values of the options that are for microcontrollers alone."""
    if compress_weights != "auto" and compress_weights is not False:
        raise ValueError(f"`compress_weights` must be 'auto' or False. Received: {describe(compress_weights)}.")
    if arena_limit is not None and not is_whole(arena_limit):
        raise TypeError(f"`arena_limit` must be a number of bytes, or None. Received: {describe(arena_limit)}.")
    if arena_limit is not None and arena_limit < 1:
        raise ValueError(f"`arena_limit` must be 1 or more, or None for any. Received: {arena_limit}.")
    for name, value in (("compress_weights", compress_weights or None), ("arena_limit", arena_limit)):
        if value is not None and target.runtime != "micro":
            raise ValueError(
                f"`{name}` is for microcontrollers: quantize the model with `target='micro'`. Received: "
                f"{describe(value)}, the target being '{target.name}'."
            )
    if target.accelerator is not None and compress_weights:
        raise ValueError(
            f"`compress_weights` is for processors; the compiler of target '{target.name}' codes the weights itself. "
            "Leave it out."
        )


def check_path(path: str | os.PathLike) -> pathlib.Path:
    """Checks that a file can be written at `path`, and returns it as a `pathlib.Path`."""
    return writable_file(path, SUFFIXES)


def check_model(model: keras.Model) -> None:
    """Checks that `model` is a built and stripped Keras model with finite weights."""
    if not isinstance(model, keras.Model):
        raise TypeError(f"`model` must be a keras.Model. Received: {type(model).__name__}.")
    check_stripped(model)
    if not model.built:
        raise ValueError(
            f"The model '{model.name}' is not built: its weights do not exist yet. Call it once on a batch "
            f"of data, or start it with a `keras.Input`."
        )
    check_lookups(model)
    for weight in model.weights:
        values = float_value(weight)
        if np.issubdtype(values.dtype, np.floating) and not np.isfinite(values).all():
            count = int(np.size(values) - np.isfinite(values).sum())
            raise ValueError(
                f"The weight '{weight.path}' holds {count} value(s) that are NaN or infinite. Expected: "
                f"finite weights. The training may have diverged; restore an earlier checkpoint."
            )


def check_lookups(model: keras.Model) -> None:
    """Checks that no layer looks texts or numbers up, for which LiteRT has no kernels."""
    for layer in flatten_layers(model):
        if is_lookup(layer):
            raise ValueError(
                f"The layer '{layer.path}' ({type(layer).__name__}) looks up, hashes or counts what it is given, for "
                "which the LiteRT runtime has no kernel. Split the model there, `preprocessing, network = "
                "keras_mot.graph.split_preprocessing(model)`; export `network`, and let the program that runs the file "
                "do the preprocessing."
            )


def check_stripped(model: keras.Model) -> None:
    """Checks that no layer carries weight transforms any more."""
    for layer in flatten_layers(model):
        if is_transformed(layer) and not is_quantized(model):
            raise ValueError(
                f"The layer '{layer.path}' still carries weight transforms. Strip the model first, for "
                f"example with `keras_mot.sparsity.strip_pruning(model)`, and pass what it returns."
            )


def check_ranges(model: keras.Model) -> None:
    """Checks that every activation quantizer of a quantized model knows its range."""
    unknown = [quantizer.name for quantizer in activation_quantizers(model) if not quantizer.has_range]
    if unknown:
        raise ValueError(
            f"{len(unknown)} activation(s) of '{model.name}' have no range yet, the first at '{unknown[0]}'. Give "
            "calibration data when the model is quantized, or train it for a few steps."
        )
