"""Arrays of palettes: nearest entries, and assignments packed into codes."""

import numpy as np


def nearest(values, palette):
    """Index of the entry of `palette` that is nearest to each value; at a tie, the lower entry.

    Args:
        values: float array of any shape.
        palette: float array of shape (entries,), in any order.

    Returns:
        int array of the shape of `values`.
    """
    order = np.argsort(palette, kind="stable")
    entries = palette[order].astype("float64")
    borders = ((entries[:-1] + entries[1:]) / 2).astype(values.dtype)
    return order[np.searchsorted(borders, values)]


def pack(assignments, entries, digits):
    """Codes of `digits` assignments each, the first the most significant; the last code is filled up with zeros.

    Args:
        assignments: int array of shape (size,), each in [0, entries).
        entries: how many entries there are.
        digits: assignments in one code.

    Returns:
        int array of shape (ceil(size / digits),).
    """
    padded = np.pad(assignments, (0, -len(assignments) % digits)).reshape(-1, digits)
    codes = padded[:, 0].astype("int32")
    for digit in range(1, digits):
        codes = codes * entries + padded[:, digit]
    return codes


def unpack(codes, entries, digits, size):
    """The assignments that `pack` was given."""
    codes = np.asarray(codes, "int64")
    columns = [codes // entries ** (digits - 1 - digit) % entries for digit in range(digits)]
    return np.stack(columns, axis=-1).reshape(-1)[:size]


def pack_bits(indices, bits):
    """Indices below 2**bits, as they lie in a file: one after the other, the most significant bit first.

    Returns:
        uint8 array of ceil(size * bits / 8) bytes.
    """
    planes = (indices.reshape(-1, 1) >> np.arange(bits - 1, -1, -1)) & 1
    return np.packbits(planes.astype("uint8"))
