"""The one table of transformable weights: which weights a layer class has, and what their axes mean.

The table is keyed by layer class and follows inheritance. A user's own layer joins by
`register_weights(MyLayer, ...)`, or by a method `transformable_weights()` (TFMOT's names
`get_prunable_weights()` and `get_clusterable_weights()` are understood too). There are no other allow-lists.
"""

import dataclasses
from collections.abc import Callable, Sequence

import keras

from keras_mot._keras import ConvLSTMCell, sublayers
from keras_mot._messages import describe


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
    """

    name: str
    axes: WeightAxes = MATRIX


def _depthwise_spec(name, spatial_rank):
    # Each output channel of a depthwise convolution sums over the positions of its own kernel.
    return WeightSpec(name, WeightAxes(inputs=tuple(range(spatial_rank)), outputs=(-2, -1)))


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
        weights = _as_specs(weights)
    _TABLE[layer_class] = weights
    return layer_class


def _as_specs(weights):
    specs = [WeightSpec(weight) if isinstance(weight, str) else weight for weight in weights]
    for spec in specs:
        if not isinstance(spec, WeightSpec):
            raise TypeError(f"Each weight must be a `WeightSpec` or an attribute name; received {describe(spec)}.")
    return specs


@dataclasses.dataclass(frozen=True, eq=False)
class OwnWeight:
    """A transformable variable of one layer: its key within the layer, the variable, its axes."""

    key: str
    variable: keras.Variable
    axes: WeightAxes


@dataclasses.dataclass(frozen=True)
class LeftAlone:
    """A variable or layer that no transform applies to, and why.

    Args:
        path: path of the layer or variable.
        reason: why it is left alone.
        unknown: whether the layer class is unknown to the table (and may deserve registration).
    """

    path: str
    reason: str
    unknown: bool = False


def is_whole_layer(layer):
    """Whether transforms of weights anywhere below `layer` run at `layer` itself."""
    return isinstance(layer, _WHOLE_LAYERS)


def has_weight_table(layer):
    """Whether the class of `layer` has an entry in the table or follows the protocol."""
    return _lookup(layer) is not None


def own_weights(layer):
    """The transformable weights that `layer` itself holds, not its sub-layers.

    Args:
        layer: a built layer.

    Returns:
        A pair of lists, of `OwnWeight` and of `LeftAlone`.
    """
    specs = _lookup(layer)
    if specs is None:
        return [], _explain_unlisted(layer)
    if getattr(layer, "lora_enabled", False):
        return [], [LeftAlone(layer.path, "LoRA is enabled: merge it into the weights first")]
    if getattr(layer, "quantization_mode", None) is not None:
        mode = layer.quantization_mode
        return [], [LeftAlone(layer.path, f"already quantized by Keras ({mode}): it has no float weight")]
    found = []
    for spec in specs(layer) if callable(specs) else specs:
        variable = getattr(layer, f"_{spec.name}", None)
        if not isinstance(variable, keras.Variable):
            variable = getattr(layer, spec.name, None)
        if isinstance(variable, keras.Variable):
            found.append(OwnWeight(spec.name, variable, spec.axes.normalized(len(variable.shape))))
    if found or not layer.trainable_variables:
        return found, []
    return [], [LeftAlone(layer.path, f"{type(layer).__name__} has none of the weights listed for its class")]


def _lookup(layer):
    for method in ("transformable_weights", "get_prunable_weights", "get_clusterable_weights"):
        if hasattr(layer, method):
            return lambda owner, method=method: _specs_from_protocol(owner, method)
    for layer_class in type(layer).__mro__:
        if layer_class in _TABLE:
            return _TABLE[layer_class]
    return None


def _specs_from_protocol(layer, method):
    """Reads the user's method: it may return specs, attribute names, variables or (name, variable) pairs."""
    specs = []
    for item in getattr(layer, method)():
        if isinstance(item, tuple):
            item = item[-1]
        if isinstance(item, keras.Variable):
            names = [name for name, value in vars(layer).items() if value is item]
            if not names:
                raise ValueError(
                    f"`{type(layer).__name__}.{method}()` returned the variable '{item.path}', which is not an "
                    "attribute of the layer. Return variables that the layer holds as attributes."
                )
            item = names[0].removeprefix("_")
        specs.append(item)
    return _as_specs(specs)


def _explain_unlisted(layer):
    below = {id(variable) for child in sublayers(layer) for variable in child.variables}
    own = [variable for variable in layer.trainable_variables if id(variable) not in below]
    if not own:
        return []
    for layer_class, reason in _LEFT_ALONE.items():
        if isinstance(layer, layer_class):
            return [LeftAlone(layer.path, reason)]
    name = type(layer).__name__
    reason = f"{name} is not in the table: use `keras_mot.layers.register_weights({name}, [...])`"
    return [LeftAlone(layer.path, reason, unknown=True)]
