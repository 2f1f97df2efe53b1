"""Arrays of palettes: nearest entries, and assignments packed into codes."""

import sys

import numpy as np

_TABLE_PAYS = 2**18  # values; a table of all halves of floats is made for each call


def nearest(values, palette):
    """Index of the entry of `palette` that is nearest to each value; at a tie, the lower entry.

    Args:
        values: float array of any shape.
        palette: float array of shape (entries,), in any order.

    Returns:
        Unsigned integer array of the shape of `values`.
    """
    values = np.asarray(values, "float32")
    order = np.argsort(palette, kind="stable")
    entries = palette[order].astype("float64")
    borders = ((entries[:-1] + entries[1:]) / 2).astype("float32")
    order = order.astype("uint8" if len(palette) < 2**8 else "uint16" if len(palette) < 2**16 else "uint32")
    if values.size < _TABLE_PAYS or order.dtype == "uint32":
        return order[np.searchsorted(borders, values)]
    return _nearest_by_table(values.reshape(-1), borders, order).reshape(values.shape)


def _nearest_by_table(values, borders, order):
    """The same, six times faster for millions of values: the upper half of a float's bits mostly decides.

    A table has the entry for each upper half; only the values whose upper half has a border in it are searched for.
    """
    bits = np.arange(2**16, dtype="uint32") << 16
    first = np.searchsorted(borders, bits.view("float32"))
    last = np.searchsorted(borders, (bits | 0xFFFF).view("float32"))
    undecided = np.iinfo(order.dtype).max  # no entry: there are fewer
    table = np.where(first == last, order[first], undecided)
    halves = np.ascontiguousarray(values).view("uint16")[1 if sys.byteorder == "little" else 0 :: 2]
    indices = table[halves]
    rest = np.flatnonzero(indices == undecided)
    indices[rest] = order[np.searchsorted(borders, values[rest])]
    return indices


def pack(assignments, entries, digits):
    """Codes of `digits` assignments each, the first the most significant; the last code is filled up with zeros.

    Args:
        assignments: int array of shape (size,), each in [0, entries).
        entries: how many entries there are.
        digits: assignments in one code.

    Returns:
        Array of uint16, or int32 if that is too small, of shape (ceil(size / digits),).
    """
    padded = np.pad(assignments, (0, -len(assignments) % digits)).reshape(-1, digits)
    codes = padded[:, 0].astype("uint16" if entries**digits <= 2**16 else "int32")
    for digit in range(1, digits):
        codes *= entries
        codes += padded[:, digit].astype(codes.dtype, copy=False)
    return codes


def unpack(codes, entries, digits, size):
    """The assignments that `pack` was given."""
    codes = np.asarray(codes, "int64")
    columns = [codes // entries ** (digits - 1 - digit) % entries for digit in range(digits)]
    return np.stack(columns, axis=-1).reshape(-1)[:size]
