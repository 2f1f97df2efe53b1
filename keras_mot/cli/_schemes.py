"""Quantization schemes by their names on the command line."""

import dataclasses

from keras_mot.cli._errors import blamed_on_input

TRAINED = ("int8", "int16x8", "int4-weights")
WEIGHTS_ALONE = ("float16", "dynamic-range")


def scheme_named(name, learned_scales=False):
    """The scheme of this name."""
    from keras_mot import quantization

    scheme = getattr(quantization, name.upper().replace("-", "_"))
    if not learned_scales:
        return scheme
    with blamed_on_input():
        return dataclasses.replace(scheme, learned_scales=True)


def calibration_samples(x, count, seed):
    """So many of the samples, drawn at random: data are often sorted by class.

    Args:
        x: array, or structure of arrays.
        count: how many at most.
        seed: of the draw.
    """
    from keras_mot.data.arrays import random_part

    return random_part(x, count, seed)
