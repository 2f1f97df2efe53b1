"""Quantization schemes by their names on the command line."""

from keras_mot.cli._errors import UsageError
from keras_mot.cli._options import of_integer_file

DYNAMIC = ("dynamic-int8", "dynamic-int4")
TRAINED = ("int8", "int16x8", "int4-weights", *DYNAMIC)
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
        "block_size": options.block_size,
        "per_channel": not options.per_tensor,
        **of_integer_file(options),
    }


def check_scheme(options):
    """Finds what does not go with the scheme, before a backend is loaded."""
    if options.scheme not in DYNAMIC:
        if options.block_size is not None:
            raise UsageError(f"`--block-size` is for `--scheme dynamic-int4`; `{options.scheme}` has no blocks.")
        return
    if options.scheme != "dynamic-int4" and options.block_size is not None:
        raise UsageError("There are no kernels for blocks of 8 bits: `--block-size` is for `--scheme dynamic-int4`.")
    for side in ("input", "output"):
        if getattr(options, f"{side}_type") not in (None, "float32"):
            raise UsageError(f"`--scheme {options.scheme}` takes and returns floats: leave `--{side}-type` out.")
    if options.placement:
        raise UsageError(f"`--scheme {options.scheme}` has dense layers and embeddings in integers, and nothing else.")
    if options.per_tensor:
        raise UsageError(f"`--scheme {options.scheme}` has a scale for each channel: leave `--per-tensor` out.")
    if options.target != "litert":
        raise UsageError(f"`--scheme {options.scheme}` needs floats, which `--target {options.target}` does not have.")
