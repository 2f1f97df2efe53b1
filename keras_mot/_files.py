"""Files that are written: whether they can be, found before any work, and complete or not at all."""

import contextlib
import errno
import os
import pathlib
import re
import stat
import tempfile
import uuid
from collections.abc import Iterator

from keras_mot._messages import describe

_OTHER_FORMATS = {
    "a Keras model": (".keras", ".h5", ".hdf5"),
    "a LiteRT file": (".tflite", ".lite"),
    "an ONNX model": (".onnx", ".ort"),
    "a TensorFlow graph": (".pb", ".pbtxt"),
    "a checkpoint": (".pt", ".pth", ".ckpt", ".safetensors", ".gguf", ".msgpack", ".pkl", ".pickle", ".joblib"),
    "arrays": (".npy", ".npz", ".mat"),
    "a table": (".csv", ".tsv", ".xlsx", ".parquet", ".arrow", ".feather", ".tfrecord", ".db", ".sqlite"),
    "YAML": (".yaml", ".yml"),
    "JSON": (".json", ".jsonl"),
    "settings": (".toml", ".ini", ".cfg", ".env"),
    "text": (".txt", ".md", ".rst", ".log", ".html", ".htm", ".xml", ".tex"),
    "a program": (".py", ".ipynb", ".sh", ".c", ".cc", ".cpp", ".h", ".hpp", ".js", ".ts", ".java", ".rs", ".go"),
    "an archive": (".zip", ".tar", ".gz", ".tgz", ".bz2", ".xz", ".7z", ".whl"),
    "an image": (".png", ".jpg", ".jpeg", ".gif", ".bmp", ".svg", ".webp", ".tif", ".tiff"),
    "a recording": (".wav", ".mp3", ".flac", ".ogg", ".mp4", ".avi"),
    "a document": (".pdf", ".doc", ".docx"),
}
"""What the suffixes stand for that users' own files have: no writer of another format may take such a name."""
_KINDS = {
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
}
_TEMPORARY, _OWNED = ".keras_mot-", ".keras_mot-run-"
"""How temporary names begin: anywhere, and in folders that belong to one process."""


def writable_file(
    path: str | os.PathLike, suffixes: tuple[str, ...] = (), argument: str = "path", exact: bool = False
) -> pathlib.Path:
    """Checks that a file can be written at `path`, without writing anything.

    Args:
        path: of the file. Its folder must exist.
        suffixes: those of the format, the usual one first. Names that end like files of another format are refused.
        argument: what the caller's argument is called, for messages.
        exact: whether the name must end in one of `suffixes`.

    Returns:
        The path as a `pathlib.Path`; a symbolic link is not resolved.

    Raises:
        TypeError: if `path` is no path.
        ValueError: if no file can be written there, or one of another kind would be lost.
    """
    if not isinstance(path, str | os.PathLike) or isinstance(os.fspath(path), bytes):
        raise TypeError(f"`{argument}` must be the path of the file to write. Received: {describe(path)}.")
    path = pathlib.Path(path)
    status = _status(path)
    _check_kind(path, status, suffixes)
    target = path if not path.is_symlink() else pathlib.Path(os.path.realpath(path))
    if exact and path.suffix not in suffixes:
        raise ValueError(f"The output '{path}' should end in {' or '.join(suffixes)}.")
    for name in (path, target):
        _check_suffix(name, suffixes)
    if not target.parent.is_dir():
        link = "" if target is path else f"'{path}' is a symbolic link to '{target}'. "
        raise ValueError(f"{link}The folder '{target.parent}' of the output does not exist: create it first.")
    if status is not None and not os.access(target, os.W_OK):
        raise ValueError(f"'{path}' is write-protected: name another file, or change its permissions.")
    _check_folder_takes_files(target.parent)
    return path


def writable_folder(path: str | os.PathLike, parents: bool = False) -> pathlib.Path:
    """Makes a folder, if it is not there, and checks that it takes files.

    Args:
        path: of the folder; a symbolic link to a folder will do.
        parents: whether to make the folders above it too.

    Returns:
        The path as a `pathlib.Path`.

    Raises:
        TypeError: if `path` is no path.
        ValueError: if there is no such folder that takes files.
    """
    if not isinstance(path, str | os.PathLike) or isinstance(os.fspath(path), bytes):
        raise TypeError(f"The output folder must be given as a path. Received: {describe(path)}.")
    path = pathlib.Path(path)
    status = _status(path)
    if status is None and path.is_symlink():
        raise ValueError(
            f"The output '{path}' is a symbolic link to '{os.path.realpath(path)}', which does not exist: create that "
            "folder first."
        )
    if status is not None and not stat.S_ISDIR(status.st_mode):
        kind = _KINDS.get(stat.S_IFMT(status.st_mode), "a file")
        raise ValueError(f"The output '{path}' is {kind}; expected a folder.")
    if not parents and not path.parent.is_dir():
        raise ValueError(f"The folder '{path.parent}' of the output does not exist: create it first.")
    try:
        path.mkdir(parents=parents, exist_ok=True)
    except OSError as error:
        raise ValueError(f"The output folder '{path}' cannot be made: {error.strerror or error}.") from error
    _check_folder_takes_files(path)
    return path


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
def replacing(path: str | os.PathLike, owned: bool = False) -> Iterator[pathlib.Path]:
    """Yields a temporary path beside `path`, with its extension, that takes its place if all goes well.

    A file that was there hands on its permissions; another hard link to it keeps the old content.

    Args:
        path: of the file to write.
        owned: whether the folder is the caller's alone. Then a symbolic link is replaced itself, where otherwise what
            it leads to is; and what a killed process leaves there `is_left_over`.
    """
    path = pathlib.Path(path)
    if is_temporary(path.name):  # another call of this replaces the file behind it
        yield path
        return
    if path.is_symlink() and not owned:
        path = pathlib.Path(os.path.realpath(path))
    suffix = path.suffix if len(path.suffix) < 32 else ""  # a long name leaves no room for more
    temporary = path.with_name(f"{_OWNED if owned else _TEMPORARY}{uuid.uuid4().hex[:8]}{suffix}")
    try:
        yield temporary
        _flush(temporary)
        _hand_on_permissions(path, temporary)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def naming(path: str | os.PathLike) -> Iterator[None]:
    """Where an `OSError` that names no file, or a temporary one, names the one that was to be written."""
    try:
        yield
    except OSError as error:
        named = error.filename is not None and not is_temporary(os.path.basename(str(error.filename)))
        if named or error.errno is None:
            raise
        raise OSError(error.errno, error.strerror, str(path)) from error


def write_bytes(path: str | os.PathLike, content: bytes, owned: bool = False) -> None:
    """Writes a file as a whole; an `OSError` names it."""
    with naming(path), replacing(path, owned) as temporary:
        temporary.write_bytes(content)


def write_text(path: str | os.PathLike, text: str, owned: bool = False) -> None:
    """Writes a text file as a whole, in UTF-8; an `OSError` names it."""
    write_bytes(path, text.encode(), owned)


def is_temporary(name: str) -> bool:
    """Whether a name is one that `replacing` gives."""
    return re.fullmatch(rf"({re.escape(_TEMPORARY)}|{re.escape(_OWNED)})[0-9a-f]{{8}}(\.\w+)?", name) is not None


def is_left_over(name: str) -> bool:
    """Whether a name is one that `replacing` gives in an owned folder: of a file that a killed process left."""
    return is_temporary(name) and name.startswith(_OWNED)


def _status(path):
    """What `os.stat` says of what `path` leads to, or None if nothing is there."""
    try:
        return os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except ValueError as error:  # a null character
        raise ValueError(f"{str(path)!r} is no path: {error}.") from error
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            raise ValueError(
                f"The name '{path}' is too long for the file system ({len(os.fsencode(path.name))} bytes): "
                "choose a shorter one."
            ) from error
        if error.errno == errno.ELOOP:
            raise ValueError(f"'{path}' is a symbolic link that leads back to itself.") from error
        raise ValueError(f"'{path}' cannot be written to: {error.strerror or error}.") from error


def _check_kind(path, status, suffixes):
    if status is None or stat.S_ISREG(status.st_mode):
        return
    example = f"small{suffixes[0]}" if suffixes else "file"
    if stat.S_ISDIR(status.st_mode):
        raise ValueError(f"The output '{path}' is a folder; name a file, such as '{path / example}'.")
    kind = _KINDS.get(stat.S_IFMT(status.st_mode), "no regular file")
    raise ValueError(f"The output '{path}' is {kind}; name a file, such as '{example}'.")


def _check_suffix(path, suffixes):
    suffix = path.suffix.lower()
    if not suffixes or suffix in suffixes:
        return
    for kind, others in _OTHER_FORMATS.items():
        if suffix in others:
            raise ValueError(
                f"The output '{path}' has the suffix of {kind}; expected {' or '.join(suffixes)}, such as "
                f"'{path.with_suffix(suffixes[0])}'."
            )


def _check_folder_takes_files(folder):
    obstacle = obstacle_to_writing(folder)
    if obstacle is not None:
        raise ValueError(
            f"The output folder '{folder}' cannot be written to: {obstacle}. Choose another, or change its permissions."
        )


def _flush(path):
    """Brings a file to the disk before it replaces another: a disk that is full may tell only now."""
    with open(path, "rb+") as file:
        try:
            os.fsync(file.fileno())
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP):  # some network mounts cannot
                raise


def _hand_on_permissions(path, temporary):
    try:
        old = os.stat(path)
    except OSError:
        return
    with contextlib.suppress(OSError, AttributeError):  # AttributeError: Windows has no owners
        os.chown(temporary, old.st_uid, old.st_gid)
    with contextlib.suppress(OSError):
        os.chmod(temporary, stat.S_IMODE(old.st_mode) & 0o777)
