"""Stripping: writing transformed weights into their variables, and making layers plain again."""

import keras

from keras_mot._keras import flatten_layers, forget_compilation, forget_torch_parameters
from keras_mot.layers.copying import copy_model
from keras_mot.layers.finding import check_layer
from keras_mot.layers.transformed import become_plain, is_transformed, transformed_weights
from keras_mot.layers.transformed_weight import penalise_stored


def strip(model: keras.layers.Layer, inplace: bool = False) -> keras.layers.Layer:
    """Makes transforms permanent and removes them, whatever techniques they come from.

    Each transformed weight's variable gets the value that the forward pass used (or that its transforms freeze to, such
    as the nearest centroid after soft clustering); classes, tracking and regularizers are those of the plain layers.

    Args:
        model: a layer or model of any kind, with transforms or without.
        inplace: whether to change the given model itself, for models that cannot be rebuilt.

    Returns:
        A plain Keras model or layer, not compiled; once saved, it loads without keras-mot. Quantizers of activations
        stay: `keras_mot.quantization.strip_quantization` removes them, too.

    Raises:
        TypeError: if `model` is not a Keras model or layer.
        ValueError: if it cannot be copied.
    """
    check_layer(model, "strip")
    stripped = model if inplace else copy_model(model)
    for weight in transformed_weights(stripped):
        weight.variable.assign(weight.frozen_value())
        penalise_stored(weight.variable)
    for layer in flatten_layers(stripped):
        if is_transformed(layer):
            become_plain(layer)
    forget_torch_parameters(stripped)
    if inplace:
        forget_compilation(stripped)
    return stripped
