"""Audio models in the style of Keras's published examples."""

import keras
import numpy as np
from keras import layers, ops

from .data import signals, together, tokens, vectors
from .registry import architecture, register


@architecture("audio", signals(128, 1), decides=True)
def speaker_recognition():
    """One-dimensional convolutions with residual branches."""
    inputs = x = keras.Input((128, 1))
    for filters, count in ((8, 2), (12, 2), (16, 3)):
        start = layers.Conv1D(filters, 1, padding="same")(x)
        for _ in range(count - 1):
            x = layers.Activation("relu")(layers.Conv1D(filters, 3, padding="same")(x))
        x = layers.Add()([layers.Conv1D(filters, 3, padding="same")(x), start])
        x = layers.MaxPool1D(2, strides=2)(layers.Activation("relu")(x))
    x = layers.Flatten()(layers.AveragePooling1D(3, strides=3)(x))
    x = layers.Dense(24, activation="relu")(x)
    return keras.Model(inputs, layers.Dense(5, activation="softmax", name="output")(x))


@architecture("audio", signals(24, 33), "recurrent", "rnn_dropout", seconds=2)
def deep_speech():
    """Spectrograms through convolutions and bidirectional GRUs, for CTC."""
    inputs = keras.Input((24, 33), name="input")
    x = layers.Reshape((-1, 33, 1))(inputs)
    x = layers.Conv2D(8, (5, 9), strides=(2, 2), padding="same", use_bias=False)(x)
    x = layers.ReLU()(layers.BatchNormalization()(x))
    x = layers.Conv2D(8, (5, 5), strides=(1, 2), padding="same", use_bias=False)(x)
    x = layers.ReLU()(layers.BatchNormalization()(x))
    x = layers.Reshape((-1, x.shape[-2] * x.shape[-1]))(x)
    for number in range(2):
        cell = layers.GRU(12, return_sequences=True, reset_after=True, name=f"gru_{number}")
        x = layers.Bidirectional(cell, merge_mode="concat")(x)
        x = layers.Dropout(0.5)(x) if number == 0 else x
    x = layers.Dropout(0.5)(layers.ReLU()(layers.Dense(24)(x)))
    return keras.Model(inputs, layers.Dense(12, activation="softmax")(x))


@register
class SpeechEmbedding(layers.Layer):
    """Three strided convolutions before a transformer."""

    def __init__(self, width, **kwargs):
        super().__init__(**kwargs)
        self.width = width
        self.convolutions = [layers.Conv1D(width, 5, strides=2, padding="same", activation="relu") for _ in range(3)]

    def call(self, x):
        for convolution in self.convolutions:
            x = convolution(x)
        return x

    def get_config(self):
        return {**super().get_config(), "width": self.width}


@register
class SpeechEncoder(layers.Layer):
    def __init__(self, width, heads, inner, **kwargs):
        super().__init__(**kwargs)
        self.width, self.heads, self.inner = width, heads, inner
        self.attention = layers.MultiHeadAttention(heads, width)
        self.feed = keras.Sequential([layers.Dense(inner, activation="relu"), layers.Dense(width)])
        self.norms = [layers.LayerNormalization(epsilon=1e-6), layers.LayerNormalization(epsilon=1e-6)]
        self.dropout = layers.Dropout(0.1)

    def call(self, inputs, training=False):
        x = self.norms[0](inputs + self.dropout(self.attention(inputs, inputs), training=training))
        return self.norms[1](x + self.dropout(self.feed(x), training=training))

    def get_config(self):
        return {**super().get_config(), "width": self.width, "heads": self.heads, "inner": self.inner}


@register
class SpeechDecoder(layers.Layer):
    """Embeds the words so far, attends to them and to the sound: two inputs of its own."""

    def __init__(self, vocabulary, width, heads, inner, **kwargs):
        super().__init__(**kwargs)
        self.vocabulary, self.width, self.heads, self.inner = vocabulary, width, heads, inner
        self.words = layers.Embedding(vocabulary, width, embeddings_initializer=keras.initializers.RandomNormal(0, 0.6))
        self.own = layers.MultiHeadAttention(heads, width)
        self.cross = layers.MultiHeadAttention(heads, width)
        self.feed = keras.Sequential([layers.Dense(inner, activation="relu"), layers.Dense(width)])
        self.norms = [layers.LayerNormalization(epsilon=1e-6) for _ in range(3)]

    def call(self, sound, words):
        x = self.words(words)
        x = self.norms[0](x + self.own(x, x, use_causal_mask=True))
        x = self.norms[1](x + self.cross(x, sound))
        return self.norms[2](x + self.feed(x))

    def get_config(self):
        names = ("vocabulary", "width", "heads", "inner")
        return {**super().get_config(), **{name: getattr(self, name) for name in names}}


@register
class SpeechTransformer(keras.Model):
    """A subclassed model of two inputs, with its own `train_step` on TensorFlow."""

    def __init__(self, width=16, vocabulary=20, **kwargs):
        super().__init__(**kwargs)
        self.embed = SpeechEmbedding(width)
        self.encoders = [SpeechEncoder(width, 2, 32) for _ in range(2)]
        self.decoder = SpeechDecoder(vocabulary, width, 2, 32)
        self.classifier = layers.Dense(vocabulary)

    def call(self, inputs, training=False):
        x = self.embed(inputs[0])
        for encoder in self.encoders:
            x = encoder(x, training=training)
        return self.classifier(self.decoder(x, inputs[1]))


@architecture("audio", together(signals(48, 20), tokens(10, 20)), "subclassed", "composite", decides=True, seconds=2)
def speech_transformer():
    model = SpeechTransformer()
    model([np.zeros((1, 48, 20), "float32"), np.zeros((1, 10), "int32")])
    return model


@architecture("audio", signals(320, 1), decides=True)
def raw_wave_net():
    """Gated causal convolutions with growing dilation, and skips that are summed."""
    inputs = keras.Input((320, 1))
    x = layers.Conv1D(8, 4, strides=4)(inputs)
    skips = []
    for rate in (1, 2, 4, 8):
        gate = layers.Conv1D(8, 2, dilation_rate=rate, padding="causal", activation="sigmoid")(x)
        value = layers.Conv1D(8, 2, dilation_rate=rate, padding="causal", activation="tanh")(x)
        y = layers.Multiply()([value, gate])
        skips.append(layers.Conv1D(12, 1)(y))
        x = layers.Add()([x, layers.Conv1D(8, 1)(y)])
    x = layers.ReLU()(layers.Add()(skips))
    x = layers.GlobalAveragePooling1D()(layers.Conv1D(16, 8, strides=4, activation="relu")(x))
    return keras.Model(inputs, layers.Dense(6, activation="softmax")(x))


@architecture("audio", vectors(40), decides=True, quick=True)
def accent_embedding_net():
    """Dense layers over the embedding that another network made, and label smoothing's logits."""
    return keras.Sequential(
        [
            layers.Input((40,)),
            layers.Dense(32, activation="elu"),
            layers.Dropout(0.2),
            layers.Dense(24, activation="softsign"),
            layers.Dense(6),
        ]
    )


@architecture("audio", signals(160, 1), "composite", decides=True)
def spectrogram_net():
    """A layer that computes log-magnitudes with products of constants, as a user without STFT kernels does."""
    inputs = keras.Input((160, 1))
    x = LogSpectrum(32, 16)(inputs)
    x = layers.Reshape((9, 16, 1))(x)
    x = layers.Conv2D(8, 3, activation="relu", padding="same")(x)
    x = layers.Conv2D(12, 3, strides=2, activation="relu")(x)
    return keras.Model(inputs, layers.Dense(6, activation="softmax")(layers.Flatten()(x)))


@register
class LogSpectrum(layers.Layer):
    """Frames, cosines and sines, logarithm; the tables are constants."""

    def __init__(self, frame, step, **kwargs):
        super().__init__(**kwargs)
        self.frame, self.step = frame, step
        angles = 2 * np.pi * np.arange(frame)[:, None] * np.arange(frame // 2) / frame
        self.cosines, self.sines = np.cos(angles).astype("float32"), np.sin(angles).astype("float32")

    def call(self, x):
        count = (x.shape[1] - self.frame) // self.step + 1
        frames = [x[:, start * self.step : start * self.step + self.frame, 0] for start in range(count)]
        frames = ops.stack(frames, axis=1)
        real, imaginary = ops.matmul(frames, self.cosines), ops.matmul(frames, self.sines)
        return ops.log(ops.square(real) + ops.square(imaginary) + 1e-2)

    def get_config(self):
        return {**super().get_config(), "frame": self.frame, "step": self.step}
