"""Entropy of repeated values."""

import numpy as np


def entropy_in_bits(counts):
    """Shannon's entropy, in bits per value, of values that are there `counts` times; 0 where there are none."""
    counts = np.asarray(counts, "float64")
    shares = counts[counts > 0] / max(counts.sum(), 1)
    return float(-(shares * np.log2(shares)).sum() + 0.0)
