"""A file as what its values have become, compared with an older one in which they stand at the same places.

In weights of few different values, training moves the values, and few weights to others: where the older file has one
byte, the newer one has the same byte as the last time, mostly, but another one than the older file. So each byte is
stored as its difference from what has become of the older byte lately. That is zero nearly everywhere, also where most
bytes have changed, and Brotli leaves little of it. A prediction changes when the same other byte has come twice in a
row: single weights that move to another value leave it alone, and the next channel, with its own scale, does not.
"""

BYTES = 256


def differences(older: bytes, newer: bytes) -> bytes:
    """A byte for each of the newer file, to be compressed.

    Args:
        older: the file that devices have; what is behind its end counts as zeros.
        newer: the file to send.
    """
    return _walked(older, newer, restoring=False)


def restored(older: bytes, found: bytes) -> bytes:
    """The newer file, from the older one and the `differences`."""
    return _walked(older, found, restoring=True)


def _walked(older, given, restoring):
    predicted, waiting = list(range(BYTES)), [-1] * BYTES
    result = bytearray(len(given))
    padded = older[: len(given)] + bytes(max(0, len(given) - len(older)))
    for place, (before, byte) in enumerate(zip(padded, given, strict=True)):
        expected = predicted[before]
        if restoring:
            result[place] = value = (byte + expected) % BYTES
        else:
            result[place], value = (byte - expected) % BYTES, byte
        if value == expected:
            waiting[before] = -1
        elif value == waiting[before]:
            predicted[before], waiting[before] = value, -1
        else:
            waiting[before] = value
    return bytes(result)
