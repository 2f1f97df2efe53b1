"""Sizes of files compressed by Brotli (RFC 7932), beside those of zip archives."""

import hashlib
from collections.abc import Iterable
from typing import Any

from keras_mot._packages import is_installed
from keras_mot.export.dependencies import require

BROTLI = "brotli: quality 10, or 9 above 4 MB and where zip saves less than a tenth"
"""How `brotli_bytes` compresses, for captions of tables."""
_LARGEST_SLOW = 4 * 2**20
_HARDLY = 0.9
_WINDOW = 24
_REMEMBERED = {}
"""Sizes by digests of what was compressed, and qualities."""


def brotli_bytes(content: bytes, zipped: int) -> int | None:
    """Size of a file after compression by Brotli, the codec of web servers and of `keras_mot.export.pack`.

    The best qualities take a second for a megabyte, and find what others do not: in pruned and clustered weights a
    tenth to a fifth more than zip. Quality 10 finds what 11 does in half the time. What zip hardly makes smaller has
    nothing to be found: this is compressed at quality 9, and so are large files.

    Args:
        content: of the file.
        zipped: its size as of `zipped_bytes`.

    Returns:
        The number of bytes; `None` if Brotli is not installed (the extra `pack`).
    """
    if not is_installed("brotli"):
        return None
    slow = len(content) <= _LARGEST_SLOW and zipped < _HARDLY * len(content)
    key = hashlib.sha256(content).digest(), 10 if slow else 9
    if key not in _REMEMBERED:
        _REMEMBERED[key] = len(require("brotli").compress(content, quality=key[1], lgwin=_WINDOW))
    return _REMEMBERED[key]


def brotli_column(rows: Iterable[Any]) -> dict[str, list[str]]:
    """The column of a table with the `brotli_bytes` of rows; none if no row has them."""
    sizes = [row.brotli_bytes for row in rows]
    if all(size is None for size in sizes):
        return {}
    return {"brotli": ["-" if size is None else f"{size:,}" for size in sizes]}
