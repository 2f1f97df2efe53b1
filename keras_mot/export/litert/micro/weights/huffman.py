"""Huffman codes for the DECODE operator of TFLM: canonical, and read through tables of 16 bits an entry.

A table has 2^n entries; the next n bits say which of them is meant. An entry holds a value and how many of these bits
its code has (the others belong to the next code), or how far behind it another table begins and how many bits that one
takes (`decode_state_huffman.h` of TFLM).
"""

import dataclasses
import functools
from collections.abc import Iterator

import numpy as np

LONGEST = 15
"""The most bits of a code; TFLM's tables allow more, which no distribution of 256 values needs."""
_FOUND, _BITS_SHIFT, _LARGEST_DISTANCE = 0x8000, 11, 0x07FF
_WIDEST_TABLE = 8
_BYTES_OF_A_LOOKUP = 32
"""How much larger tables may be if the values of a tensor then take one look-up less on average, which is time."""
_WORD_BITS = 32


@dataclasses.dataclass(frozen=True)
class HuffmanCode:
    """Values as a string of bits.

    Attributes:
        bits: of the codes of all values one behind the other, the first bit the highest of a byte; whole words of 32
            bits, as many as the decoder reads.
        tables: the tables, as bytes.
        first_bits: by how many bits the first table is read.
    """

    bits: bytes
    tables: bytes
    first_bits: int


def encode(values: np.ndarray) -> HuffmanCode | None:
    """The code of an array of int8 that is smallest together with its tables; `None` for an empty one.

    Codes of limited length are by the package-merge algorithm (Larmore and Hirschberg, 1990).
    """
    symbols, places, counts = np.unique(values.ravel(), return_inverse=True, return_counts=True)
    best = None
    for lengths in code_lengths(counts, LONGEST) if len(symbols) else ():
        codes = Codes(symbols, counts, lengths)
        tables, size = codes.tables(), int(lengths @ counts)
        if tables is not None and (best is None or size + 16 * len(tables[0]) < best[0]):
            best = size + 16 * len(tables[0]), codes, tables
    if best is None:
        return None
    _, codes, (entries, first_bits, widest) = best
    bits = _joined(codes.words[places], codes.lengths[places], widest)
    return HuffmanCode(bits, np.array(entries, "<u2").tobytes(), first_bits)


def code_lengths(counts: np.ndarray, longest: int) -> Iterator[np.ndarray]:
    """The lengths of optimal codes of at most 1, 2, ..., `longest` bits, where there are such.

    Args:
        counts: how often each symbol comes, above 0.
        longest: the most bits.

    Yields:
        An array of the number of bits of each symbol.
    """
    count = len(counts)
    if count == 1:
        yield np.ones(1, int)
        return
    single = np.eye(count, dtype=int)
    weights, members = np.asarray(counts), single
    weights, members = _sorted(weights, members)
    for limit in range(1, longest + 1):
        if 2**limit >= count:
            yield members[: 2 * count - 2].sum(axis=0)
        pairs = len(weights) // 2
        paired = members[: 2 * pairs].reshape(pairs, 2, count).sum(axis=1)
        sums = weights[: 2 * pairs].reshape(pairs, 2).sum(axis=1)
        weights, members = _sorted(np.concatenate([counts, sums]), np.concatenate([single, paired]))


def _sorted(weights, members):
    order = np.argsort(weights, kind="stable")
    return weights[order], members[order]


class Codes:
    """Canonical codes: those of a length follow each other, in the order of their symbols, the short ones first.

    Args:
        symbols: integers.
        counts: how often each comes.
        lengths: the bits of each.

    Attributes:
        lengths: the same.
        words: the code of each symbol as a number.
    """

    def __init__(self, symbols: np.ndarray, counts: np.ndarray, lengths: np.ndarray):
        self.lengths, self.words = lengths, np.zeros(len(symbols), int)
        order, word, before = np.lexsort((symbols, lengths)), 0, 0
        for place in order:
            word <<= int(lengths[place]) - before
            before = int(lengths[place])
            self.words[place] = word
            word += 1
        self._symbols = [int(symbols[place]) for place in order]
        self._codes = [(int(self.words[place]), int(lengths[place])) for place in order]
        self._sums = np.concatenate([[0], np.cumsum(counts[order])])

    def tables(self) -> tuple[list[int], int, int] | None:
        """The entries, the bits of the first table, and of the widest; `None` if one would lie too far behind."""
        planned = functools.cache(self._planned)
        entries, widest, left = [], 0, [(0, 0, len(self._codes), None)]
        while left:
            depth, start, end, at = left.pop(0)
            _, bits = planned(depth, start, end, planned)
            widest, here = max(widest, bits), len(entries)
            if at is not None:
                if here - at > _LARGEST_DISTANCE:
                    return None
                entries[at] = (bits - 1) << _BITS_SHIFT | (here - at)
            entries += [0] * 2**bits
            for place in range(start, end):
                word, length = self._codes[place]
                rest = length - depth
                if rest <= bits:
                    first = (word & (2**rest - 1)) << (bits - rest)
                    entry = _FOUND | rest << _BITS_SHIFT | self._symbols[place] & 0xFF
                    entries[here + first : here + first + 2 ** (bits - rest)] = [entry] * 2 ** (bits - rest)
            left += [(depth + bits, *part, here + index) for index, part in self._inner(depth, bits, start, end)]
        return entries, planned(0, 0, len(self._codes), planned)[1], widest

    def _planned(self, depth, start, end, planned):
        """The cost of the tables for some codes whose first bits are known, and the bits of the first of these."""
        longest = self._codes[end - 1][1] - depth
        share = (self._sums[end] - self._sums[start]) / self._sums[-1]
        return min(
            (
                2 * 2**bits
                + _BYTES_OF_A_LOOKUP * share
                + sum(planned(depth + bits, *part, planned)[0] for _, part in self._inner(depth, bits, start, end)),
                bits,
            )
            for bits in range(1, min(longest, _WIDEST_TABLE) + 1)
        )

    def _inner(self, depth, bits, start, end):
        """(entry, (start, end)) of the codes that a table of so many bits does not end, by its entries."""
        groups = {}
        for place in range(start, end):
            word, length = self._codes[place]
            if length > depth + bits:
                index = word >> (length - depth - bits) & (2**bits - 1)
                groups[index] = (groups.get(index, (place,))[0], place + 1)
        return groups.items()


def _joined(words, lengths, widest):
    """Codes one behind the other, as bytes; with room for a decoder that reads `widest` bits at the last one."""
    ends = np.cumsum(lengths)
    starts, total = ends - lengths, int(ends[-1])
    size = -(-(total + widest - 1) // _WORD_BITS) * _WORD_BITS
    bits = np.zeros(size, "uint8")
    for place in range(int(lengths.max())):
        chosen = np.flatnonzero(lengths > place)
        bits[starts[chosen] + place] = words[chosen] >> (lengths[chosen] - 1 - place) & 1
    return np.packbits(bits).tobytes()


def decode(bits: bytes, tables: np.ndarray, first_bits: int, count: int, dtype: str = "int8") -> np.ndarray:
    """The values of a code.

    Args:
        bits: as of `HuffmanCode`.
        tables: the entries, of type uint16 or uint32.
        first_bits: as of `HuffmanCode`.
        count: how many values there are.
        dtype: their type.

    Raises:
        ValueError: the tables or the bits are no such code.
    """
    codes = _codes_of(tables, first_bits)
    longest = max((length for _, length, _ in codes), default=1)
    lengths, values = np.zeros(2**longest, "uint8"), np.zeros(2**longest, dtype)
    for word, length, value in codes:
        chosen = slice(word << (longest - length), (word + 1) << (longest - length))
        lengths[chosen], values[chosen] = length, np.array(value).astype(dtype)
    stored = np.concatenate([np.unpackbits(np.frombuffer(bits, "uint8")), np.zeros(longest, "uint8")])
    windows = np.zeros(len(stored) - longest + 1, "uint32")
    for place in range(longest):
        windows = windows << 1 | stored[place : place + len(windows)]
    at, steps, starts = 0, lengths[windows].tolist(), []
    for _ in range(count):
        if at >= len(steps) or not steps[at]:
            raise ValueError("its Huffman code ends too early, or has bits that stand for nothing")
        starts.append(at)
        at += steps[at]
    return values[windows[starts]]


def _codes_of(tables, first_bits):
    """(code, its bits, its value) of each code that tables hold."""
    wide = tables.itemsize == 4
    found_mask, shift = (0x80000000, 27) if wide else (_FOUND, _BITS_SHIFT)
    codes, left, seen = [], [(0, 0, 0, first_bits)], 0
    while left:
        start, prefix, depth, bits = left.pop()
        seen += 1
        if depth + bits > 16 or start + 2**bits > len(tables) or seen > len(tables):
            raise ValueError("its Huffman tables lead outside of themselves, or codes are longer than 16 bits")
        previous = None
        for index, entry in enumerate(tables[start : start + 2**bits].tolist()):
            number, value = entry >> shift & 15, entry & (2**shift - 1)
            if not entry:  # nothing begins so: there is one value alone
                continue
            if not entry & found_mask:
                left.append((start + index + value, prefix << bits | index, depth + bits, number + 1))
                continue
            if not 1 <= number <= bits:
                raise ValueError("its Huffman tables have a code of no bits, or of more than they are read by")
            code = (prefix << number | index >> (bits - number), depth + number, value)
            if code != previous:
                codes.append(code)
            previous = code
    return codes
