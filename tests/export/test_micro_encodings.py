"""Encodings of weights for TFLM: look-up tables, bit masks and Huffman codes, without a file around them."""

import heapq
import itertools

import numpy as np
import pytest

from keras_mot.export.litert.micro.weights import huffman
from keras_mot.export.litert.micro.weights.encodings import Channels, decoded, encodings

pytestmark = pytest.mark.backend_independent


def arrays():
    generator = np.random.default_rng(5)
    bell = np.clip(np.rint(generator.standard_normal((40, 50)) * 30), -127, 127)
    yield "one value", np.full((3, 3), 7), Channels()
    yield "one number", np.array([[-128]]), Channels()
    yield "two values", generator.integers(0, 2, (5, 7)) - 1, Channels()
    yield "all values", generator.integers(-128, 128, (16, 64)), Channels()
    yield "a bell", bell, Channels()
    yield "mostly zeros", np.where(generator.random((40, 50)) < 0.9, 0, bell), Channels()
    yield "128 values", generator.permutation(np.arange(1280) % 128 - 64), Channels()
    yield "zeros that are others", np.where(generator.random((4, 50)) < 0.7, 3, bell[:4]), Channels(zero=3)
    own = np.stack([generator.choice(generator.integers(-128, 128, 3), 50) for _ in range(12)])
    yield "few values in each row", own, Channels(12, 0)
    yield "few values in each column", own.T, Channels(12, 1)
    yield "skewed", np.repeat(np.arange(20) - 10, 2 ** np.arange(20) // 64 + 1), Channels()


ARRAYS = [pytest.param(values.astype("int8"), channels, id=name) for name, values, channels in arrays()]


@pytest.mark.parametrize(("values", "channels"), ARRAYS)
def test_what_is_encoded_is_decoded(values, channels):
    found = encodings(values, channels)
    assert {"Huffman"} < {each.method for each in found}
    for each in found:
        received = decoded(each.data, each.beside, values.shape, np.dtype("int8"), channels)
        np.testing.assert_array_equal(received, values, err_msg=each.method)


@pytest.mark.parametrize(("values", "channels"), ARRAYS)
def test_the_tables_are_read_bit_by_bit(values, channels):
    """As TFLM reads them: some bits, an entry, bits given back or another table; and no word behind the last one."""
    code = huffman.encode(values)
    bits = "".join(f"{byte:08b}" for byte in code.bits)
    tables = np.frombuffer(code.tables, "<u2").tolist()
    at, received = 0, []
    for _ in range(values.size):
        start, width = 0, code.first_bits
        while True:
            assert at + width <= len(bits)
            entry = tables[start + int(bits[at : at + width], 2)]
            if entry & 0x8000:
                break
            start, at = start + int(bits[at : at + width], 2) + (entry & 0x7FF), at + width
            width = (entry >> 11 & 15) + 1
        at += entry >> 11 & 15
        received.append(entry & 0xFF)
    np.testing.assert_array_equal(np.array(received, "uint8").view("int8"), values.ravel())
    assert len(bits) % 32 == 0
    assert len(bits) - at < 32 + 8


def huffman_bits(counts):
    """The bits of all codes together, by Huffman's own algorithm."""
    heap, total = [int(count) for count in counts], 0
    heapq.heapify(heap)
    while len(heap) > 1:
        both = heapq.heappop(heap) + heapq.heappop(heap)
        total += both
        heapq.heappush(heap, both)
    return total


@pytest.mark.parametrize("count", [2, 3, 17, 100, 256])
def test_codes_are_as_short_as_huffmans(count):
    counts = np.random.default_rng(count).integers(1, 1000, count)
    found = list(huffman.code_lengths(counts, 15))
    totals = [int(lengths @ counts) for lengths in found]
    assert totals == sorted(totals, reverse=True)
    assert totals[-1] == huffman_bits(counts)
    assert all(np.sum(2.0**-lengths) == 1 for lengths in found)


def test_codes_of_limited_length_are_the_shortest_of_that_length():
    counts = np.array([1, 1, 2, 5, 20])
    by_limit = {int(lengths.max()): int(lengths @ counts) for lengths in huffman.code_lengths(counts, 4)}
    for limit, total in by_limit.items():
        choices = itertools.product(range(1, limit + 1), repeat=5)
        assert total == min(np.dot(each, counts) for each in choices if np.sum(2.0 ** -np.array(each)) <= 1)
    assert set(by_limit) == {3, 4}


@pytest.mark.parametrize(("values", "channels"), ARRAYS)
def test_damaged_encodings_are_errors_or_other_values(values, channels):
    generator = np.random.default_rng(1)
    for each in encodings(values, channels):
        for part in ("data", "beside"):
            content = bytearray(getattr(each, part))
            for size in {0, len(content) // 2, len(content)}:
                damaged = bytearray(content[:size])
                for place in generator.integers(0, max(size, 1), 3 if size else 0):
                    damaged[place] ^= 1 << int(generator.integers(8))
                parts = {"data": each.data, "beside": each.beside, part: bytes(damaged)}
                try:
                    received = decoded(parts["data"], parts["beside"], values.shape, np.dtype("int8"), channels)
                except ValueError:
                    continue
                assert received.shape == values.shape
