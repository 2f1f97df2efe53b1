"""Small models and data for the tests of quantization."""

import keras
import numpy as np
from keras import layers


def images(count=48, size=8, channels=3):
    """Random images of shape (count, size, size, channels)."""
    return np.random.default_rng(5).standard_normal((count, size, size, channels)).astype("float32")


def small_network():
    """Convolutions with batch normalization in several places, a branch, and a softmax."""
    inputs = keras.Input((8, 8, 3))
    x = layers.Conv2D(8, 3, padding="same", use_bias=False, name="conv")(inputs)
    x = layers.ReLU()(layers.BatchNormalization(name="folded")(x))
    y = layers.DepthwiseConv2D(3, padding="same", activation="relu6", name="depthwise")(x)
    x = layers.BatchNormalization(name="alone")(layers.Add()([x, y]))
    x = layers.Concatenate()([layers.MaxPooling2D(2)(x), layers.AveragePooling2D(2)(x)])
    x = layers.SeparableConv2D(6, 3, activation="silu", name="separable")(x)
    x = layers.GlobalAveragePooling2D()(x)
    return with_random_statistics(keras.Model(inputs, layers.Dense(4, activation="softmax", name="head")(x)))


def with_random_statistics(model):
    """Gives each batch normalization statistics and parameters that matter."""
    generator = np.random.default_rng(6)
    for layer in model._flatten_layers():
        if isinstance(layer, layers.BatchNormalization):
            shape = layer.moving_mean.shape
            layer.moving_mean.assign(generator.normal(0, 0.2, shape))
            layer.moving_variance.assign(generator.uniform(0.5, 1.5, shape))
            layer.beta.assign(generator.normal(0, 0.2, shape))
    return model


def compiled(model, rate=1e-3):
    """The model, ready to train on integer labels."""
    model.compile(keras.optimizers.Adam(rate), "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model
