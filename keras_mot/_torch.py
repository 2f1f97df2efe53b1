"""Element-wise work on the PyTorch backend in as few passes over memory as it takes.

Eager PyTorch runs each operation by itself, and its kernels for truth values are not vectorised: what XLA and
TensorFlow fuse into one pass costs ten there.
"""

import functools

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

    class Masked(torch.autograd.Function):
        """Floats as bits, and all of these or none: unlike a product, it makes no number out of infinity."""

        @staticmethod
        def forward(ctx, weight, mask):
            kind = bits_of[weight.element_size()]
            bits = mask.view(dtype=torch.uint8).to(kind).neg_()
            ctx.save_for_backward(bits)
            return (weight.view(dtype=kind) & bits).view(dtype=weight.dtype)

        @staticmethod
        def backward(ctx, gradient):
            (bits,) = ctx.saved_tensors
            return (gradient.contiguous().view(dtype=bits.dtype) & bits).view(dtype=gradient.dtype), None

    return torch, Rounded, Clipped, Masked


def masked(weight, mask):
    """`weight` where a tensor of truth values is true, and zero elsewhere, whatever it holds there."""
    return _functions()[3].apply(weight, mask)


def extremes(values):
    """The least and the greatest of all values."""
    return _functions()[0].aminmax(values)


def rounded_weight(weight, value, scale, limit):
    """`value` rounded to multiples of `scale` up to `limit` times, with the gradient of `weight`."""
    torch, function, *_ = _functions()
    with torch.no_grad():
        rounded = (value / scale).round_().clamp_(-limit, limit).mul_(scale).to(weight.dtype)
    return function.apply(weight, rounded)


def rounded_activations(inputs, low, high, scale):
    """Inputs on the CPU rounded to low, low + scale, ..., high.

    Args:
        inputs: float32 tensor.
        low: scalar tensor, the least number, a multiple of `scale`.
        high: scalar tensor, the greatest number.
        scale: scalar tensor.
    """
    torch, _, function, _ = _functions()
    with torch.no_grad():
        inverse = 1.0 / scale
        half = 0.5 - torch.floor(-low * inverse + 0.5)
        rounded = inputs.clamp(low, high).sub_(low).mul_(inverse).add_(half).floor_().mul_(scale)
    return function.apply(inputs, rounded, (low.item(), -1.0), (high.item(), 1.0))
