"""One small model for every layer type that owns weights; a new layer joins by adding itself to `MODELS`."""

import keras
import numpy as np
from keras import layers, ops

import keras_mot


@keras.saving.register_keras_serializable("model_zoo")
class LowRank(layers.Layer):
    """A user's own layer that declares its weights by registration."""

    def __init__(self, units, **kwargs):
        super().__init__(**kwargs)
        self.units = units

    def build(self, input_shape):
        self.left = self.add_weight(shape=(input_shape[-1], 4), name="left")
        self.right = self.add_weight(shape=(4, self.units), name="right")
        self.built = True

    def call(self, inputs):
        return ops.matmul(ops.matmul(inputs, self.left), self.right)

    def get_config(self):
        return {**super().get_config(), "units": self.units}


keras_mot.layers.register_weights(LowRank, ["left", "right"])


@keras.saving.register_keras_serializable("model_zoo")
class Scaled(layers.Layer):
    """A user's own layer that follows TFMOT's protocol, a bias among its prunable weights."""

    def build(self, input_shape):
        self.table = self.add_weight(shape=(input_shape[-1], 6), name="table")
        self.shift = self.add_weight(shape=(6,), initializer="ones", name="shift")
        self.built = True

    def call(self, inputs):
        return ops.matmul(inputs, self.table) + self.shift

    def get_prunable_weights(self):
        return [self.table, self.shift]


@keras.saving.register_keras_serializable("model_zoo")
class Block(layers.Layer):
    """A composite layer: its sub-layers are created by its own code, not from its configuration."""

    def __init__(self, width=8, **kwargs):
        super().__init__(**kwargs)
        self.width = width
        self.attention = layers.MultiHeadAttention(2, 4)
        self.feed_forward = [layers.Dense(width, activation="relu"), layers.Dense(width)]
        self.norm = layers.LayerNormalization()

    def build(self, input_shape):
        self.attention.build(input_shape, input_shape)
        for layer in self.feed_forward:
            layer.build(input_shape)
        self.norm.build(input_shape)
        self.built = True

    def call(self, inputs):
        x = self.norm(inputs + self.attention(inputs, inputs))
        for layer in self.feed_forward:
            x = layer(x)
        return x + inputs

    def get_config(self):
        return {**super().get_config(), "width": self.width}


@keras.saving.register_keras_serializable("model_zoo")
class Tied(keras.Model):
    """A subclassed model that reads an embedding's variable outside the embedding's call."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.embedding = layers.Embedding(12, 8)
        self.hidden = layers.Dense(8, activation="tanh")
        self.backbone = keras.Sequential([layers.Input((5, 8)), layers.Conv1D(8, 3, padding="same")])

    def call(self, inputs):
        x = self.backbone(self.hidden(self.embedding(inputs)))
        return ops.matmul(x, ops.transpose(ops.convert_to_tensor(self.embedding.embeddings)))


def _sequential(shape, *stack):
    return lambda: keras.Sequential([layers.Input(shape), *[make() for make in stack]])


def _functional(shape, function, dtype=None):
    def build():
        inputs = keras.Input(shape, dtype=dtype)
        return keras.Model(inputs, function(inputs))

    return build


def _nested():
    inner = keras.Sequential([layers.Input((6,)), layers.Dense(5, activation="relu"), layers.Dense(6)], name="inner")
    inputs = keras.Input((6,))
    middle = keras.Model(inputs, inner(inputs) + inputs, name="middle")
    inputs = keras.Input((6,))
    return keras.Model(inputs, layers.Dense(3)(middle(inputs)))


def _shared():
    inputs = keras.Input((6,))
    shared = layers.Dense(6, activation="relu", name="shared")
    return keras.Model(inputs, layers.Dense(2)(shared(shared(inputs))))


def _subclassed():
    model = Tied()
    model(np.zeros((1, 5), "int32"))
    return model


def _attention(layer):
    return _functional((5, 8), lambda x: layer()(x, x))


def _reversible():
    inputs = keras.Input((4,), dtype="int32")
    layer = layers.ReversibleEmbedding(10, 6)
    return keras.Model(inputs, layer(layer(inputs), reverse=True))


# name -> (function that builds the model, how many weights it has to prune)
MODELS = {
    "dense": (_sequential((6,), lambda: layers.Dense(5)), 1),
    "einsum_dense": (
        _sequential((4, 6), lambda: layers.EinsumDense("abc,cde->abde", (None, 2, 5), bias_axes="e")),
        1,
    ),
    "embedding": (_functional((4,), lambda x: layers.Embedding(10, 6)(x), "int32"), 1),
    "reversible_embedding": (_reversible, 1),
    "conv1d": (_sequential((8, 4), lambda: layers.Conv1D(6, 3)), 1),
    "conv2d": (_sequential((6, 6, 4), lambda: layers.Conv2D(6, 3, groups=2)), 1),
    "conv3d": (_sequential((4, 4, 4, 2), lambda: layers.Conv3D(4, 2)), 1),
    "conv1d_transpose": (_sequential((8, 4), lambda: layers.Conv1DTranspose(6, 3)), 1),
    "conv2d_transpose": (_sequential((4, 4, 4), lambda: layers.Conv2DTranspose(6, 3, strides=2)), 1),
    "conv3d_transpose": (_sequential((3, 3, 3, 2), lambda: layers.Conv3DTranspose(4, 2)), 1),
    "depthwise_conv1d": (_sequential((8, 4), lambda: layers.DepthwiseConv1D(3, depth_multiplier=2)), 1),
    "depthwise_conv2d": (_sequential((6, 6, 4), lambda: layers.DepthwiseConv2D(3)), 1),
    "separable_conv1d": (_sequential((8, 4), lambda: layers.SeparableConv1D(6, 3)), 2),
    "separable_conv2d": (_sequential((6, 6, 4), lambda: layers.SeparableConv2D(6, 3)), 2),
    "simple_rnn": (_sequential((5, 4), lambda: layers.SimpleRNN(6)), 2),
    "lstm": (_sequential((5, 4), lambda: layers.LSTM(6, return_sequences=True)), 2),
    "gru": (_sequential((5, 4), lambda: layers.GRU(6)), 2),
    "stacked_cells": (_sequential((5, 4), lambda: layers.RNN([layers.LSTMCell(6), layers.GRUCell(5)])), 4),
    "bidirectional": (_sequential((5, 4), lambda: layers.Bidirectional(layers.LSTM(6))), 4),
    "time_distributed": (_sequential((5, 4), lambda: layers.TimeDistributed(layers.Dense(6))), 1),
    "conv_lstm1d": (_sequential((3, 6, 2), lambda: layers.ConvLSTM1D(4, 3)), 2),
    "conv_lstm2d": (_sequential((3, 5, 5, 2), lambda: layers.ConvLSTM2D(4, 3)), 2),
    "multi_head_attention": (_attention(lambda: layers.MultiHeadAttention(2, 4)), 4),
    "group_query_attention": (_attention(lambda: layers.GroupQueryAttention(4, 4, 2)), 4),
    "registered": (_sequential((6,), lambda: LowRank(5)), 2),
    "protocol": (_sequential((6,), lambda: Scaled()), 2),
    "composite": (_sequential((5, 8), lambda: Block()), 6),
    "nested": (_nested, 3),
    "shared": (_shared, 2),
    "subclassed": (_subclassed, 3),
}


def sample_batch(model, rng, size=8):
    """Inputs that fit the model, and targets of its output shape."""
    if model.name.startswith("tied"):
        x = rng.integers(0, 10, (size, 5)).astype("int32")
    else:
        shape = (size, *model.input_shape[1:])
        integer = keras.backend.is_int_dtype(model.inputs[0].dtype)
        x = rng.integers(0, 10, shape).astype("int32") if integer else rng.standard_normal(shape).astype("float32")
    return x, rng.standard_normal(np.shape(model(x))).astype("float32")
