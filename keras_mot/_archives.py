"""Zip archives from elsewhere (`.keras` and `.npz` files): what they declare is checked before it is read."""

import collections
import contextlib
import os
import zipfile
from collections.abc import Iterator

from keras_mot._memory import available_bytes

# Labels that are nearly all zero shrink a few hundredfold when they are zipped, and only equal bytes a thousandfold. A
# member that grows by more than this factor, to more than this size, was made to fill the memory.
_LARGEST_EXPANSION, _ALWAYS_READ = 800, 2**28
_ENCRYPTED = 1  # a bit of the flags of a member


class TooLargeError(ValueError):
    """A file, which need not be damaged, takes more memory than it may."""


def open_archive(path: str | os.PathLike) -> zipfile.ZipFile:
    """Opens a zip archive.

    Raises:
        ValueError: The file is not a zip archive, is truncated, damaged or encrypted, names a member twice, or is
            much smaller than what it says to hold.
        OSError: The file cannot be read.
    """
    with damage_named():
        archive = zipfile.ZipFile(path)
        try:
            _check_members(archive.infolist())
        except BaseException:
            archive.close()
            raise
        return archive


@contextlib.contextmanager
def damage_named() -> Iterator[None]:
    """Makes whatever reading an archive raises in the block a ValueError or an OSError."""
    try:
        yield
    except (OSError, ValueError):
        raise
    except MemoryError as error:
        raise TooLargeError("it does not fit into the memory") from error
    except zipfile.BadZipFile as error:
        raise ValueError(f"it is not a zip archive, or one that is truncated or damaged ({error})") from error
    except Exception as error:  # zlib.error, EOFError, NotImplementedError, struct.error, ...
        raise ValueError(f"it is damaged ({type(error).__name__}: {error})") from error


def _check_members(members):
    counts = collections.Counter(member.filename for member in members)
    twice = [name for name, count in counts.items() if count > 1]
    if twice:
        raise ValueError(f"it holds the member '{twice[0]}' more than once")
    for member in members:
        if member.flag_bits & _ENCRYPTED:
            raise ValueError(f"its member '{member.filename}' is encrypted")
        if member.file_size > max(_ALWAYS_READ, _LARGEST_EXPANSION * member.compress_size):
            raise TooLargeError(
                f"its member '{member.filename}' says to hold {member.file_size:,} bytes in {member.compress_size:,} "
                f"of the file, more than {_LARGEST_EXPANSION} times as many. If it does, write it without compression"
            )


def check_memory(size: int) -> None:
    """Raises a ValueError if `size` bytes cannot be had."""
    available = available_bytes()
    if available is not None and size > available:
        raise TooLargeError(f"it takes {size:,} bytes when it is read, and {available:,} bytes of memory are available")
