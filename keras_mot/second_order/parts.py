"""Kernels in parts whose second moments fit into memory together."""

from collections.abc import Iterator, Sequence

from keras_mot.second_order.matrices import WeightMatrices

_BYTES = 256e6


def parts_of(groups: Sequence[Sequence[WeightMatrices]], most: float = _BYTES) -> Iterator[list[int]]:
    """Yields the numbers of consecutive groups whose second moments take at most so many bytes, or one of more.

    Args:
        groups: list of lists of kernels whose moments are needed at one time.
        most: bytes.
    """
    part, size = [], 0.0
    for number, group in enumerate(groups):
        own = sum(8.0 * each.shape[0] * each.shape[1] ** 2 for each in group)
        if part and size + own > most:
            yield part
            part, size = [], 0.0
        part, size = [*part, number], size + own
    if part:
        yield part
