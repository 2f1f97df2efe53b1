"""Breaks down convolutions and dense layers: into two layers, onto vectors, or away from an activation."""

from keras import layers, ops

from keras_mot._keras import get_keras_mask
from keras_mot.graph.kinds import kind_of_function
from keras_mot.layers.copying import config_of


def with_activation(lowering, layer, inputs):
    """A layer whose activation no kernel has built in: the layer without it, and the activation."""
    kind = kind_of_function(layer.activation)
    name = "activation" if kind is None else kind.name
    if name in ("linear", *lowering.fused):
        return None
    plain = lowering.make(layer, "linear", lambda: type(layer).from_config({**config_of(layer), "activation": None}))
    outputs = plain(inputs)
    lowering.move_all(layer, plain)
    step = lowering.make(
        layer,
        "activation",
        lambda: layers.Activation(layer.activation, name=f"{layer.name}_{name}"),
    )
    return lowering.steps(step, outputs)


def dense(lowering, layer, inputs):
    """A dense layer on more than vectors: on a batch of all the vectors, where the bias is part of the product."""
    if len(inputs.shape) < 3 or None in inputs.shape[1:] or get_keras_mask(inputs) is not None:
        return with_activation(lowering, layer, inputs)  # which passes a mask on
    outputs = lowering.steps(layer, ops.reshape(inputs, (-1, inputs.shape[-1])))
    return ops.reshape(outputs, (-1, *inputs.shape[1:-1], outputs.shape[-1]))


def separable(lowering, layer, inputs):
    """A separable convolution as a depthwise one and one of single pixels, or `None`."""
    if layer.data_format != "channels_last" or layer.padding == "causal":
        return None
    rank = layer.rank
    kinds = (layers.DepthwiseConv1D, layers.Conv1D) if rank == 1 else (layers.DepthwiseConv2D, layers.Conv2D)
    depthwise = lowering.make(
        layer,
        "depthwise",
        lambda: kinds[0](
            layer.kernel_size,
            strides=layer.strides,
            padding=layer.padding,
            depth_multiplier=layer.depth_multiplier,
            dilation_rate=layer.dilation_rate,
            use_bias=False,
            trainable=layer.trainable,
            name=f"{layer.name}_depthwise",
        ),
    )
    pointwise = lowering.make(
        layer,
        "pointwise",
        lambda: kinds[1](
            layer.filters,
            1,
            use_bias=layer.use_bias,
            activation=layer.activation,
            trainable=layer.trainable,
            name=layer.name,
        ),
    )
    middle = depthwise(inputs)
    lowering.move(layer.depthwise_kernel, depthwise.kernel)
    if not pointwise.built:
        pointwise.build(middle.shape)
    lowering.move(layer.pointwise_kernel, pointwise.kernel)
    if layer.use_bias:
        lowering.move(layer.bias, pointwise.bias)
    return lowering.steps(pointwise, middle)
