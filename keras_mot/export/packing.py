"""Packages of a file for the way to devices: compressed, or as what is different from an older version there.

A package is: the bytes `KMOT` and a version; a length of 4 bytes; a header of that length in JSON, which says what is
packed how, with checksums (SHA-256); the content. It is compressed by Brotli (RFC 7932). A difference has one of two
forms, the smaller: that of bsdiff (Percival, 2003, "Naive differences of executable code"), which is bytes of the older
file, with differences added to them, and bytes between; or `value_differences`, for weights of few different values.
"""

import dataclasses
import hashlib
import json
import os
import pathlib
from typing import Any

import numpy as np

from keras_mot._files import writable_file, write_bytes
from keras_mot._memory import available_bytes
from keras_mot._messages import describe, shortened
from keras_mot.export import value_differences
from keras_mot.export.dependencies import check_installed, require

SUFFIX = ".kmot"
_MAGIC, _VERSION = b"KMOT", 1
_LONGEST_HEADER = 2**16
_CHUNK = 2**16
_QUALITY = 11  # of Brotli, the best
_LARGEST_WALKED = 2**25  # bytes, of which Python walks through a million in a second
_VALUES = "values"
_BSDIFF = "1.3.2"  # earlier ones give the lengths in lists


@dataclasses.dataclass(frozen=True)
class Package:
    """What is packed in a file.

    Attributes:
        path: path of the package.
        bytes: its size.
        name: name of the file that is packed.
        original_bytes: size of that file.
        sha256: its checksum, in hexadecimal digits.
        method: "brotli" for the whole file, "delta" for what is different from an older one.
        base_sha256: the checksum of the older file; `None` without one.
    """

    path: pathlib.Path
    bytes: int
    name: str
    original_bytes: int
    sha256: str
    method: str
    base_sha256: str | None = None

    def __str__(self) -> str:
        share = f"{self.bytes / self.original_bytes:.1%} of " if self.original_bytes else ""
        beside = "" if self.base_sha256 is None else f", needs the file of checksum {self.base_sha256[:12]}..."
        return (
            f"{self.path}: {self.bytes:,} bytes, {share}'{self.name}' ({self.original_bytes:,}), {self.method}{beside}"
        )


def pack(path: str | os.PathLike, output: str | os.PathLike, base: str | os.PathLike | None = None) -> Package:
    """Packs a file, of any kind, for download.

    Args:
        path: of the file.
        output: path of the package to write, `.kmot`.
        base: an older version of the file that devices have: the package then holds what is different, if that is less.

    Returns:
        A `Package`.

    Raises:
        ValueError: a file is not there, or no file can be written at `output`, or that is one of the others.
        ImportError: `brotli`, or `bsdiff4` with `base`, is not installed.

    Example:

        pack("new.tflite", "update.kmot", base="old.tflite")
    """
    check_installed("brotli", *(() if base is None else ("bsdiff4",)), purpose="packages")
    source, output = _existing(path, "path"), writable_file(output, (SUFFIX,), "output", exact=True)
    base = None if base is None else _existing(base, "base")
    for argument, existing in (("path", source), ("base", base)):
        if existing is not None and output.exists() and output.samefile(existing):
            raise ValueError(f"`output` is `{argument}`, '{existing}', which would be lost: name another file.")
    content, older = source.read_bytes(), None if base is None else base.read_bytes()
    name = "".join(letter if letter.isprintable() else "_" for letter in source.name)
    header = {"name": name, "bytes": len(content), "sha256": _digest(content), "method": "brotli"}
    packed = _package(header, [content])
    if older is not None:
        origin = {"method": "delta", "base_bytes": len(older), "base_sha256": _digest(older)}
        found = [packed, _package({**header, **origin}, _difference(older, content))]
        if len(content) <= _LARGEST_WALKED:
            walked = value_differences.differences(older, content)
            found.append(_package({**header, **origin, "form": _VALUES}, [walked]))
        packed = min(found, key=len)
    write_bytes(output, packed)
    return package_of(output)


def unpack(path: str | os.PathLike, output: str | os.PathLike, base: str | os.PathLike | None = None) -> pathlib.Path:
    """Writes the file that is packed in a package, if all checksums are right; else nothing.

    Args:
        path: of the package.
        output: path of the file to write.
        base: the older version that the package is a difference from, if it is one.

    Returns:
        The path of the file.

    Raises:
        ValueError: the package is damaged, or holds more than there is memory for; or `base` is missing or another file
            than the one it was made from; or no file can be written at `output`, or that
            is the package or the older version itself.
        ImportError: `brotli`, or `bsdiff4` for a difference, is not installed.

    Example:

        unpack("update.kmot", "new.tflite", base="old.tflite")
    """
    check_installed("brotli", purpose="packages")
    source, output = _existing(path, "path"), writable_file(output, argument="output")
    for name, given in (("package", source), ("older version", base)):
        if given is not None and output.exists() and output.samefile(given):
            raise ValueError(f"'{output}' is the {name}, which would be lost: choose another `output`.")
    header, stored = _read(source)
    try:
        parts = _parts(header, stored)
    except ValueError as error:
        raise _damaged(source, error) from error
    if header["method"] == "delta":
        if _is_of_bsdiff(header):
            check_installed("bsdiff4", purpose="packages of differences")
        content = _patched(source, header, parts, base)
    else:
        (content,) = parts
    if len(content) != header["bytes"] or _digest(content) != header["sha256"]:
        raise _damaged(source, "what it holds has another checksum than it says")
    write_bytes(output, content)
    return output


def package_of(path: str | os.PathLike) -> Package:
    """What a package says that it holds; its content is not read.

    Raises:
        ValueError: it is no package, or a damaged one.
    """
    source = _existing(path, "path")
    header, _ = _read(source)
    return Package(
        source,
        source.stat().st_size,
        header["name"],
        header["bytes"],
        header["sha256"],
        header["method"],
        header.get("base_sha256"),
    )


def _existing(path, argument):
    if not isinstance(path, (str, os.PathLike)):
        raise TypeError(f"`{argument}` must be the path of a file. Received: {describe(path)}.")
    path = pathlib.Path(path)
    if not path.is_file():
        raise ValueError(f"`{argument}` must be the path of a file. Received: '{path}', which is none.")
    return path


def _digest(content):
    return hashlib.sha256(content).hexdigest()


def _package(header, parts):
    """The bytes of a package of these parts."""
    brotli = require("brotli")
    packed = [brotli.compress(part, quality=_QUALITY, lgwin=24) for part in parts]
    stored = b"".join(packed)
    sizes = {"parts": [[len(part), len(small)] for part, small in zip(parts, packed, strict=True)]}
    text = json.dumps({**header, **sizes, "stored_sha256": _digest(stored)}, separators=(",", ":")).encode()
    return b"".join((_MAGIC, bytes([_VERSION]), len(text).to_bytes(4, "little"), text, stored))


def _difference(older, content):
    """What makes a file of an older one: where bytes come from, what is added to them, and bytes between."""
    parts = list(require("bsdiff4.core").diff(older, content))
    if [type(part) for part in parts] != [bytes] * 3 or not _fits(parts, len(content)):
        raise ImportError(f"bsdiff4 gives differences in another form: install bsdiff4 {_BSDIFF} or later.")
    return parts


def _fits(parts, size):
    """Whether the lengths in a difference, each a number of 8 bytes with a bit for the sign, are those of its parts."""
    control, added, between = parts
    if len(control) % (3 * 8):
        return False
    lengths = np.frombuffer(control, "<u8").reshape(-1, 3)[:, :2]
    if (lengths > size).any():  # negative ones are larger than all files
        return False
    return [sum(map(int, column)) for column in lengths.T] == [len(added), len(between)] and (
        len(added) + len(between) == size
    )


def _patched(source, header, parts, base):
    if base is None:
        raise ValueError(
            f"'{source}' holds the difference from an older file: pass that as `base`. Its checksum begins with "
            f"{header['base_sha256'][:12]}."
        )
    older = _existing(base, "base").read_bytes()
    if len(older) != header["base_bytes"] or _digest(older) != header["base_sha256"]:
        raise ValueError(
            f"'{source}' is the difference from another file than '{base}': it wants one of {header['base_bytes']:,} "
            f"bytes whose checksum begins with {header['base_sha256'][:12]}; this one has {len(older):,} bytes and "
            f"{_digest(older)[:12]}."
        )
    if not _is_of_bsdiff(header):
        return value_differences.restored(older, *parts)
    if not _fits(parts, header["bytes"]):
        raise _damaged(source, "the lengths in it are wrong")
    try:
        return require("bsdiff4.core").patch(older, header["bytes"], *parts)
    except ImportError:
        raise
    except Exception as error:  # whatever a wrong difference makes of the package that applies it
        raise _damaged(source, error) from error


def _read(source) -> tuple[dict[str, Any], bytes]:
    """The header of a package, checked, and what is stored behind it."""
    content = source.read_bytes()
    start = len(_MAGIC) + 5
    if content[: len(_MAGIC)] != _MAGIC or len(content) < start:
        raise ValueError(f"'{source}' is no package of `pack`: it does not begin as one.")
    if content[len(_MAGIC)] != _VERSION:
        raise ValueError(f"'{source}' is a package of version {content[len(_MAGIC)]}; this is for version {_VERSION}.")
    length = int.from_bytes(content[start - 4 : start], "little")
    if length > min(_LONGEST_HEADER, len(content) - start):
        raise _damaged(source, "it ends too early")
    try:
        header = json.loads(content[start : start + length])
        _check_header(header)
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise _damaged(source, f"its header is not what it should be ({error})") from error
    return header, content[start + length :]


def _check_header(header):
    texts = ["name", "sha256", "method", "stored_sha256"]
    numbers = ["bytes"]
    if header["method"] == "delta":
        texts, numbers = [*texts, "base_sha256"], [*numbers, "base_bytes"]
    elif header["method"] != "brotli":
        raise ValueError(f"an unknown method, {describe(header['method'])}")
    sizes = [header[name] for name in numbers] + [size for pair in header["parts"] for size in pair]
    if not all(isinstance(header[name], str) and header[name].isprintable() for name in texts):
        raise ValueError("a text is none")
    if not all(type(size) is int and size >= 0 for size in sizes):
        raise ValueError("a size is none")
    if header.get("form", _VALUES) != _VALUES:
        raise ValueError(f"an unknown form, {describe(header['form'])}")
    if [len(pair) for pair in header["parts"]] != [2] * (3 if _is_of_bsdiff(header) else 1):
        raise ValueError("another number of parts")
    if "form" in header and header["parts"][0][0] > _LARGEST_WALKED:
        raise ValueError(f"more in the form '{_VALUES}' than is ever packed in it")


def _is_of_bsdiff(header):
    return header["method"] == "delta" and "form" not in header


def _parts(header, stored):
    """The parts of a package, decompressed; raises a ValueError if anything is not as the header says."""
    if sum(small for _, small in header["parts"]) != len(stored) or _digest(stored) != header["stored_sha256"]:
        raise ValueError("what is stored has another checksum than it says")
    wanted, available = header["bytes"] + sum(size for size, _ in header["parts"]), available_bytes()
    if available is not None and wanted > available:
        raise ValueError(f"it says that it takes {wanted:,} bytes of memory; there are {available:,}")
    parts, start = [], 0
    for size, small in header["parts"]:
        parts.append(_decompressed(stored[start : start + small], size))
        start += small
    return parts


def _decompressed(stored, size):
    """Decompresses `size` bytes, or hardly more than that of what holds more, and raises a ValueError."""
    brotli = require("brotli")
    decompressor, found, length, start = brotli.Decompressor(), [], 0, 0
    try:
        while not decompressor.is_finished() and length <= size:
            chunk = b""
            if decompressor.can_accept_more_data():
                chunk, start = stored[start : start + _CHUNK], start + _CHUNK
            found.append(decompressor.process(chunk, output_buffer_limit=_CHUNK))
            length += len(found[-1])
            if start >= len(stored) and not found[-1]:  # what it held back has come out, too
                break
    except brotli.error as error:
        raise ValueError(f"it cannot be decompressed ({error})") from error
    if length > size:
        raise ValueError("it holds more than it says")
    if length != size or not decompressor.is_finished() or start < len(stored):
        raise ValueError("it holds less than it says")
    return b"".join(found)


def _damaged(source, reason):
    return ValueError(f"The package '{source}' is damaged: {shortened(str(reason))}. Nothing was written.")
