"""Files that commands read and write: checked before any work, written completely or not at all."""

import contextlib
import os
import pathlib
import shutil
import tempfile
from collections.abc import Iterator

from keras_mot._files import obstacle_to_writing
from keras_mot.cli._errors import UsageError


def existing_file(path: str | os.PathLike, what: str) -> pathlib.Path:
    """`path` as a `pathlib.Path`, if it is a file that can be read."""
    path = pathlib.Path(path)
    if path.is_dir():
        raise UsageError(f"'{path}' is a folder; expected {what}.")
    if not path.is_file():
        raise UsageError(f"'{path}' does not exist; expected {what}.")
    if not os.access(path, os.R_OK):
        raise UsageError(f"'{path}' cannot be read: check its permissions.")
    return path


def writable_file(path: str | os.PathLike) -> pathlib.Path:
    """`path` as a `pathlib.Path`, if a file can be written there."""
    path = pathlib.Path(path)
    if path.is_dir():
        raise UsageError(f"The output '{path}' is a folder; name a file, such as '{path / 'small.keras'}'.")
    if not path.parent.is_dir():
        raise UsageError(f"The folder '{path.parent}' of the output does not exist: create it first.")
    _check_writable(path.parent)
    return path


def _check_writable(folder):
    obstacle = obstacle_to_writing(folder)
    if obstacle is not None:
        raise UsageError(f"The output folder '{folder}' cannot be written to: {obstacle}.")


@contextlib.contextmanager
def output_folder(path: str | os.PathLike | None) -> Iterator[pathlib.Path]:
    """Yields a temporary folder; what was written to it is moved to `path` if all goes well.

    If `path` is `None`, nothing is kept.
    """
    if path is None:
        with tempfile.TemporaryDirectory(prefix="keras_mot_") as temporary:
            yield pathlib.Path(temporary)
        return
    path = pathlib.Path(path)
    created = not path.exists()
    try:
        path.mkdir(exist_ok=True)
    except FileExistsError:
        raise UsageError(f"The output '{path}' is a file; expected a folder.") from None
    except FileNotFoundError:
        raise UsageError(f"The folder '{path.parent}' of the output does not exist: create it first.") from None
    except OSError as error:
        raise UsageError(f"The output folder '{path}' cannot be created: {error.strerror}.") from error
    finished = False
    try:
        _check_writable(path)
        temporary = pathlib.Path(tempfile.mkdtemp(prefix=".unfinished_", dir=path))
        try:
            yield temporary
            for file in sorted(temporary.iterdir()):
                os.replace(file, path / file.name)
            finished = True
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    finally:
        if created and not finished:
            with contextlib.suppress(OSError):
                path.rmdir()
