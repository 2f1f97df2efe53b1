"""Files that commands read and write: checked before any work, written completely or not at all."""

import contextlib
import json
import os
import pathlib
import shutil
import tempfile
from collections.abc import Iterator

from keras_mot import _files
from keras_mot._lock import locked
from keras_mot.cli._errors import UsageError, blamed_on_input

_UNFINISHED = ".keras_mot-unfinished_"


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


def writable_file(path: str | os.PathLike, *suffixes: str) -> pathlib.Path:
    """`path` as a `pathlib.Path`, if a file with one of the suffixes can be written there."""
    with blamed_on_input():
        return _files.writable_file(path, suffixes, exact=bool(suffixes))


@contextlib.contextmanager
def output_folder(
    path: str | os.PathLike | None, names: tuple[str, ...] = (), recipe: str | None = None
) -> Iterator[pathlib.Path]:
    """Yields a temporary folder; what was written to it is moved to `path` if all goes well.

    Args:
        path: of the folder; if it is `None`, nothing is kept.
        names: of files that will be written; a folder that holds one of them is refused.
        recipe: name of the recipe whose earlier runs may be replaced nevertheless.
    """
    if path is None:
        with tempfile.TemporaryDirectory(prefix="keras_mot_") as temporary:
            yield pathlib.Path(temporary)
        return
    path = pathlib.Path(path)
    created = not path.exists()
    finished = False
    try:
        with blamed_on_input():
            _files.writable_folder(path)
            stack = contextlib.ExitStack()
            stack.enter_context(locked(path))
        with stack:
            _check_names(path, names, recipe)
            for left in path.glob(f"{_UNFINISHED}*"):  # by a process that was killed
                shutil.rmtree(left, ignore_errors=True)
            temporary = pathlib.Path(tempfile.mkdtemp(prefix=_UNFINISHED, dir=path))
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


def _check_names(folder, names, recipe):
    there = [name for name in names if (folder / name).exists()]
    if there and not _is_of_recipe(folder, recipe):
        raise UsageError(
            f"The output folder '{folder}' holds '{there[0]}', which would be replaced: name another folder."
        )


def _is_of_recipe(folder, recipe):
    try:
        return json.loads((folder / "report.json").read_text(encoding="utf-8"))["recipe"] == recipe
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return False
