"""The one table of transformable weights: which weights a layer class has, and what their axes mean.

The table is keyed by layer class and follows inheritance. A user's own layer joins by
`register_weights(MyLayer, ...)`, or by a method, see `own_weights.py`. There are no other allow-lists.
"""

import dataclasses
from collections.abc import Callable, Sequence

import keras

from keras_mot._keras import ConvLSTMCell
from keras_mot._messages import describe
from keras_mot.layers.activation_quantizer import ActivationQuantizer


@dataclasses.dataclass(frozen=True)
class WeightAxes:
    """What the axes of a weight mean: how a kernel is read as matrices of inputs by outputs.

    Args:
        inputs: axes over which one output value sums; negative numbers count from the last axis.
        outputs: axes that number the output channels. Axes in neither group are positions (the height and
            width of a convolution kernel).
    """

    inputs: tuple[int, ...]
    outputs: tuple[int, ...]

    def normalized(self, rank):
        """The same with non-negative axes, for a weight of `rank` dimensions."""
        if rank == 1:
            return WeightAxes(inputs=(), outputs=(0,))
        inputs, outputs = (tuple(axis % rank for axis in axes) for axes in (self.inputs, self.outputs))
        if set(inputs) & set(outputs):
            raise ValueError(f"Axes {inputs} and {outputs} overlap for a weight of rank {rank}.")
        return WeightAxes(inputs, outputs)


MATRIX = WeightAxes(inputs=(-2,), outputs=(-1,))
TRANSPOSED = WeightAxes(inputs=(-1,), outputs=(-2,))


@dataclasses.dataclass(frozen=True)
class WeightSpec:
    """One transformable weight of a layer.

    Args:
        name: the attribute that holds the variable, such as `"kernel"`.
        axes: a `WeightAxes`.
        depthwise: whether each channel has a filter of its own, as in depthwise convolutions. Pruning and clustering
            leave such weights alone unless they are asked for: they are few, and the model needs each of them.
    """

    name: str
    axes: WeightAxes = MATRIX
    depthwise: bool = False


def _depthwise_spec(name, spatial_rank):
    # Each output channel of a depthwise convolution sums over the positions of its own kernel.
    return WeightSpec(name, WeightAxes(inputs=tuple(range(spatial_rank)), outputs=(-2, -1)), depthwise=True)


def _einsum_dense_specs(layer):
    left, output = layer.equation.replace(" ", "").split("->")
    kernel = left.split(",")[1].replace("...", "")
    inputs = tuple(axis for axis, letter in enumerate(kernel) if letter not in output)
    outputs = tuple(axis for axis, letter in enumerate(kernel) if letter in output)
    return [WeightSpec("kernel", WeightAxes(inputs, outputs))]


_KERNEL = [WeightSpec("kernel")]
_TRANSPOSED_KERNEL = [WeightSpec("kernel", TRANSPOSED)]
_RECURRENT = [WeightSpec("kernel"), WeightSpec("recurrent_kernel")]

# A value is a list of `WeightSpec`, or a function from a layer to such a list.
_TABLE = {
    keras.layers.Dense: _KERNEL,
    keras.layers.EinsumDense: _einsum_dense_specs,
    keras.layers.Embedding: [WeightSpec("embeddings")],
    keras.layers.ReversibleEmbedding: [WeightSpec("embeddings"), WeightSpec("reverse_embeddings")],
    keras.layers.Conv1D: _KERNEL,
    keras.layers.Conv2D: _KERNEL,
    keras.layers.Conv3D: _KERNEL,
    keras.layers.Conv1DTranspose: _TRANSPOSED_KERNEL,
    keras.layers.Conv2DTranspose: _TRANSPOSED_KERNEL,
    keras.layers.Conv3DTranspose: _TRANSPOSED_KERNEL,
    keras.layers.DepthwiseConv1D: [_depthwise_spec("kernel", 1)],
    keras.layers.DepthwiseConv2D: [_depthwise_spec("kernel", 2)],
    keras.layers.SeparableConv1D: [_depthwise_spec("depthwise_kernel", 1), WeightSpec("pointwise_kernel")],
    keras.layers.SeparableConv2D: [_depthwise_spec("depthwise_kernel", 2), WeightSpec("pointwise_kernel")],
    keras.layers.SimpleRNNCell: _RECURRENT,
    keras.layers.LSTMCell: _RECURRENT,
    keras.layers.GRUCell: _RECURRENT,
    ConvLSTMCell: _RECURRENT,
}

# These layers call their sub-layers once per time step, or read their weights directly: the transforms run
# once for the whole call, at this layer, and not inside the loop.
_WHOLE_LAYERS = (keras.layers.RNN,)

# Weights of these layers are a few numbers per channel: left alone, with this reason in the report.
_LEFT_ALONE = {
    ActivationQuantizer: "ranges of activations",
    keras.layers.BatchNormalization: "normalization parameters",
    keras.layers.LayerNormalization: "normalization parameters",
    keras.layers.GroupNormalization: "normalization parameters",
    keras.layers.RMSNormalization: "normalization parameters",
    keras.layers.PReLU: "activation slopes",
    keras.layers.Attention: "attention scale",
    keras.layers.SpectralNormalization: "only the power iteration's vector",
}


def register_weights(layer_class: type, weights: Sequence[str | WeightSpec] | Callable) -> type:
    """Declares which weights of a user's own layer class can be transformed.

    Args:
        layer_class: a subclass of `keras.layers.Layer`; its subclasses are included.
        weights: list of `WeightSpec`, or of attribute names (whose last two axes are then inputs and
            outputs), or a function from a layer to such a list.

    Returns:
        `layer_class`.

    Raises:
        TypeError: if `layer_class` is not a layer class or `weights` is of another type.

    Example:

    ```python
    register_weights(LowRankDense, ["left", "right"])
    ```
    """
    if not (isinstance(layer_class, type) and issubclass(layer_class, keras.layers.Layer)):
        raise TypeError(f"`layer_class` must be a subclass of `keras.layers.Layer`; received {describe(layer_class)}.")
    if not callable(weights):
        weights = as_specs(weights)
    _TABLE[layer_class] = weights
    return layer_class


def as_specs(weights):
    """The list of `WeightSpec`s that a user's list of these, or of attribute names, stands for."""
    specs = [WeightSpec(weight) if isinstance(weight, str) else weight for weight in weights]
    for spec in specs:
        if not isinstance(spec, WeightSpec):
            raise TypeError(f"Each weight must be a `WeightSpec` or an attribute name; received {describe(spec)}.")
    return specs


def is_whole_layer(layer):
    """Whether transforms of weights anywhere below `layer` run at `layer` itself."""
    return isinstance(layer, _WHOLE_LAYERS)


def specs_of(layer):
    """The list of `WeightSpec` that the table has for a layer's class, or `None` for a class that it does not know."""
    entry = _entry(_TABLE, layer)
    return entry(layer) if callable(entry) else entry


def reason_to_leave(layer):
    """Why the weights of a layer's class are left alone, or `None` for classes that the table says nothing of."""
    return _entry(_LEFT_ALONE, layer)


def is_only_depthwise(layer):
    """Whether all weights that the table lists for a layer, built or not, are depthwise."""
    entry = _entry(_TABLE, layer)
    return isinstance(entry, list) and all(spec.depthwise for spec in entry)


def _entry(table, layer):
    return next((table[layer_class] for layer_class in type(layer).__mro__ if layer_class in table), None)
