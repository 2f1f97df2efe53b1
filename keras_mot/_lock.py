"""A lock on a folder, which the operating system takes back from a process that dies."""

import contextlib
import datetime
import errno
import os
import pathlib
import socket
from collections.abc import Iterator

from keras_mot._warnings import warn

try:
    import fcntl
except ImportError:  # on Windows
    fcntl = None
    import msvcrt

NAME = "run.lock"
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL)
_TRIES = 100
_BYTE = 1 << 30  # what is locked on Windows, where locked bytes cannot be read: far behind those that say who holds it


@contextlib.contextmanager
def locked(folder: pathlib.Path) -> Iterator[None]:
    """Holds a folder for this process; a second one, or a second call in this one, is refused.

    The file `run.lock` in it says who holds it. One that a killed process left holds nothing.

    Raises:
        ValueError: if the folder is held already, or the file cannot be made.
    """
    path = folder / NAME
    try:
        descriptor = _acquired(path)
    except OSError as error:
        raise ValueError(f"The lock '{path}' cannot be made: {error.strerror or error}.") from error
    if descriptor is None:
        raise ValueError(
            f"The folder '{folder}' is in use by another run: {_holder(path)}. Wait until that has ended, or name "
            "another folder."
        )
    try:
        yield
    finally:
        _release(descriptor, path)


def _acquired(path):
    """The descriptor of the locked file, or None if it is held."""
    for left in range(_TRIES, 0, -1):
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o666)
        try:
            if not _lock(descriptor):
                os.close(descriptor)
                return None
            if _is_there(descriptor, path) or left == 1:  # some file systems number one file anew each time
                _sign(descriptor)
                return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)  # who held it took it away in between: there is a new one, or none


def _lock(descriptor):
    try:
        if fcntl is not None:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        else:
            os.lseek(descriptor, _BYTE, os.SEEK_SET)
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
    except OSError as error:
        if error.errno in (errno.EAGAIN, errno.EACCES, errno.EWOULDBLOCK, errno.EDEADLK):
            return False
        if error.errno not in _NO_LOCKS:
            raise
        warn(f"The file system has no locks ({error.strerror}): see to it that no two runs use one folder at once.")
    return True


def _is_there(descriptor, path):
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(path))
    except FileNotFoundError:
        return False


def _sign(descriptor):
    since = datetime.datetime.now().astimezone().isoformat(" ", "seconds")
    with contextlib.suppress(OSError):  # a full disk: the lock holds without a signature
        os.ftruncate(descriptor, 0)
        os.lseek(descriptor, 0, os.SEEK_SET)
        os.write(descriptor, f"process {os.getpid()} on {socket.gethostname()}, since {since}".encode())


def _holder(path):
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            text = file.read(200).strip()
    except OSError:
        text = ""
    return text if text.isprintable() and text else "a process that did not say which"


def _release(descriptor, path):
    if fcntl is not None:
        with contextlib.suppress(OSError):  # taken away while it is held, so that nobody has a lock on a lost file
            os.unlink(path)
        os.close(descriptor)
        return
    os.close(descriptor)
    with contextlib.suppress(OSError):  # Windows removes no open file: another run's stays
        os.unlink(path)
