"""Makers of inputs: each returns a function of (count, generator)."""

import numpy as np


def images(*shape, low=0.0, high=1.0):
    """Images with large structures and fine ones; the last of `shape` are the channels."""

    def make(count, generator):
        coarse = [max(1, -(-size // 6)) for size in shape[:-1]]
        values = generator.normal(size=(count, *coarse, shape[-1]))
        for axis in range(len(coarse)):
            values = np.repeat(values, 6, axis=axis + 1)
        values = values[(slice(None), *(slice(size) for size in shape[:-1]))]
        values = values + 0.4 * generator.normal(size=(count, *shape))
        each = (count, *([1] * (len(shape) - 1)), shape[-1])
        values = generator.uniform(0.5, 1.5, each) * values + generator.normal(size=each)
        return (low + (high - low) / (1 + np.exp(-1.2 * values))).astype("float32")

    return make


def pixels(*shape):
    """Images from 0 to 255."""
    return images(*shape, high=255.0)


def signals(length, channels=1):
    """Sums of sines with noise."""

    def make(count, generator):
        time = np.arange(length)[None, :, None]
        waves = 0.0
        for _ in range(3):
            frequency = generator.uniform(0.02, 0.6, (count, 1, channels))
            waves = waves + np.sin(frequency * time + generator.uniform(0, 6.3, (count, 1, channels)))
        return (0.6 * waves + 0.2 * generator.normal(size=(count, length, channels))).astype("float32")

    return make


def vectors(*shape):
    """Normal numbers."""
    return lambda count, generator: generator.normal(size=(count, *shape)).astype("float32")


def tokens(length, vocabulary, dtype="int32", padded=False):
    """Numbers of words; `padded`: the ends of some samples are zeros."""

    def make(count, generator):
        shape = (length,) if isinstance(length, int) else tuple(length)
        values = generator.integers(1, vocabulary, (count, *shape))
        if padded:
            ends = generator.integers(shape[-1] // 2, shape[-1] + 1, (count, *([1] * len(shape))))
            values = np.where(np.arange(shape[-1]) < ends, values, 0)
        return values.astype(dtype)

    return make


WORDS = (
    "the",
    "a",
    "cat",
    "dog",
    "sat",
    "ran",
    "on",
    "mat",
    "good",
    "bad",
    "film",
    "was",
    "very",
    "not",
    "great",
    "dull",
)


def sentences(length=8):
    """Strings of words."""

    def make(count, generator):
        chosen = generator.integers(0, len(WORDS), (count, length))
        return np.array([" ".join(WORDS[word] for word in row) for row in chosen], dtype=object)[:, None]

    return make


def choices(*values):
    """One of some strings or numbers for each sample."""
    values = np.array(values, dtype=object if isinstance(values[0], str) else None)
    return lambda count, generator: values[generator.integers(0, len(values), (count, 1))]


def together(*makers, **named):
    """A list or a dictionary of inputs."""

    def make(count, generator):
        if named:
            return {name: maker(count, generator) for name, maker in named.items()}
        return [maker(count, generator) for maker in makers]

    return make
