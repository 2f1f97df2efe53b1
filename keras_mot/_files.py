"""Writing files: whether a folder takes any, and complete or not at all."""

import contextlib
import os
import pathlib
import tempfile
import uuid
from collections.abc import Iterator


def obstacle_to_writing(folder: str | os.PathLike) -> str | None:
    """Why no file can be created in `folder`, or None if one can.

    Asked by trying: permission bits do not tell of read-only file systems, and root passes them all.
    """
    try:
        with tempfile.TemporaryFile(dir=folder):
            return None
    except OSError as error:
        return error.strerror or str(error)


@contextlib.contextmanager
def replacing(path: pathlib.Path) -> Iterator[pathlib.Path]:
    """Yields a temporary path beside `path`, with its extension, that takes its place if all goes well."""
    temporary = path.with_name(f".{path.stem}.{uuid.uuid4().hex[:8]}{path.suffix}")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
