"""Choosing the largest scores in linear time: radix selection on the bit pattern of floats.

Without their sign bit, IEEE floats order by magnitude as their bit patterns do. One histogram of the upper 16 bits
finds the bucket that holds the threshold, a second one of the lower 16 bits finds the threshold itself. No score is
moved or copied, so the memory needed beyond the scores is that of one chunk and of the mask, and several arrays can be
ranked together.
"""

import numpy as np

_CHUNK = 1 << 20
_MAGNITUDE = np.uint32(0x7FFFFFFF)  # all bits but the sign
_NAN = 0x7F80  # upper halves from here on are infinity and NaN


class NonFiniteScoreError(ValueError):
    """A score is NaN or infinite."""


def keep_largest(scores, keep):
    """Masks that are `True` for the `keep` scores of largest magnitude; ties go to the earlier position.

    Args:
        scores: list of float32 arrays of any shapes; or of functions that return such arrays,
            which are called once per pass, so that only one array needs to exist at a time.
        keep: number of scores to keep over all arrays.

    Returns:
        List of boolean arrays, with exactly `keep` entries `True` in all.

    Raises:
        NonFiniteScoreError: if a score is NaN or infinite.
    """
    threshold, ties = _threshold(scores, keep)
    masks = []
    for item in scores:
        array = item() if callable(item) else item
        mask = np.empty(np.size(array), "bool")
        for start, chunk in _chunks(array):
            part = np.greater(chunk, threshold, out=mask[start : start + chunk.size])
            if ties > 0:
                tied = np.flatnonzero(chunk == threshold)[:ties]
                part[tied] = True
                ties -= tied.size
        masks.append(mask.reshape(np.shape(array)))
    return masks


def keep_largest_with_floors(scores, keep, floors):
    """Like `keep_largest`, but at least `floors[i]` scores of array `i` are kept, at the others' expense.

    Arrays that would fall below their floor keep just their floor; the rest is ranked again without them,
    until none falls below.
    """
    pinned = {}
    while True:
        free = [index for index in range(len(scores)) if index not in pinned]
        masks = keep_largest([scores[index] for index in free], keep - sum(floors[index] for index in pinned))
        low = [i for i, mask in zip(free, masks, strict=True) if np.count_nonzero(mask) < floors[i]]
        if not low:
            chosen = {**pinned, **dict(zip(free, masks, strict=True))}
            return [chosen[index] for index in range(len(scores))]
        for index in low:
            pinned[index] = keep_largest([scores[index]], floors[index])[0]


def _chunks(item):
    """Yields (start, bit patterns of magnitudes) for consecutive parts of an array."""
    array = item() if callable(item) else item
    flat = np.ascontiguousarray(array, "float32").reshape(-1).view("uint32")
    for start in range(0, flat.size, _CHUNK):
        yield start, flat[start : start + _CHUNK] & _MAGNITUDE


def _threshold(scores, keep):
    """The bit pattern of the smallest kept score, and how many scores equal to it are kept."""
    upper = sum(_histogram(item, lambda chunk: chunk >> 16) for item in scores)
    if upper[_NAN:].any():
        raise NonFiniteScoreError("a score is NaN or infinite")
    if keep <= 0:
        return np.uint32(0xFFFFFFFF), 0
    bucket, above = _bucket_of(upper, keep)

    def lower_half_in_bucket(chunk):
        return (chunk[(chunk >> 16) == bucket]) & 0xFFFF

    lower = sum(_histogram(item, lower_half_in_bucket) for item in scores)
    low, above_within = _bucket_of(lower, keep - above)
    return np.uint32((bucket << 16) | low), keep - above - above_within


def _histogram(item, key):
    counts = np.zeros(1 << 16, "int64")
    for _, chunk in _chunks(item):
        counts += np.bincount(key(chunk).astype(np.intp), minlength=1 << 16)
    return counts


def _bucket_of(counts, rank):
    """The bucket of the `rank`-th largest, and how many lie in buckets above it."""
    from_top = np.cumsum(counts[::-1])
    position = int(np.searchsorted(from_top, rank))
    above = int(from_top[position - 1]) if position else 0
    return len(counts) - 1 - position, above


def count_to_zero(total, sparsity):
    """How many of `total` units a sparsity zeroes: the nearest whole number, halves up, at least one kept."""
    return min(int(np.floor(total * float(sparsity) + 0.5)), total - 1)
