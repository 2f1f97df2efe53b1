"""The arrays of a `.npz` file, checked against the model before anything is trained."""

import dataclasses
import os
import zipfile

import numpy as np

from keras_mot.cli._archive import open_arrays
from keras_mot.cli._errors import UsageError
from keras_mot.cli._files import existing_file

_EVALUATION = (("x_test", "y_test"), ("x_val", "y_val"))


@dataclasses.dataclass(frozen=True)
class Data:
    """Arrays to train on, and to evaluate on.

    Attributes:
        x: samples to train on.
        y: their labels.
        evaluation: (samples, labels) to evaluate on.
        evaluation_name: the name of the array of samples that is evaluated on.
    """

    x: np.ndarray
    y: np.ndarray
    evaluation: tuple[np.ndarray, np.ndarray]
    evaluation_name: str


def load_data(path: str | os.PathLike) -> Data:
    """Reads `x_train` and `y_train`, and `x_test` and `y_test` (or `x_val` and `y_val`) where they are."""
    path = existing_file(path, "a `.npz` file with the arrays x_train and y_train")
    if not zipfile.is_zipfile(path):
        raise UsageError(
            f"'{path}' is not a `.npz` file: write one with `numpy.savez(file, x_train=..., y_train=...)`."
        )
    try:
        archive = open_arrays(path)
    except (OSError, ValueError) as error:
        raise UsageError(f"'{path}' cannot be read: {error}.") from error
    with archive:
        found = archive.files
        missing = [name for name in ("x_train", "y_train") if name not in found]
        if missing:
            raise UsageError(f"'{path}' lacks {_names(missing)}; it holds {_names(found) or 'no arrays'}.")
        for x_name, y_name in _EVALUATION:
            if (x_name in found) != (y_name in found):
                have, lack = (x_name, y_name) if x_name in found else (y_name, x_name)
                raise UsageError(f"'{path}' has '{have}' but lacks '{lack}'; it holds {_names(found)}.")
        train = _read_pair(archive, path, "x_train", "y_train")
        for x_name, y_name in _EVALUATION:
            if x_name in found:
                return Data(*train, _read_pair(archive, path, x_name, y_name), x_name)
    return Data(*train, train, "x_train")


def check_against_model(data, model):
    """Checks the samples against the model's input, and returns the model's output for a few of them."""
    inputs = getattr(model, "inputs", None)
    if inputs is not None and len(inputs) != 1:
        raise UsageError(
            f"The model has {len(inputs)} inputs; this command takes models with one. From Python, "
            "`keras_mot.sparsity.prune_low_magnitude` and `keras_mot.compress` take any."
        )
    if inputs is not None:
        expected = tuple(inputs[0].shape[1:])
        for name, x in (("x_train", data.x), (data.evaluation_name, data.evaluation[0])):
            if not _fits(x.shape[1:], expected):
                raise UsageError(
                    f"The samples of '{name}' have shape {x.shape[1:]}; the model takes {expected} (None: any size)."
                )
    try:
        outputs = model.predict_on_batch(first_samples(data.x, model))
    except Exception as error:
        raise UsageError(f"The model cannot be called on 'x_train' of shape {data.x.shape}: {error}") from error
    if not isinstance(outputs, np.ndarray):
        raise UsageError(
            "The model has several outputs; this command takes models with one. From Python, "
            "`keras_mot.sparsity.prune_low_magnitude` and `keras_mot.quantization.quantize_model` take any."
        )
    return outputs


def first_samples(x, model):
    """The first samples of `x`: as many as the model takes at once, or some."""
    inputs = getattr(model, "inputs", None)
    return x[: (inputs[0].shape[0] if inputs else None) or 64]


def _fits(shape, expected):
    return len(shape) == len(expected) and all(b in (None, a) for a, b in zip(shape, expected, strict=True))


def _read_pair(archive, path, x_name, y_name):
    x, y = (_read(archive, path, name) for name in (x_name, y_name))
    if len(x) != len(y):
        raise UsageError(f"'{path}': '{x_name}' holds {len(x)} samples and '{y_name}' {len(y)} labels.")
    return x, y


def _read(archive, path, name):
    try:
        array = archive[name]
    except (OSError, ValueError) as error:
        raise UsageError(f"'{path}': the array '{name}' cannot be read: {error}") from error
    if array.dtype.kind not in "fiub":
        raise UsageError(f"'{path}': the array '{name}' should hold numbers; it is of type {array.dtype}.")
    if array.ndim == 0 or len(array) == 0:
        raise UsageError(f"'{path}': the array '{name}' is empty, of shape {array.shape}.")
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise UsageError(f"'{path}': the array '{name}' holds NaN or infinite values.")
    return array


def _names(names):
    return ", ".join(f"'{name}'" for name in names)
