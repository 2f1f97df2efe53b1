"""Reading a weight from a palette, and summing its gradient per entry: the work of a clustered training step.

Gathering millions of single values, and scattering their gradient, is slow on CPUs. Several neighbouring
assignments are therefore kept as the digits of one code, and one row of a table of all combinations is gathered
for each code; the gradient of the rows is a histogram.
"""

import keras
from keras import ops

_MAX_TABLE = 2**18  # values of the table of combinations: 1 MB, which stays in a core's cache
_MAX_DIGITS = 8


def digits_per_code(entries, size):
    """How many assignments to one of `entries` values go into one code, for a weight of `size` values."""

    def fits(digits):
        rows = entries**digits
        return rows * digits <= _MAX_TABLE and rows <= max(entries, size // 8)

    possible = [digits for digits in range(1, _MAX_DIGITS + 1) if fits(digits)] or [1]
    without_padding = [digits for digits in possible if size % digits == 0]
    return max(without_padding) if max(without_padding) > 1 else max(possible)


def look_up(palette, codes, weight, digits, members=None):
    """The values that `codes` stand for, in place of `weight`.

    The gradient of an entry of the palette is the sum of the gradients of its members (Han et al., 2016,
    "Deep Compression", arXiv:1510.00149, section 3.3), or their mean if `members` is given. The gradient of
    `weight` is that of the result, unchanged (straight through).

    Args:
        palette: float tensor of shape (channels, entries); channels is 1 if `digits` is more than 1.
        codes: int32 tensor of shape (ceil(size / digits),): rows of the table of combinations.
        weight: float tensor of `size` values.
        digits: assignments in one code, the first one the most significant.
        members: float tensor of the shape of `palette`, how many values each entry has.

    Returns:
        A tensor of the shape and dtype of `weight`.
    """
    channels, entries = palette.shape
    shape = tuple(weight.shape)
    size = 1
    for length in shape:
        size *= length
    # The values of digit number d repeat in runs of `inner`, and the whole pattern `outer` times.
    places = [(entries**d, channels * entries, entries ** (digits - 1 - d)) for d in range(digits)]

    def table_of(palette):
        columns = [ops.reshape(ops.broadcast_to(ops.reshape(palette, (1, -1, 1)), place), (-1,)) for place in places]
        return ops.stack(columns, axis=-1)

    @ops.custom_gradient
    def read(palette, weight):
        values = ops.reshape(_rows(table_of(palette), codes), (-1,))
        if size % digits:
            values = values[:size]

        def gradients(*args, upstream=None):
            upstream = args[-1] if upstream is None else upstream
            values = ops.reshape(ops.cast(upstream, palette.dtype), (-1,))
            if size % digits:
                values = ops.pad(values, [[0, -size % digits]])
            values = ops.reshape(values, (-1, digits))
            total = 0.0
            for digit, place in enumerate(places):
                sums = _histogram(codes, values[:, digit], place[0] * place[1] * place[2])
                total = total + ops.sum(ops.reshape(sums, place), axis=(0, 2))
            total = ops.reshape(total, (channels, entries))
            if members is not None:
                total = total / ops.maximum(members, 1)
            return total, upstream

        return ops.cast(ops.reshape(values, shape), weight.dtype), gradients

    return read(palette, weight)


def _rows(table, codes):
    """`table[codes]`; the codes are known to be valid, so that no backend needs to check them."""
    return _BACKEND[keras.backend.backend()][0](table, codes)


def _histogram(codes, weights, length):
    """The sum of the weights of each code, for codes below `length`."""
    return _BACKEND[keras.backend.backend()][1](codes, weights, length)


def _tensorflow_rows(table, codes):
    import tensorflow as tf

    return tf.gather(table, codes)


def _tensorflow_histogram(codes, weights, length):
    import tensorflow as tf

    return tf.raw_ops.DenseBincount(input=codes, size=length, weights=weights)


def _jax_rows(table, codes):
    import jax.numpy as jnp

    return jnp.take(table, codes, axis=0, mode="clip")


def _jax_histogram(codes, weights, length):
    import jax.numpy as jnp

    return jnp.zeros((length,), weights.dtype).at[codes].add(weights, mode="promise_in_bounds")


def _torch_rows(table, codes):
    return table.index_select(0, codes)


def _torch_histogram(codes, weights, length):
    import torch

    if codes.device.type == "cpu":
        return torch.bincount(codes, weights, minlength=length)
    # `bincount` waits for the device to learn the largest code.
    return torch.zeros(length, dtype=weights.dtype, device=codes.device).index_add_(0, codes, weights)


_BACKEND = {
    "tensorflow": (_tensorflow_rows, _tensorflow_histogram),
    "jax": (_jax_rows, _jax_histogram),
    "torch": (_torch_rows, _torch_histogram),
}
