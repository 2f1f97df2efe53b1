"""Putting batch normalization back behind layers with rounded weights, to be trained, and folding it in again."""

import keras
import numpy as np
from keras import ops

from keras_mot._arrays import numpy_value
from keras_mot._keras import flatten_layers, producer_of
from keras_mot.graph.batch_norm import FoldableBatchNorm, scale_and_offset
from keras_mot.graph.functional import as_functional
from keras_mot.graph.model_graph import Graph
from keras_mot.graph.rewrite import flatten, rewrite
from keras_mot.layers.copying import copy_model, with_bias
from keras_mot.layers.trained_batch_norm import TrainedBatchNorm
from keras_mot.layers.transformed import transformed_weights
from keras_mot.transforms import FakeQuantize


def unfold_batch_norm(
    model: keras.Model, folds: dict[keras.layers.Layer, FoldableBatchNorm], steps: int | None
) -> keras.Model:
    """A quantized model whose batch normalizations stand behind the layers again that had taken them over.

    In inference it computes what `model` does, up to rounding.

    Args:
        model: a functional model, whose kernels have factors (`FakeQuantize.scaled_channels`) from the folds.
        folds: dictionary from its layers to what they had taken over; other layers keep what they have. So do
            layers whose batch normalization is not trained, has `renorm`, or saw sequences that are one batch now.
        steps: of `TrainedBatchNorm`.

    Returns:
        The model, which shares no variables with `model`.
    """
    replaced = {}
    for layer in model.layers:
        quantize = factored(layer)
        if layer in folds and quantize is not None and _can_be_trained(folds[layer].batch_norm, layer):
            replaced[id(layer)] = _unfolded(layer, quantize, folds[layer], steps)

    def call(operation, *args, **kwargs):
        if id(operation) not in replaced:
            return operation(*args, **kwargs)
        linear, batch_norm, fill = replaced[id(operation)]
        outputs = batch_norm(linear(*args, **kwargs))
        fill()
        return outputs

    return copy_model(rewrite(model, call))


def fold_trained_batch_norm(model: keras.Model) -> keras.Model:
    """A quantized model whose `TrainedBatchNorm`s are a part of the scales and biases before them.

    In inference it computes what `model` does, up to rounding.

    Args:
        model: a functional model; models nested in it are dissolved.

    Returns:
        The model, which shares no variables with `model`; `model` itself if there is nothing to fold.
    """
    if not has_trained_batch_norm(model):
        return model
    copy = flatten(model)  # with names that are unique
    replaced = {}
    for linear, batch_norm in trained_pairs(copy):
        replaced[id(linear)] = _folded(linear, batch_norm)

    def call(operation, *args, **kwargs):
        if isinstance(operation, TrainedBatchNorm):
            return args[0] if args else kwargs["inputs"]
        return replaced.get(id(operation), operation)(*args, **kwargs)

    return copy_model(rewrite(copy, call))


def has_trained_batch_norm(model: keras.Model) -> bool:
    """Whether there is a `TrainedBatchNorm` in a model."""
    return any(isinstance(layer, TrainedBatchNorm) for layer in flatten_layers(model))


def trained_pairs(model: keras.Model) -> list[tuple[keras.layers.Layer, TrainedBatchNorm]]:
    """(layer with rounded weights, `TrainedBatchNorm` behind it) of a model and of those nested in it."""
    found = []
    for part in flatten_layers(model):
        for call in Graph(part).calls if as_functional(part) is not None else ():
            if isinstance(call.operation, TrainedBatchNorm):
                found.append((producer_of(call.inputs[0]), call.operation))
    return found


def factored(layer: keras.layers.Layer) -> FakeQuantize | None:
    """The `FakeQuantize` of a layer that multiplies its output channels by factors, if there is one."""
    for weight in transformed_weights(layer):
        quantize = weight.transform_of(FakeQuantize)
        if quantize is not None and quantize.scaled_channels:
            return quantize
    return None


def _can_be_trained(batch_norm, layer):
    """Whether a batch normalization behind `layer` would do what it did in the float model."""
    # Dense layers on sequences are computed on one batch of all vectors, without the mask of the sequences.
    same_rank = batch_norm.input_spec.ndim == len(layer.output.shape)
    return batch_norm.trainable and not getattr(batch_norm, "renorm", False) and same_rank


def _unfolded(layer, quantize, fold, steps):
    """The layer without factors and bias; its batch normalization; and a function that fills that once it is built."""
    source = fold.batch_norm
    factors = quantize.factors_of().reshape(-1).astype("float64")
    scale, _ = scale_and_offset(source)
    # The signs of the factors are in the kernel.
    mean = numpy_value(source.moving_mean).astype("float64")
    if fold.linear.use_bias:
        mean = mean - numpy_value(fold.linear.bias)
    mean = mean * np.sign(scale)
    beta = numpy_value(layer.bias).astype("float64") + factors * mean
    gamma = np.abs(numpy_value(source.gamma)) if source.scale else np.ones(factors.shape)
    linear = with_bias(layer, False)
    factored(linear).scale_channels(np.ones(factors.shape))
    batch_norm = TrainedBatchNorm(
        steps,
        axis=-1,  # layers in integers are channels_last
        momentum=source.momentum,
        epsilon=source.epsilon,
        synchronized=source.synchronized,
        beta_constraint=source.beta_constraint,
        beta_regularizer=source.beta_regularizer,
        gamma_regularizer=source.gamma_regularizer,
        dtype=source.dtype_policy,
        name=source.name,
    )

    def fill():
        batch_norm.moving_mean.assign(mean)
        batch_norm.moving_variance.assign(numpy_value(source.moving_variance))
        batch_norm.gamma.assign(gamma)
        batch_norm.beta.assign(beta)

    return linear, batch_norm, fill


def _folded(linear, batch_norm):
    """The layer with the factors and the bias that its batch normalization comes to."""
    scale, offset = scale_and_offset(batch_norm)
    layer = with_bias(linear, True)
    factored(layer).scale_channels(scale)
    layer.bias.assign(ops.cast(offset, layer.bias.dtype))
    return layer
