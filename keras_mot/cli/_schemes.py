"""Quantization schemes by their names on the command line."""

from keras_mot.cli._options import of_integer_file

TRAINED = ("int8", "int16x8", "int4-weights")
WEIGHTS_ALONE = ("float16", "dynamic-range")


def scheme_named(name):
    """The scheme of this name."""
    from keras_mot import quantization

    return getattr(quantization, name.upper().replace("-", "_"))


def settings_of(options):
    """What the options say of the stages of recipes that quantize, as their arguments."""
    scheme = scheme_named(options.scheme)
    return {
        "weight_bits": scheme.weight_bits,
        "activation_bits": scheme.activation_bits,
        "calibration_samples": options.calibration_samples,
        "skip": options.skip,
        "placement": options.placement,
        "rounding": options.rounding,
        "target": options.target,
        **of_integer_file(options),
    }
