"""How the kernel of a layer is read as (positions..., inputs, outputs), and which layers stand for a chain of kernels.

One function for each class of layers. Whatever else a layer does (bias, activation) is done by the last of the chain,
which keeps its name; the others are called like it, with a number.
"""

import dataclasses
import inspect
import string
from collections.abc import Callable

import keras
import numpy as np
from keras import layers

from keras_mot._arrays import numpy_value
from keras_mot.graph.flat_copy import without_random_numbers
from keras_mot.graph.functional import is_a, keras_class
from keras_mot.layers.own_weights import MERGE_LORA
from keras_mot.low_rank.decompositions import Factor


@dataclasses.dataclass(frozen=True, eq=False)
class Kernel:
    """The kernel of a layer.

    Attributes:
        values: array (positions..., inputs, outputs), float64.
        variable: where the layer holds it.
        made: function from a list of `Factor`s to a list of (a new layer, dictionary of the values of its kernels).
    """

    values: np.ndarray
    variable: keras.Variable
    made: Callable[[list[Factor]], list]


def kernel_of(layer: keras.layers.Layer) -> Kernel | str:
    """The `Kernel` of a layer, or why there is none."""
    if getattr(layer, "quantization_mode", None) is not None:
        return "Keras has quantized it: give the float model"
    if getattr(layer, "lora_enabled", False):
        return MERGE_LORA
    found = next((row for row in _ROWS if is_a(layer, row[0])), None)
    if found is not None:
        return found[1](layer)
    return next(
        (why for cls, why in _REFUSED if isinstance(layer, cls)), f"there is no rule for {type(layer).__name__}"
    )


def chain(layer: keras.layers.Layer, kernel: Kernel, factors: list[Factor]) -> Callable:
    """A function from symbolic inputs to outputs, by new layers for a chain of kernels in the place of a layer.

    Args:
        layer: the layer.
        kernel: its `Kernel`.
        factors: the chain.
    """
    made = kernel.made(factors)

    def call(inputs):
        for new, values in made:
            with without_random_numbers(new):
                inputs = new(inputs)
            for name, value in values.items():
                getattr(new, name).assign(np.reshape(value, getattr(new, name).shape))
        own = getattr(layer, "bias", None)
        if own is not None:
            made[-1][0].bias.assign(numpy_value(own))
        return inputs

    return call


def _dense(layer):
    def made(factors):
        return [
            (_like(layer, place, len(factors), units=factor.kernel.shape[-1]), {"kernel": factor.kernel})
            for place, factor in enumerate(factors)
        ]

    return Kernel(_floats(layer.kernel), layer.kernel, made)


def _einsum_dense(layer):
    left, output = layer.equation.replace(" ", "").split("->")
    source, letters = left.split(",")
    inputs = [letter for letter in letters if letter not in output]
    outputs = [letter for letter in letters if letter in output]
    if any(letter in source for letter in outputs) or not inputs or not outputs or "." in letters:
        return "its kernel is a matrix of its own for each position"
    order = [letters.index(letter) for letter in (*inputs, *outputs)]
    values = _floats(layer.kernel).transpose(order)
    sizes = dict(zip(letters, layer.kernel.shape, strict=True))
    matrix = values.reshape(int(np.prod([sizes[letter] for letter in inputs])), -1)
    rank = next(letter for letter in string.ascii_letters if letter not in layer.equation)
    # The reduced channel stands where the first of the summed letters did.
    between = "".join(rank if letter == inputs[0] else letter for letter in source if letter not in inputs[1:])

    def made(factors):
        first, second = (factor.kernel for factor in factors)
        size = first.shape[-1]
        shape = [size if letter == rank else None for letter in between.replace("...", "")]
        shape = shape if "..." in between else shape[1:]
        reduce = f"{source},{''.join(inputs)}{rank}->{between}"
        expand = f"{between},{rank}{''.join(outputs)}->{output}"
        return [
            (_like(layer, 0, 2, equation=reduce, output_shape=shape, bias_axes=None), {"kernel": first}),
            (_like(layer, 1, 2, equation=expand), {"kernel": second}),
        ]

    return Kernel(matrix, layer.kernel, made)


def _conv(layer):
    if layer.groups > 1:
        return "a convolution in groups has a kernel for each"
    return Kernel(_floats(layer.kernel), layer.kernel, lambda factors: _convolutions(layer, factors, transposed=False))


def _conv_transpose(layer):
    kernel = np.swapaxes(_floats(layer.kernel), -1, -2)
    return Kernel(kernel, layer.kernel, lambda factors: _convolutions(layer, factors, transposed=True))


def _convolutions(layer, factors, transposed):
    """The layers for a chain: what spans an axis has the stride, dilation and padding along it."""
    rank, made = len(layer.kernel_size), []
    for place, factor in enumerate(factors):
        spans = [axis in factor.spans for axis in range(rank)]
        changes = {
            "filters": factor.kernel.shape[-1],
            "kernel_size": factor.kernel.shape[:rank],
            "strides": [stride if own else 1 for stride, own in zip(layer.strides, spans, strict=True)],
            "dilation_rate": [rate if own else 1 for rate, own in zip(layer.dilation_rate, spans, strict=True)],
        }
        value = factor.kernel
        if transposed:
            value = np.swapaxes(value, -1, -2)
            padding = layer.output_padding
            padding = (padding,) * rank if isinstance(padding, int) else padding
            if padding is not None:
                changes["output_padding"] = [each if own else 0 for each, own in zip(padding, spans, strict=True)]
        if transposed and not any(spans):  # a product: an ordinary convolution, which every runtime has
            cls = (layers.Conv1D, layers.Conv2D, layers.Conv3D)[rank - 1]
            changes = {**changes, "output_padding": None, "padding": "valid", "groups": 1}
            made.append((_like(layer, place, len(factors), cls, **changes), {"kernel": factor.kernel}))
            continue
        made.append((_like(layer, place, len(factors), **changes), {"kernel": value}))
    return made


def _separable(layer):
    pointwise = _floats(layer.pointwise_kernel)

    def made(factors):
        first, second = (factor.kernel for factor in factors)
        cls = layers.Conv1D if is_a(layer, layers.SeparableConv1D) else layers.Conv2D
        ones = [1] * len(layer.kernel_size)
        reduce = _like(layer, 0, 2, filters=first.shape[-1])
        config = {"filters": layer.filters, "kernel_size": ones, "strides": ones, "dilation_rate": ones}
        expand = _like(layer, 1, 2, cls, padding="valid", groups=1, **config)
        depthwise = numpy_value(layer.depthwise_kernel)
        return [
            (reduce, {"depthwise_kernel": depthwise, "pointwise_kernel": first}),
            (expand, {"kernel": second}),
        ]

    return Kernel(pointwise, layer.pointwise_kernel, made)


def _embedding(layer):
    def made(factors):
        first, second = (factor.kernel for factor in factors)
        reduce = _like(layer, 0, 2, output_dim=first.shape[-1])
        expand = layers.Dense(
            second.shape[-1], use_bias=False, name=layer.name, dtype=layer.dtype_policy, trainable=layer.trainable
        )
        return [(reduce, {"embeddings": first}), (expand, {"kernel": second})]

    return Kernel(_floats(layer.embeddings), layer.embeddings, made)


def _like(layer, place, count, cls=None, **changes):
    """A layer like another, for a place in a chain: the last has the name, bias and activation of that one.

    What was asked of the kernel while it is trained ends, since no variable holds it any more.
    """
    own = keras_class(layer)
    cls = own if cls is None else cls
    last = place == count - 1
    known = {*inspect.signature(cls.__init__).parameters, "name", "trainable", "dtype"}
    config = {name: value for name, value in own.get_config(layer).items() if name in known} | changes
    for weight in ("kernel", "pointwise", "embeddings"):
        for what in ("regularizer", "constraint"):
            if f"{weight}_{what}" in config:
                config[f"{weight}_{what}"] = None
    if not last:
        plain = {"use_bias": False, "activation": None, "activity_regularizer": None}
        config |= {name: value for name, value in plain.items() if name in config}
        config["name"] = f"{layer.name}_factor{place + 1}"
    made = cls.from_config({name: value for name, value in config.items() if name in known})
    if last:
        made.activity_regularizer = layer.activity_regularizer
    return made


def _floats(variable):
    return np.asarray(numpy_value(variable), "float64")


_ROWS = (
    (layers.Dense, _dense),
    (layers.EinsumDense, _einsum_dense),
    ((layers.Conv1D, layers.Conv2D, layers.Conv3D), _conv),
    ((layers.Conv1DTranspose, layers.Conv2DTranspose, layers.Conv3DTranspose), _conv_transpose),
    ((layers.SeparableConv1D, layers.SeparableConv2D), _separable),
    (layers.Embedding, _embedding),
)
_REFUSED = (
    ((layers.DepthwiseConv1D, layers.DepthwiseConv2D), "depthwise: each channel has a small kernel of its own"),
    (layers.RNN, "recurrent: its kernels are read within the loop over time"),
    (layers.MultiHeadAttention, "its projections are read within the layer"),
)
