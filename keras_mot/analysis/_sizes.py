"""Sizes of files and of models, as they are and zipped."""

import io
import os
import pathlib
import tempfile
import zipfile

import h5py
import keras

from keras_mot._messages import describe

_WEIGHTS = "model.weights.h5"


def zipped_bytes(path_or_content: str | os.PathLike | bytes) -> int:
    """Size of a file after compression: what a download or an app store would carry.

    The file is put alone into a zip archive (DEFLATE, level 9), and the size of the archive is returned.

    Args:
        path_or_content: Path of a file, or its content as bytes.

    Returns:
        The number of bytes.

    Raises:
        ValueError: There is no such file.
        TypeError: The argument is neither a path nor bytes.

    Example:

        keras_mot.analysis.zipped_bytes("model.tflite")
    """
    if isinstance(path_or_content, (bytes, bytearray, memoryview)):
        content = bytes(path_or_content)
    elif isinstance(path_or_content, (str, os.PathLike)):
        path = pathlib.Path(path_or_content)
        if not path.is_file():
            raise ValueError(f"Expected the path of a file; received '{path}', which is not a file.")
        content = path.read_bytes()
    else:
        raise TypeError(
            f"Expected a path or bytes; received {describe(path_or_content)} of type {type(path_or_content).__name__}."
        )
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as writer:
        writer.writestr("model", content)
    return len(archive.getvalue())


def saved_content(model: keras.Model) -> bytes:
    """The content of the `.keras` file of a model, without the state of its optimizer.

    A compiled model saves its optimizer, which can be twice the size of its weights and is no part of what
    is deployed.
    """
    with tempfile.TemporaryDirectory(prefix="keras_mot_measure_") as directory:
        path = pathlib.Path(directory) / "model.keras"
        model.save(path)
        return _without_optimizer(path, pathlib.Path(directory))


def _without_optimizer(path, directory):
    with zipfile.ZipFile(path) as archive:
        if _WEIGHTS not in archive.namelist():
            return path.read_bytes()
        archive.extract(_WEIGHTS, directory)
        with h5py.File(directory / _WEIGHTS) as source:
            if "optimizer" not in source:
                return path.read_bytes()
            with h5py.File(directory / "slim.h5", "w") as target:
                for key in source:
                    if key != "optimizer":
                        source.copy(source[key], target)
        slim = io.BytesIO()
        with zipfile.ZipFile(slim, "w") as target:
            for item in archive.infolist():
                content = archive.read(item)
                if item.filename == _WEIGHTS:
                    content = (directory / "slim.h5").read_bytes()
                target.writestr(item, content, item.compress_type)
    return slim.getvalue()
