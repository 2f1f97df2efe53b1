"""Training data in a file, for trials in other processes."""

import pathlib
from typing import Any

import keras
import numpy as np

from keras_mot._files import replacing


def store_data(path: pathlib.Path, train_data: Any, validation_data: Any) -> None:
    """Writes data that are arrays, in whatever structure, as an `.npz` file.

    Args:
        path: of the file.
        train_data: as of `search`.
        validation_data: as of `search`.

    Raises:
        ValueError: if the data are batches, which only this process can draw.
    """
    arrays = {}
    for name, value in (("train_data", train_data), ("validation_data", validation_data)):
        if value is None:
            continue
        if not isinstance(value, tuple) or len(value) != 2:
            raise ValueError(
                f"`{name}` are batches ({type(value).__name__}), which cannot be handed to other processes: give a "
                "tuple (x, y) of arrays, or run the trials in this process, `executor='local'`."
            )
        for part, structure in zip("xy", value, strict=True):
            for key, leaf in _leaves(structure):
                arrays[f"{name}/{part}{key}"] = np.asarray(leaf)
    with replacing(path, owned=True) as temporary, open(temporary, "wb") as file:
        np.savez(file, **arrays)


def load_data(path: pathlib.Path) -> tuple[Any, Any]:
    """The training data and the validation data, or `None`, that `store_data` wrote."""
    with np.load(path, allow_pickle=False) as file:
        arrays = {name: file[name] for name in file.files}
    found = []
    for name in ("train_data", "validation_data"):
        parts = [_structure(arrays, f"{name}/{part}") for part in "xy"]
        found.append(None if parts[0] is None else tuple(parts))
    return tuple(found)


def _leaves(structure):
    """(key, array) of each part: none, "/0", "/1" for lists, ":NAME" for dictionaries."""
    if isinstance(structure, dict):
        return [(f":{name}", leaf) for name, leaf in structure.items()]
    if isinstance(structure, list | tuple):
        return [(f"/{number}", leaf) for number, leaf in enumerate(structure)]
    return [("", keras.ops.convert_to_numpy(structure))]


def _structure(arrays, start):
    if start in arrays:
        return arrays[start]
    named = {name[len(start) + 1 :]: array for name, array in arrays.items() if name.startswith(f"{start}:")}
    listed = [array for name, array in arrays.items() if name.startswith(f"{start}/")]
    return named or listed or None
