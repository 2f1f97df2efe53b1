"""`.keras` files from elsewhere: checked before Keras reads them, and loaded with errors that say what is wrong.

No code runs from a file: Keras's safe mode stays on.
"""

import json
import os
import pathlib

import keras

from keras_mot._archives import TooLargeError, check_memory, damage_named, open_archive
from keras_mot._keras import bounded_weights
from keras_mot._messages import shortened
from keras_mot._weights_files import count_values

_CONFIG, _WEIGHTS = "config.json", ("model.weights.h5", "model.weights.npz")
_LARGEST_CONFIG = 2**26
# While a model is built, some of its weights may be made twice, or small ones that are not saved.
_BUILT_TWICE, _UNSAVED = 4, 2**24


def check_model_file(path: str | os.PathLike) -> None:
    """Checks a `.keras` file without building its model.

    Args:
        path: Path of the file.

    Raises:
        ValueError: The file is missing, damaged, not a `.keras` file, or takes far more memory than its size tells.
        OSError: The file cannot be read.
    """
    _read(pathlib.Path(path))


def load_model_file(path: str | os.PathLike, compile: bool = False) -> keras.Model:
    """Loads a `.keras` file after `check_model_file`.

    Args:
        path: Path of the file.
        compile: Whether to compile the model as it was saved.

    Returns:
        The model.

    Raises:
        ValueError: The file cannot be loaded as a model; the message says why.
        OSError: The file cannot be read.
    """
    path = pathlib.Path(path)
    config, values = _read(path)
    try:
        with bounded_weights(_BUILT_TWICE * values + _UNSAVED):
            model = keras.models.load_model(path, compile=compile)
    except Exception as error:  # of Keras, of a layer, of the backend
        reason = shortened(str(error).strip() or type(error).__name__, 1000)
        raise ValueError(f"'{path}' cannot be loaded as a Keras model: {reason}{_hint(config)}") from error
    if not isinstance(model, keras.Model):
        raise ValueError(f"'{path}' holds no Keras model, but an object of the class {type(model).__name__}.")
    return model


def _read(path):
    """The configuration in a file, and the number of values among its weights."""
    if not path.is_file():
        raise ValueError(f"Expected the path of a `.keras` file. Received: '{path}', which is not a file.")
    try:
        with damage_named(), open_archive(path) as archive:
            names = archive.namelist()
            weights = [name for name in _WEIGHTS if name in names]
            if _CONFIG not in names or not weights:
                missing = _WEIGHTS[0] if _CONFIG in names else _CONFIG
                raise ValueError(f"it lacks '{missing}', so that it is no `.keras` file or a damaged one")
            check_memory(sum(member.file_size for member in archive.infolist()))
            damaged = archive.testzip()
            if damaged is not None:
                raise ValueError(f"its member '{damaged}' is damaged: its checksum is wrong")
            config = _config(archive)
            if weights[0] == _WEIGHTS[0]:
                return config, count_values(archive.read(weights[0]))
            return config, archive.getinfo(weights[0]).file_size
    except TooLargeError as error:
        raise ValueError(f"'{path}' cannot be read: {shortened(error)}.") from error
    except ValueError as error:
        raise ValueError(
            f"'{path}' is damaged, or not a `.keras` file: {shortened(error)}. Save or copy it again."
        ) from error


def _config(archive):
    size = archive.getinfo(_CONFIG).file_size
    if size > _LARGEST_CONFIG:
        raise TooLargeError(f"its configuration has {size:,} bytes; the largest that is read has {_LARGEST_CONFIG:,}")
    try:
        config = json.loads(archive.read(_CONFIG))
    except RecursionError as error:
        raise ValueError("its configuration is nested too deeply") from error
    except ValueError as error:
        raise ValueError(f"its configuration is not JSON ({error})") from error
    if not isinstance(config, dict) or not isinstance(config.get("class_name"), str) or "config" not in config:
        raise ValueError("its configuration is not that of a Keras model: it has no `class_name` and `config`")
    return config


def _hint(config):
    """What to do about classes that are not Keras's."""
    own, waiting = set(), [config]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            name, module = value.get("class_name"), value.get("module")
            if isinstance(name, str) and "config" in value and not str(module).startswith(("keras", "builtins")):
                own.add(name)
            waiting.extend(value.values())
        elif isinstance(value, list):
            waiting.extend(value)
    if not own:
        return ""
    return (
        f"\nIt holds classes that are not Keras's: {shortened(', '.join(sorted(own)), 200)}. Load it in Python, where "
        "they are defined, with `keras.models.load_model(..., custom_objects=...)`, and pass the model to "
        "`keras_mot.compress`, for example."
    )
