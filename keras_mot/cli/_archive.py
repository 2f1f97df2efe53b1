"""The arrays of `.npz` files: what they declare is checked before it is read, and nothing is unpickled."""

import math
import os
import zipfile

import numpy as np

from keras_mot._archives import check_memory, damage_named, open_archive

_HEADERS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}


class Arrays:
    """The arrays of an open `.npz` file, read one by one: `arrays["x_train"]`.

    Attributes:
        files: their names.
    """

    def __init__(self, archive: zipfile.ZipFile):
        self._archive = archive
        self._members = {name.removesuffix(".npy"): name for name in archive.namelist() if name.endswith(".npy")}
        self.files = list(self._members)

    def __enter__(self) -> "Arrays":
        return self

    def __exit__(self, *error: object) -> None:
        self._archive.close()

    def __getitem__(self, name: str) -> np.ndarray:
        """Reads an array.

        Raises:
            ValueError: it is damaged, of Python objects, or does not fit into the memory.
        """
        info = self._archive.getinfo(self._members[name])
        check_memory(info.file_size)
        with damage_named():
            with self._archive.open(info) as member:
                _check_header(member, info.file_size)
            with self._archive.open(info) as member:
                return np.lib.format.read_array(member, allow_pickle=False)


def open_arrays(path: str | os.PathLike) -> Arrays:
    """Opens a `.npz` file.

    Raises:
        ValueError: it is no zip archive, is damaged or encrypted, names an array twice, or says to hold far more than
            its size tells.
        OSError: it cannot be read.
    """
    return Arrays(open_archive(path))


def _check_header(member, size):
    """Checks that an array is as large as its header says, before numpy makes room for it."""
    try:
        version = np.lib.format.read_magic(member)
        shape, _, dtype = _HEADERS[version](member)
    except (KeyError, ValueError) as error:
        raise ValueError("its header is not one of an array of numbers") from error
    if dtype.hasobject:
        raise ValueError(
            "it holds Python objects. These are pickled, and reading them can run any code: save an array of numbers"
        )
    if any(length < 0 for length in shape):
        raise ValueError(f"its header says that it has the shape {shape}")
    declared, stored = math.prod(shape) * dtype.itemsize, size - member.tell()
    if declared != stored:
        raise ValueError(f"its header says that it has {declared:,} bytes, of shape {shape}; {stored:,} are there")
