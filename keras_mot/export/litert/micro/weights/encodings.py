"""The encodings of constants that the DECODE operator of TFLM reads: look-up tables, bit masks, Huffman codes.

Each is a tensor of data, and one beside it that begins with 16 bytes which say what it is (`decode_state.h` of TFLM).
"""

import dataclasses
import math

import numpy as np

from keras_mot.export.litert.micro.weights import huffman

LOOKUP, HUFFMAN, MASK = 0, 1, 2
"""The numbers of the encodings in a file."""
_VERSION, _HEADER_BYTES = 1, 16
_ONE_TABLE = 0xF0
"""Says to newer versions of TFLM that all channels share a table; for older ones, tables have a distance of 0."""
_MOST_VALUES = 128
_ALIGNMENT = 16


@dataclasses.dataclass(frozen=True)
class Encoded:
    """A constant in one of the encodings.

    Attributes:
        method: what it is, in words.
        data: the values.
        beside: what says how they are encoded: 16 bytes, and a table.
    """

    method: str
    data: bytes
    beside: bytes

    @property
    def bytes(self) -> int:
        """Bytes of both in a file, where each begins at a multiple of 16 bytes."""
        return padded(len(self.data)) + padded(len(self.beside))


@dataclasses.dataclass(frozen=True)
class Channels:
    """The scales of a tensor, as decoders ask for them.

    Args:
        count: how many scales it has.
        axis: the axis that these belong to.
        zero: the integer that stands for zero in every channel, or `None` if it differs between them.
    """

    count: int = 1
    axis: int = 0
    zero: int | None = 0

    def known(self, rank: int) -> bool:
        """Whether the decoders of tables and masks take them: along the first axis, or the last."""
        return self.count == 1 or self.axis in (0, rank - 1)


def padded(size: int) -> int:
    """Bytes that contents of so many bytes take in a file."""
    return -(-size // _ALIGNMENT) * _ALIGNMENT


def encodings(values: np.ndarray, channels: Channels) -> list[Encoded]:
    """All encodings of a tensor of int8, those first whose decoders do less for each value.

    Args:
        values: int8, at least one.
        channels: its scales.
    """
    found = []
    if channels.known(values.ndim):
        found = [_one_table(values), _table_of_each_channel(values, channels), _mask(values, channels)]
    found.append(_huffman(values))
    return [each for each in found if each is not None]


def _header(kind, *more):
    return bytes([kind, _VERSION, 0, 0, _VERSION, *more]).ljust(_HEADER_BYTES, b"\0")


def _huffman(values):
    code = huffman.encode(values)
    if code is None:
        return None
    return Encoded("Huffman", code.bits, _header(HUFFMAN, (code.first_bits - 1) << 4) + code.tables)


def _mask(values, channels):
    if channels.zero is None:
        return None
    flat = values.ravel()
    kept = flat != channels.zero
    return Encoded("bit mask", np.packbits(kept).tobytes(), _header(MASK) + flat[kept].tobytes())


def _one_table(values):
    table, indices = np.unique(values.ravel(), return_inverse=True)
    if len(table) > _MOST_VALUES:
        return None
    bits = _index_bits(len(table))
    header = _header(LOOKUP, _ONE_TABLE | bits, 0)
    return Encoded(f"look-up table of {len(table)}", _packed(indices, bits), header + table.tobytes())


def _table_of_each_channel(values, channels):
    """A table for each channel, where these have less values each than all together."""
    axis = channels.axis
    if channels.count == 1 or values.shape[axis] != channels.count:
        return None
    rows = np.moveaxis(values, axis, 0).reshape(channels.count, -1)
    tables, indices = zip(*(np.unique(row, return_inverse=True) for row in rows), strict=True)
    most = max(map(len, tables))
    if most > _MOST_VALUES:
        return None
    moved = np.moveaxis(values, axis, 0).shape
    indices = np.moveaxis(np.stack(indices).reshape(moved), 0, axis)
    joined = b"".join(table.tobytes().ljust(most, b"\0") for table in tables)
    bits = _index_bits(most)
    header = _header(LOOKUP, axis << 4 | bits, most)
    return Encoded(f"look-up tables of {most}, one a channel", _packed(indices.ravel(), bits), header + joined)


def _index_bits(count):
    return max(1, math.ceil(math.log2(count)))


def _packed(indices, bits):
    """Indices of so many bits each, the highest first."""
    return np.packbits(np.unpackbits(indices.astype("uint8")[:, None], axis=1)[:, 8 - bits :]).tobytes()


def decoded(data: bytes, beside: bytes, shape: tuple[int, ...], dtype: np.dtype, channels: Channels) -> np.ndarray:
    """The values of a constant; the inverse of `encodings`, for files from elsewhere, too.

    Args:
        data: as of `Encoded`.
        beside: as of `Encoded`.
        shape: of the values.
        dtype: their type, little-endian.
        channels: its scales.

    Raises:
        ValueError: it is in no such encoding, or data are missing.
    """
    if len(beside) < _HEADER_BYTES or beside[1] != _VERSION or beside[4] != _VERSION:
        raise ValueError("it is encoded in a way, or a version of it, that is not known here")
    count, table = math.prod(shape), beside[_HEADER_BYTES:]
    if beside[0] == HUFFMAN:
        values = _from_huffman(data, beside, table, count, dtype)
    elif beside[0] == MASK:
        values = _from_mask(data, _array(table, dtype), count, channels)
    elif beside[0] == LOOKUP:
        values = _from_tables(data, beside, _array(table, dtype), shape, channels)
    else:
        raise ValueError(f"its encoding, number {beside[0]}, is not known here")
    return values.reshape(shape)


def method_of(beside: bytes) -> str:
    """The encoding in words, by what stands beside the data of a constant that could be decoded."""
    return {HUFFMAN: "Huffman", MASK: "bit mask", LOOKUP: "look-up table"}[beside[0]]


def _array(content, dtype):
    return np.frombuffer(content[: len(content) - len(content) % dtype.itemsize], dtype)


def _from_huffman(data, beside, table, count, dtype):
    wide = bool(beside[5] & 1)
    if dtype.name not in ("int8", "int16") or (dtype.name == "int16" and not wide):
        raise ValueError(f"its Huffman code is of {dtype.name}, for which TFLM has none")
    return huffman.decode(data, _array(table, np.dtype("<u4" if wide else "<u2")), (beside[5] >> 4) + 1, count, dtype)


def _from_mask(data, table, count, channels):
    if channels.zero is None:
        raise ValueError("its bit mask stands for zeros that differ between channels, which is not known here")
    kept = np.unpackbits(np.frombuffer(data, "uint8"))[:count].astype(bool)
    if len(kept) < count or len(table) < np.count_nonzero(kept):
        raise ValueError("its bit mask, or the values that belong to it, end too early")
    values = np.full(count, channels.zero, table.dtype)
    values[kept] = table[: np.count_nonzero(kept)]
    return values


def _from_tables(data, beside, table, shape, channels):
    bits, distance, count = beside[5] & 7, beside[6], math.prod(shape)
    stored = np.unpackbits(np.frombuffer(data, "uint8"))
    if not bits or len(stored) < bits * count:
        raise ValueError("the indices of its look-up table end too early")
    indices = np.packbits(stored[: bits * count].reshape(count, bits), axis=1)[:, 0].astype(int) >> (8 - bits)
    if distance and beside[5] & _ONE_TABLE != _ONE_TABLE:
        last = channels.count > 1 and channels.axis == len(shape) - 1
        if not channels.known(len(shape)) or (channels.count > 1 and shape[channels.axis] != channels.count):
            raise ValueError("it has look-up tables for channels along an axis for which TFLM has none")
        places = np.arange(count)
        channel = places % channels.count if last else places // max(1, count // channels.count)
        indices = indices + distance * channel
    if count and indices.max() >= len(table):
        raise ValueError("its look-up table ends too early")
    return table[indices]
