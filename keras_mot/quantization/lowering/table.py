"""Which function breaks an operation down into steps: one row for each class of layers, or kind of operation.

A function takes the `Lowering`, the operation, and by their names those arguments of the operation's call that its
result depends on; it calls the steps, and returns their results, or `None` where the operation has to stay as it is. A
call with an argument that it has no parameter for stays as it is, too.
"""

import functools
import inspect
from collections.abc import Callable
from typing import Any

import keras
from keras import layers

from keras_mot._keras import operation_class, own_name
from keras_mot._messages import describe
from keras_mot.graph.arguments import are_the_first
from keras_mot.graph.functional import is_a
from keras_mot.graph.kinds import kind_of
from keras_mot.layers.transformed import plain_class
from keras_mot.quantization.lowering import (
    activations,
    affine,
    attention,
    categories,
    merges,
    normalization,
    picking,
    products,
    recurrent,
    volumes,
    weighted,
    wrappers,
)

_LAYERS = {
    layers.SeparableConv1D: weighted.separable,
    layers.SeparableConv2D: weighted.separable,
    layers.Conv1D: weighted.with_activation,
    layers.Conv2D: weighted.with_activation,
    layers.Conv3D: volumes.convolution,
    layers.DepthwiseConv1D: weighted.with_activation,
    layers.DepthwiseConv2D: weighted.with_activation,
    layers.Conv1DTranspose: weighted.with_activation,
    layers.Conv2DTranspose: weighted.with_activation,
    layers.Dense: weighted.dense,
    layers.EinsumDense: attention.einsum_dense,
    layers.MultiHeadAttention: attention.multi_head,
    layers.GroupQueryAttention: attention.multi_head,
    layers.Attention: attention.attention,
    layers.AdditiveAttention: attention.additive_attention,
    layers.Softmax: attention.softmax,
    layers.RNN: recurrent.unroll,
    layers.SimpleRNN: recurrent.unroll,
    layers.GRU: recurrent.unroll,
    layers.LSTM: recurrent.unroll,
    layers.Bidirectional: recurrent.unroll_bidirectional,
    layers.TimeDistributed: wrappers.distribute,
    layers.BatchNormalization: affine.batch_norm,
    layers.Normalization: affine.normalization,
    layers.Rescaling: affine.rescaling,
    layers.MaxPooling3D: volumes.max_pooling,
    layers.AveragePooling3D: volumes.average_pooling,
    layers.GlobalAveragePooling3D: volumes.global_average_pooling,
    layers.GlobalMaxPooling3D: volumes.global_max_pooling,
    layers.ZeroPadding3D: volumes.padding,
    layers.Cropping3D: volumes.cropping,
    layers.UpSampling3D: volumes.up_sampling,
    layers.LayerNormalization: normalization.layer_normalization,
    layers.GroupNormalization: normalization.group_normalization,
    layers.RMSNormalization: normalization.rms_normalization,
    layers.UnitNormalization: normalization.unit_normalization,
    layers.CategoryEncoding: categories.one_hot,
    layers.Average: merges.average,
    layers.Add: merges.add,
    layers.Multiply: merges.multiply,
    layers.Maximum: merges.chain,
    layers.Minimum: merges.chain,
    operation_class("Softmax"): attention.softmax,
    operation_class("LogSoftmax"): attention.log_softmax,
    operation_class("DotProductAttention"): attention.dot_product,
    operation_class("LayerNorm"): normalization.layer_norm,
    operation_class("RMSNorm"): normalization.rms_norm,
    operation_class("Normalize"): normalization.normalize,
    operation_class("Moments"): normalization.moments,
    operation_class("Einsum"): products.einsum,
    operation_class("FFT2"): products.fourier,
    operation_class("ExtractPatches"): products.patches,
    operation_class("TakeAlongAxis"): picking.take_along_axis,
}
# The layers within one that are broken down by themselves, and may have settings of their own.
_PARTS = {
    layers.MultiHeadAttention: attention.projections,
    layers.GroupQueryAttention: attention.projections,
    layers.Bidirectional: lambda layer: [layer.forward_layer, layer.backward_layer],
    layers.TimeDistributed: wrappers.distributed,
}
# Names of kinds (`keras_mot.graph.kinds.Kind.name`) of layers and operations alike.
_KINDS = {
    "add": affine.add,
    "subtract": affine.subtract,
    "multiply": affine.multiply,
    "divide": affine.divide,
    "prelu": activations.prelu,
    "square": merges.square,
    "power": merges.power,
    "matmul": merges.matmul,
    "glu": merges.glu,
    "where": attention.where,
    "negative": merges.negative,
    "silu": activations.silu,
    "hard_sigmoid": activations.hard_sigmoid,
    "hard_silu": activations.hard_silu,
    "hard_tanh": activations.hard_tanh,
    "relu_form": activations.relu_form,
}


def register_lowering(layer_class: type, function: Callable) -> type:
    """Declares how a layer class is broken down into steps that integer runtimes have kernels for.

    Args:
        layer_class: a subclass of `keras.layers.Layer`. Its subclasses are included if they compute as it does.
        function: function of (lowering, layer, **arguments), where `arguments` are those of the layer's call by their
            names, `inputs` for example. It returns what the layer would: the results of steps, each made by
            `lowering.make(layer, part, build)` and given its weights by `lowering.move(source, target, function)`; or
            `None` where the layer has to stay as it is.

    Returns:
        `layer_class`.

    Raises:
        TypeError: if `layer_class` is no class of layers, or `function` no function.

    Example:

    ```python
    def scaled_dense(lowering, layer, inputs):
        dense = lowering.make(layer, "dense", lambda: keras.layers.Dense(layer.units, use_bias=False, name=layer.name))
        outputs = dense(inputs)
        lowering.move(layer.kernel, dense.kernel)
        return outputs * layer.factor

    register_lowering(ScaledDense, scaled_dense)
    ```
    """
    if not (isinstance(layer_class, type) and issubclass(layer_class, keras.layers.Layer)):
        raise TypeError(
            f"`layer_class` should be a subclass of `keras.layers.Layer`; received {describe(layer_class)}."
        )
    if not callable(function):
        raise TypeError(f"`function` should be a function of (lowering, layer, inputs); received {describe(function)}.")
    _LAYERS[layer_class] = function
    return layer_class


def lowering_of(operation: Any) -> Callable | None:
    """The function that breaks an operation down, or `None` for one that has no steps."""
    for known in plain_class(operation).__mro__:
        if known in _LAYERS and is_a(operation, known):
            return _LAYERS[known]
    kind = kind_of(operation)
    if kind is None:
        return None
    return _by_kind(kind.steps) if kind.steps is not None else _KINDS.get(kind.name)


def is_own_lowering(operation: Any) -> bool:
    """Whether an operation is of a user's class that `register_lowering` was told of."""
    known = (each for each in plain_class(operation).__mro__ if each in _LAYERS and is_a(operation, each))
    return next((own_name(each) is None for each in known), False)


def parts_of(operation: Any) -> list[keras.layers.Layer]:
    """The layers within an operation that are broken down by themselves, and may have settings of their own."""
    for known in plain_class(operation).__mro__:
        if known in _PARTS and is_a(operation, known):
            return _PARTS[known](operation)
    return []


@functools.cache
def _by_kind(steps):
    """The function of the table that a `Kind.steps` comes to, which takes no `Lowering`."""

    def function(lowering, operation, **arguments):
        if not are_the_first(operation, arguments):  # by their places, others would be taken for them
            return None
        try:
            inspect.signature(steps).bind(operation, *arguments.values())
        except TypeError:  # the call has an argument more
            return None
        return steps(operation, *arguments.values())

    return function
