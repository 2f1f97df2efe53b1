"""What convolutions sum over: the inputs of each position as one row, the axes of the kernel in its own order."""

import numpy as np


def convolution_patches(
    inputs: np.ndarray,
    kernel_size: tuple[int, ...],
    strides: tuple[int, ...],
    dilation: tuple[int, ...],
    padding: str,
) -> np.ndarray:
    """The inputs that each output position of a convolution sees.

    Args:
        inputs: array of shape (samples, *positions, channels).
        kernel_size: lengths of the kernel along the axes of positions.
        strides: distances of neighbouring output positions.
        dilation: distances of neighbouring inputs that the kernel sees.
        padding: "valid", "same" or, of one axis, "causal".

    Returns:
        Array of shape (samples, *output positions, *kernel_size, channels), a view where nothing is padded.
    """
    borders = [
        _borders(padding, *each) for each in zip(inputs.shape[1:-1], kernel_size, strides, dilation, strict=True)
    ]
    padded = np.pad(inputs, [(0, 0), *borders, (0, 0)]) if any(map(any, borders)) else inputs
    return _windows(padded, kernel_size, strides, dilation)


def transposed_patches(
    inputs: np.ndarray,
    kernel_size: tuple[int, ...],
    strides: tuple[int, ...],
    dilation: tuple[int, ...],
    padding: str,
    lengths: tuple[int, ...],
    output_padding: tuple[int | None, ...],
) -> np.ndarray:
    """The inputs that each output position of a transposed convolution sees; zeros between them where it has strides.

    Args:
        inputs: array of shape (samples, *positions, channels).
        kernel_size: lengths of the kernel along the axes of positions.
        strides: distances of the outputs that neighbouring inputs are spread to.
        dilation: distances of the outputs that one input is spread to.
        padding: "valid" or "same".
        lengths: of the outputs along the axes of positions.
        output_padding: what the layer was told of these lengths, for each axis, or `None`.

    Returns:
        Array of shape (samples, *lengths, *kernel_size, channels).
    """
    spread = np.zeros(
        (len(inputs), *((n - 1) * s + 1 for n, s in zip(inputs.shape[1:-1], strides, strict=True)), inputs.shape[-1]),
        inputs.dtype,
    )
    spread[(slice(None), *(slice(None, None, stride) for stride in strides))] = inputs
    for axis, each in enumerate(zip(kernel_size, strides, dilation, lengths, output_padding, strict=True), 1):
        size, stride, rate, length, extra = each
        reach = (size - 1) * rate + 1
        left = _left_of_transposed(padding, reach, stride, extra)
        spread = _framed(spread, axis, left, length + reach - 1)
    windows = _windows(spread, kernel_size, (1,) * len(strides), dilation)
    # Spreading runs the other way: the first weight of a kernel sees the last input of a window.
    rank = len(kernel_size)
    return np.flip(windows, axis=tuple(range(1 + rank, 1 + 2 * rank)))


def _borders(padding, length, size, stride, rate):
    reach = (size - 1) * rate + 1
    if padding == "valid":
        return 0, 0
    if padding == "causal":
        return reach - 1, 0
    total = max((-(-length // stride) - 1) * stride + reach - length, 0)
    return total // 2, total - total // 2


def _left_of_transposed(padding, reach, stride, extra):
    """How many zeros stand before the first input, by the rule of `keras.ops.conv_transpose`."""
    if padding == "valid":
        return reach - 1
    total = stride + reach - 2 if extra is None else reach + reach % 2 - 2 + extra
    return min(total // 2 + total % 2, reach - 1)


def _framed(array, axis, left, length):
    """The array with so many zeros before it along an axis, cut or filled up with zeros to a length."""
    array = array[(slice(None),) * axis + (slice(0, length - left),)]
    borders = [(0, 0)] * array.ndim
    borders[axis] = (left, length - left - array.shape[axis])
    return np.pad(array, borders)


def _windows(array, kernel_size, strides, dilation):
    rank = len(kernel_size)
    reaches = tuple((size - 1) * rate + 1 for size, rate in zip(kernel_size, dilation, strict=True))
    windows = np.lib.stride_tricks.sliding_window_view(array, reaches, axis=tuple(range(1, 1 + rank)))
    steps = (*(slice(None, None, stride) for stride in strides), slice(None))
    windows = windows[(slice(None), *steps, *(slice(None, None, rate) for rate in dilation))]
    return np.moveaxis(windows, 1 + rank, -1)  # channels behind the axes of the kernel
