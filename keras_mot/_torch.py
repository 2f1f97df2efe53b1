"""Element-wise work on the PyTorch backend in as few passes over memory as it takes.

Eager PyTorch runs each operation by itself, and its kernels for truth values are not vectorised: what XLA and
TensorFlow fuse into one pass costs ten there.
"""

import functools
import math

import numpy as np


@functools.cache
def _functions():
    import torch

    class Rounded(torch.autograd.Function):
        """Numbers that are rounded already, with the gradient of what they stand for."""

        @staticmethod
        def forward(ctx, weight, rounded):
            return rounded

        @staticmethod
        def backward(ctx, gradient):
            return gradient, None

    class Clipped(torch.autograd.Function):
        """The same, with no gradient outside of [low, high]."""

        @staticmethod
        def forward(ctx, inputs, rounded, low, high):
            ctx.save_for_backward(inputs)
            ctx.limits = low, high
            return rounded

        @staticmethod
        def backward(ctx, gradient):
            (inputs,) = ctx.saved_tensors
            # Its kernel passes nothing at the limits themselves.
            limits = (float(np.nextafter(np.float32(end), np.float32(side) * np.inf)) for end, side in ctx.limits)
            return torch.ops.aten.hardtanh_backward(gradient, inputs, *limits), None, None, None

    bits_of = {2: torch.int16, 4: torch.int32, 8: torch.int64}

    def kept(values, mask):
        """Floats as bits, and all of these or none: unlike a product, it makes no number out of infinity."""
        kind = bits_of[values.element_size()]
        bits = mask.view(dtype=torch.int8).neg().to(kind)  # -1 is all ones, and so are its wider forms
        return bits.bitwise_and_(values.contiguous().view(dtype=kind)).view(dtype=values.dtype)

    class Masked(torch.autograd.Function):
        """Numbers where a mask is true; the gradient likewise."""

        @staticmethod
        def forward(ctx, weight, mask):
            ctx.save_for_backward(mask)
            return kept(weight, mask)

        @staticmethod
        def backward(ctx, gradient):
            (mask,) = ctx.saved_tensors
            return kept(gradient, mask), None

    return torch, Rounded, Clipped, Masked


def masked(weight, mask):
    """`weight` where a tensor of truth values is true, and zero elsewhere, whatever it holds there."""
    return _functions()[3].apply(weight, mask)


def extremes(values):
    """The least and the greatest of all values: two Python floats."""
    return tuple(float(extreme) for extreme in _functions()[0].aminmax(values))


def extremes_of_rows(rows):
    """The least and the greatest value of each row, as a tensor of shape (2, rows), in one pass over memory."""
    torch = _functions()[0]
    return torch.stack(tuple(torch.aminmax(rows, dim=1)))


def rounded_weight(weight, value, scale, limit):
    """`value` rounded to multiples of `scale`, up to `limit` times (or `None`), with the gradient of `weight`."""
    torch, function, *_ = _functions()
    with torch.no_grad():
        rounded = (value / scale).round_()
        if limit is not None:
            rounded.clamp_(-limit, limit)
        rounded = rounded.mul_(scale).to(weight.dtype)
    return function.apply(weight, rounded)


def rounded_activations(inputs, low, high, scale):
    """Inputs on the CPU rounded to low, low + scale, ..., high.

    Args:
        inputs: float32 tensor.
        low: the least number, a multiple of `scale`.
        high: the greatest number.
        scale: the distance of two numbers.
    """
    torch, _, function, _ = _functions()
    with torch.no_grad():
        inverse = 1.0 / scale
        half = 0.5 - math.floor(-low * inverse + 0.5)
        rounded = inputs.clamp(low, high).sub_(low).mul_(inverse).add_(half).floor_().mul_(scale)
    return function.apply(inputs, rounded, (low, -1.0), (high, 1.0))
