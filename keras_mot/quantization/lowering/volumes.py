"""Breaks down what computes on volumes, which integer kernels know nothing of, into the same on images."""

import math

from keras import layers, ops

from keras_mot.quantization.lowering.weighted import with_activation


def convolution(lowering, layer, inputs):
    """`Conv3D` as a convolution of images: the slices that a result is made of are channels of one image."""
    if not _has_sizes(layer, inputs) or layer.groups != 1:
        return with_activation(lowering, layer, inputs)
    (size, *window), (stride, *strides), (rate, *rates) = layer.kernel_size, layer.strides, layer.dilation_rate
    depth, rows, columns, channels = inputs.shape[1:]
    if layer.padding == "same":
        missing = max((math.ceil(depth / stride) - 1) * stride + (size - 1) * rate + 1 - depth, 0)
        inputs = _padded(inputs, [(missing // 2, missing - missing // 2), (0, 0), (0, 0)])
    count = (inputs.shape[1] - (size - 1) * rate - 1) // stride + 1
    slices = [inputs[:, rate * k : rate * k + (count - 1) * stride + 1 : stride] for k in range(size)]
    images = ops.concatenate(slices, axis=-1) if size > 1 else slices[0]
    images = ops.reshape(images, (-1, rows, columns, size * channels))
    plain = lowering.make(
        layer,
        "images",
        lambda: layers.Conv2D(
            layer.filters,
            tuple(window),
            strides=tuple(strides),
            padding=layer.padding,
            dilation_rate=tuple(rates),
            activation=layer.activation,
            use_bias=layer.use_bias,
            trainable=layer.trainable,
            name=layer.name,
        ),
    )
    if not plain.built:
        plain.build(images.shape)
    lowering.move(layer.kernel, plain.kernel, _as_kernel_of_images)
    if layer.use_bias:
        lowering.move(layer.bias, plain.bias)
    outputs = lowering.steps(plain, images)
    return ops.reshape(outputs, (-1, count, *outputs.shape[1:]))


def _as_kernel_of_images(kernel):
    size, rows, columns, channels, filters = kernel.shape
    return kernel.transpose(1, 2, 0, 3, 4).reshape(rows, columns, size * channels, filters)


def max_pooling(lowering, layer, inputs):
    """`MaxPooling3D` within slices, and then over them; or `None`."""
    return _pooled(lowering, layer, inputs, layers.MaxPooling2D)


def average_pooling(lowering, layer, inputs):
    """`AveragePooling3D` within slices, and then over them; or `None`."""
    return _pooled(lowering, layer, inputs, layers.AveragePooling2D)


def _pooled(lowering, layer, inputs, kind):
    if not _has_sizes(layer, inputs):
        return None
    (size, *window), (stride, *strides), depth = layer.pool_size, layer.strides, inputs.shape[1]
    within = lowering.make(
        layer, "within", lambda: kind(tuple(window), tuple(strides), layer.padding, name=f"{layer.name}_within")
    )
    over = lowering.make(layer, "over", lambda: kind((size, 1), (stride, 1), layer.padding, name=layer.name))
    images = within(ops.reshape(inputs, (-1, *inputs.shape[2:])))
    _, rows, columns, channels = images.shape
    outputs = over(ops.reshape(images, (-1, depth, rows * columns, channels)))
    return ops.reshape(outputs, (-1, outputs.shape[1], rows, columns, channels))


def global_average_pooling(lowering, layer, inputs):
    """`GlobalAveragePooling3D` of a sequence of all positions, or `None`."""
    return _pooled_to_one(lowering, layer, inputs, layers.GlobalAveragePooling1D)


def global_max_pooling(lowering, layer, inputs):
    """`GlobalMaxPooling3D` of a sequence of all positions, or `None`."""
    return _pooled_to_one(lowering, layer, inputs, layers.GlobalMaxPooling1D)


def _pooled_to_one(lowering, layer, inputs, kind):
    if not _has_sizes(layer, inputs):
        return None
    step, channels = lowering.make(layer, "positions", lambda: kind(name=layer.name)), inputs.shape[-1]
    outputs = step(ops.reshape(inputs, (-1, math.prod(inputs.shape[1:-1]), channels)))
    return ops.reshape(outputs, (-1, 1, 1, 1, channels)) if layer.keepdims else outputs


def padding(lowering, layer, inputs):
    """`ZeroPadding3D` as padding of an array, or `None`."""
    return _padded(inputs, layer.padding) if layer.data_format == "channels_last" else None


def cropping(lowering, layer, inputs):
    """`Cropping3D` as a slice, or `None`."""
    if not _has_sizes(layer, inputs):
        return None
    sides = zip(layer.cropping, inputs.shape[1:4], strict=True)
    return inputs[(slice(None), *(slice(before, size - after) for (before, after), size in sides))]


def up_sampling(lowering, layer, inputs):
    """`UpSampling3D`, one axis after the other, or `None`."""
    if not _has_sizes(layer, inputs):
        return None
    shape = list(inputs.shape)
    for axis, times in enumerate(layer.size, 1):
        rows = ops.reshape(inputs, (-1, shape[axis], math.prod(shape[axis + 1 :])))
        shape[axis] *= times
        inputs = ops.reshape(ops.repeat(rows, times, axis=1), (-1, *shape[1:]))
    return inputs


def _has_sizes(layer, inputs):
    return layer.data_format == "channels_last" and None not in inputs.shape[1:]


def _padded(inputs, sides):
    if not any(map(any, sides)):
        return inputs
    return ops.pad(inputs, [(0, 0), *map(tuple, sides), (0, 0)])
