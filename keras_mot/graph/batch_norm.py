"""Folding batch normalization into the convolution or dense layer before it, as converters to runtimes do.

After training, batch normalization multiplies each channel by a constant and adds one. A layer that is linear in its
kernel can take both over: kernel' = kernel * s and bias' = (bias - mean) * s + beta, with s = gamma / sqrt(variance +
epsilon) (Jacob et al., 2018, "Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only
Inference", arXiv:1712.05877, section 3.2).
"""

import dataclasses
from collections.abc import Callable

import keras
import numpy as np
from keras import ops

from keras_mot._keras import Functional, Sequential, calls_anywhere, flatten_layers, own_flag, set_own_flag
from keras_mot._messages import describe
from keras_mot.graph.functional import as_functional, keras_class
from keras_mot.graph.kinds import WEIGHTED, has_role, is_kind, kernel_of
from keras_mot.graph.model_graph import Graph
from keras_mot.graph.names import name_apart
from keras_mot.graph.origins import Origins, copy_with_origins
from keras_mot.layers import find_weights, is_transformed
from keras_mot.layers.copying import new_input


@dataclasses.dataclass(frozen=True, eq=False)
class FoldableBatchNorm:
    """A batch normalization that the layer before it can take over.

    Args:
        linear: the convolution or dense layer.
        batch_norm: the `BatchNormalization` that is its only reader.
    """

    linear: keras.layers.Layer
    batch_norm: keras.layers.BatchNormalization

    def factors(self) -> np.ndarray:
        """What it multiplies the output channels by: float64 array."""
        return scale_and_offset(self.batch_norm)[0]


def find_foldable_batch_norms(model: keras.Model, consumed: bool = False) -> list[FoldableBatchNorm]:
    """The batch normalizations of a model, and of the models nested in it, that `fold_batch_norm` would fold.

    Args:
        model: a built model. What is neither sequential nor functional has no graph to be read, and none are found.
        consumed: whether its layers belong to it alone, so that what they were called on before does not count.

    Returns:
        List of `FoldableBatchNorm`, in the order of the layers.
    """
    functional = as_functional(model)
    if functional is None:
        return []
    graph, found = Graph(functional), []
    for operation in functional.operations:
        if as_functional(operation) is not None:
            found += find_foldable_batch_norms(operation, consumed)
        elif is_kind(operation, "batch_normalization"):
            linear = _foldable_producer(graph, operation, consumed)
            if linear is not None:
                found.append(FoldableBatchNorm(linear, operation))
    return found


def _foldable_producer(graph, batch_norm, consumed):
    """The layer that can take `batch_norm` over, or `None`."""
    count = (lambda layer: len(graph.calls_of(layer))) if consumed else (lambda layer: len(calls_anywhere(layer)))
    calls = graph.calls_of(batch_norm)
    if len(calls) != 1 or count(batch_norm) != 1 or is_transformed(batch_norm):
        return None
    tensor = calls[0].inputs[0]  # a mask may follow, which only training looks at
    producer = graph.producer(tensor)
    if producer is None or graph.sole_reader(tensor) is None:
        return None
    linear = producer.operation
    if not _takes_over(linear) or count(linear) != 1:
        return None
    channels_first = getattr(linear, "data_format", "channels_last") == "channels_first"
    return linear if batch_norm.axis % len(tensor.shape) == (1 if channels_first else len(tensor.shape) - 1) else None


def _takes_over(layer):
    """Whether a layer is one of Keras's own that computes a sum with its kernel, a bias perhaps, and nothing else."""
    if not has_role(layer, WEIGHTED) or keras_class(layer) is None or getattr(layer, "lora_enabled", False):
        return False
    return layer.activation is keras.activations.linear


def fold_batch_norm(model: keras.Model) -> keras.Model:
    """A copy of a trained model without those batch normalizations that the layer before them can take over.

    Converters to LiteRT and other runtimes fold them when the model is exported, and scale each channel of the kernel:
    16 shared values of a clustered kernel then become 16 for every channel. Fold before clustering, and
    what is trained is what is shipped. Folded layers have no batch statistics any more: train on with a low learning
    rate.

    Args:
        model: a built sequential or functional model, without weight transforms. Models nested in it are folded too.

    Returns:
        A model of the same kind, not compiled, that shares no variables with `model`. It computes what `model`
        does in inference, up to rounding. Layers keep their names; folded ones have a bias.

    Raises:
        TypeError: if `model` is not a Keras model.
        ValueError: if it is not built, is neither sequential nor functional, or carries weight transforms.

    Example:

    ```python
    folded = fold_batch_norm(model)
    clustered = keras_mot.clustering.cluster_weights(folded, 32)
    ```
    """
    return fold_with_origins(model)[0]


def fold_with_origins(
    model: keras.Model,
    wanted: Callable[[keras.layers.Layer, keras.layers.BatchNormalization], bool] | None = None,
    consumed: bool = False,
) -> tuple[keras.Model, dict[keras.layers.Layer, FoldableBatchNorm], Origins]:
    """What `fold_batch_norm` returns, what it has folded, and where its operations come from.

    Args:
        model: as of `fold_batch_norm`.
        wanted: function from a layer of `model` and the batch normalization behind it to whether that is folded;
            `None`: all are.
        consumed: whether nobody needs `model` any more: its layers are then used again, without copies, and remember
            their calls in it.

    Returns:
        The model; a dictionary from those of its layers that took something over to `FoldableBatchNorm`s, with the
        weights that they had; and the `Origins` of its layers and operations in `model`.
    """
    if not isinstance(model, keras.Model):
        raise TypeError(f"`fold_batch_norm` expects a Keras model; received {describe(model)}.")
    if not model.built:
        raise ValueError(f"`fold_batch_norm` needs a built model; '{model.name}' is not built.")
    if as_functional(model) is None:
        raise ValueError(
            f"`fold_batch_norm` reads the graph of sequential and functional models; '{model.name}' is a "
            f"{type(model).__name__}. Make it functional by `keras_mot.graph.trace(model)`."
        )
    if any(is_transformed(layer) for layer in flatten_layers(model)):
        raise ValueError(f"'{model.name}' carries weight transforms: strip them, or fold before attaching them.")
    copy, copied = (model, Origins()) if consumed else copy_with_origins(model)
    for part in flatten_layers(copy):
        if isinstance(part, Functional):  # a traced model may have layers of one name
            name_apart(part.operations)
    folds = find_foldable_batch_norms(copy, consumed)
    if wanted is not None:
        folds = [fold for fold in folds if wanted(copied.of(fold.linear), copied.of(fold.batch_norm))]
    if not folds:
        return copy, {}, copied
    rebuild = _Rebuild(folds)
    rebuilt = rebuild.model(copy)
    for fold in folds:
        _take_over(rebuild.replaced[id(fold.linear)], fold)
    # Once more, so that no layer remembers its calls in the graph that was.
    folded, again = (rebuilt, Origins()) if consumed else copy_with_origins(rebuilt)
    origins = again.through(rebuild.origins)
    by_linear = {id(fold.linear): fold for fold in folds}
    known = [(layer, by_linear.get(id(origins.of(layer)))) for layer in flatten_layers(folded)]
    return folded, {layer: fold for layer, fold in known if fold is not None}, origins.through(copied)


class _Rebuild:
    """Models on new inputs: with new layers in place of those that take over, without the batch norms.

    Args:
        folds: list of `FoldableBatchNorm`.
    """

    def __init__(self, folds):
        self._linears = {id(fold.linear) for fold in folds}
        self._batch_norms = {id(fold.batch_norm) for fold in folds}
        self.replaced = {}  # id of a layer or nested model -> its replacement; shared ones have one
        self.origins = Origins()

    def model(self, model):
        """The rebuilt model."""
        if isinstance(model, Sequential):
            parts = [self._replace(layer) for layer in model.layers if id(layer) not in self._batch_norms]
            result = keras.Sequential([*(new_input(tensor) for tensor in model.inputs), *parts], name=model.name)
        else:
            result = keras.models.clone_model(
                model,
                input_tensors=keras.tree.map_structure(new_input, model.input),
                clone_function=self._replace,
                call_function=self._call,
            )
        set_own_flag(result, own_flag(model))
        return result

    def _replace(self, layer):
        if id(layer) not in self.replaced:
            self.replaced[id(layer)] = self._replacement(layer)
            self.origins.note(self.replaced[id(layer)], layer)
        return self.replaced[id(layer)]

    def _replacement(self, layer):
        if id(layer) in self._linears:
            return type(layer).from_config({**layer.get_config(), "use_bias": True})
        if as_functional(layer) is not None and any(id(inner) in self._linears for inner in flatten_layers(layer)):
            return self.model(layer)
        return layer

    def _call(self, layer, *args, **kwargs):
        if id(layer) in self._batch_norms:
            return args[0] if args else kwargs["inputs"]
        return layer(*args, **kwargs)


def scale_and_offset(batch_norm: keras.layers.BatchNormalization) -> tuple[np.ndarray, np.ndarray]:
    """What a trained batch normalization multiplies each channel by, and adds then: two float64 arrays."""
    variance = ops.convert_to_numpy(batch_norm.moving_variance).astype("float64")
    scale = 1.0 / np.sqrt(variance + batch_norm.epsilon)
    if batch_norm.scale:
        scale = scale * ops.convert_to_numpy(batch_norm.gamma)
    offset = -ops.convert_to_numpy(batch_norm.moving_mean) * scale
    if batch_norm.center:
        offset = offset + ops.convert_to_numpy(batch_norm.beta)
    return scale, offset


def kernel_factors(fold: FoldableBatchNorm) -> np.ndarray:
    """What the kernel is multiplied by that takes a batch normalization over: float64 array, broadcastable to it."""
    kernel = kernel_of(fold.linear)
    axes = next(found.axes for found in find_weights(fold.linear)[0] if found.variable is kernel)
    return fold.factors().reshape([size if axis in axes.outputs else 1 for axis, size in enumerate(kernel.shape)])


def folded_bias(fold: FoldableBatchNorm) -> np.ndarray:
    """The bias of the layer that has taken a batch normalization over: float64 array."""
    scale, bias = scale_and_offset(fold.batch_norm)
    return bias + ops.convert_to_numpy(fold.linear.bias) * scale if fold.linear.use_bias else bias


def _take_over(layer, fold):
    """Gives a layer the weights of a fold."""
    factors, bias = kernel_factors(fold), folded_bias(fold)
    for source, target in zip(find_weights(fold.linear)[0], find_weights(layer)[0], strict=True):
        value = ops.convert_to_numpy(source.variable)
        target.variable.assign(value * factors if source.variable is kernel_of(fold.linear) else value)
    layer.bias.assign(bias)
