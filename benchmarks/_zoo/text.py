"""Language models in the style of Keras's published examples."""

import keras
import numpy as np
from keras import layers, ops

from .data import WORDS, sentences, together, tokens
from .registry import architecture, register


@register
class TokenAndPosition(layers.Layer):
    """Embeddings of words and of positions; no `build`."""

    def __init__(self, length, vocabulary, width, **kwargs):
        super().__init__(**kwargs)
        self.length, self.vocabulary, self.width = length, vocabulary, width
        scale = keras.initializers.RandomNormal(0.0, 0.6)
        self.words = layers.Embedding(vocabulary, width, embeddings_initializer=scale)
        self.places = layers.Embedding(length, width, embeddings_initializer=scale)

    def call(self, x):
        return self.words(x) + self.places(ops.arange(0, ops.shape(x)[-1], 1))

    def get_config(self):
        return {**super().get_config(), "length": self.length, "vocabulary": self.vocabulary, "width": self.width}


@register
class TransformerBlock(layers.Layer):
    """The best known custom layer there is: attention and a feed-forward net."""

    def __init__(self, width, heads, inner, rate=0.1, **kwargs):
        super().__init__(**kwargs)
        self.width, self.heads, self.inner, self.rate = width, heads, inner, rate
        self.attention = layers.MultiHeadAttention(num_heads=heads, key_dim=width // heads)
        self.feed = keras.Sequential([layers.Dense(inner, activation="relu"), layers.Dense(width)])
        self.norms = {
            "first": layers.LayerNormalization(epsilon=1e-6),
            "second": layers.LayerNormalization(epsilon=1e-6),
        }
        self.dropouts = [layers.Dropout(rate), layers.Dropout(rate)]

    def call(self, inputs, training=False):
        x = self.dropouts[0](self.attention(inputs, inputs), training=training)
        x = self.norms["first"](inputs + x)
        y = self.dropouts[1](self.feed(x), training=training)
        return self.norms["second"](x + y)

    def get_config(self):
        names = ("width", "heads", "inner", "rate")
        return {**super().get_config(), **{name: getattr(self, name) for name in names}}


@architecture("text", tokens(24, 60), "composite", decides=True, quick=True)
def text_transformer():
    inputs = keras.Input((24,))
    x = TransformerBlock(16, 2, 32)(TokenAndPosition(24, 60, 16)(inputs))
    x = layers.Dropout(0.1)(layers.GlobalAveragePooling1D()(x))
    x = layers.Dense(20, activation="relu")(x)
    return keras.Model(inputs, layers.Dense(2, activation="softmax")(layers.Dropout(0.1)(x)))


@register
class FourierMixing(layers.Layer):
    """A Fourier transform over words and features."""

    def __init__(self, width, **kwargs):
        super().__init__(**kwargs)
        self.width = width
        self.feed = keras.Sequential([layers.Dense(2 * width, activation="relu"), layers.Dense(width)])
        self.norms = [layers.LayerNormalization(), layers.LayerNormalization()]

    def call(self, inputs):
        x = ops.cast(inputs, "float32")
        x = ops.fft2((x, ops.zeros_like(x)))[0]
        x = self.norms[0](inputs + x)
        return self.norms[1](x + self.feed(x))

    def get_config(self):
        return {**super().get_config(), "width": self.width}


@architecture("text", tokens(16, 60), "composite", decides=True)
def fnet():
    inputs = keras.Input((16,), dtype="int64")
    x = FourierMixing(16)(TokenAndPosition(16, 60, 16)(inputs))
    return keras.Model(inputs, layers.Dense(3)(layers.GlobalAveragePooling1D()(x)))


@architecture("text", tokens(20, 60), decides=True)
def bidirectional_lstm():
    inputs = keras.Input((20,), dtype="int32")
    x = layers.Embedding(60, 24, embeddings_initializer=keras.initializers.RandomNormal(0.0, 0.6))(inputs)
    x = layers.Bidirectional(layers.LSTM(16, return_sequences=True))(x)
    x = layers.Bidirectional(layers.LSTM(16))(x)
    return keras.Model(inputs, layers.Dense(1, activation="sigmoid")(x))


@architecture("text", tokens(20, 60, padded=True), "mask", decides=True)
def masked_gru():
    """Padding is masked through two recurrent layers."""
    return keras.Sequential(
        [
            keras.Input((20,)),
            layers.Embedding(60, 16, mask_zero=True, embeddings_initializer=keras.initializers.RandomNormal(0.0, 0.6)),
            layers.GRU(16, return_sequences=True),
            layers.GRU(16),
            layers.Dense(4, activation="softmax"),
        ]
    )


def vectorizer(**options):
    layer = layers.TextVectorization(max_tokens=40, output_mode="int", output_sequence_length=10, **options)
    layer.set_vocabulary(list(WORDS))
    return layer


@architecture("text", sentences(8), "lookup", "strings", decides=True, backends=("tensorflow",))
def text_vectorization():
    """From strings to a class."""
    inputs = keras.Input((1,), dtype="string")
    x = vectorizer()(inputs)
    x = layers.Embedding(40, 16, embeddings_initializer=keras.initializers.RandomNormal(0.0, 0.6))(x)
    x = layers.Conv1D(24, 3, padding="valid", activation="relu")(x)
    x = layers.GlobalMaxPooling1D()(x)
    return keras.Model(inputs, layers.Dense(3, activation="softmax")(layers.Dense(16, activation="relu")(x)))


@architecture("text", together(tokens(12, 30), tokens(10, 30)), decides=True)
def character_seq2seq():
    """An LSTM encoder hands its states to a decoder."""
    source, target = keras.Input((12,), dtype="int32"), keras.Input((10,), dtype="int32")
    scale = keras.initializers.RandomNormal(0.0, 0.6)
    _, h, c = layers.LSTM(24, return_state=True)(layers.Embedding(30, 16, embeddings_initializer=scale)(source))
    x = layers.Embedding(30, 16, embeddings_initializer=scale)(target)
    x, _, _ = layers.LSTM(24, return_sequences=True, return_state=True)(x, initial_state=[h, c])
    return keras.Model([source, target], layers.Dense(30, activation="softmax")(x))


@register
class CausalBlock(layers.Layer):
    """A block of a small GPT, with its mask computed from the shape."""

    def __init__(self, width, heads, inner, **kwargs):
        super().__init__(**kwargs)
        self.width, self.heads, self.inner = width, heads, inner
        self.attention = layers.MultiHeadAttention(heads, width // heads)
        self.feed = keras.Sequential([layers.Dense(inner, activation="relu"), layers.Dense(width)])
        self.norms = [layers.LayerNormalization(epsilon=1e-6), layers.LayerNormalization(epsilon=1e-6)]
        self.dropout = layers.Dropout(0.1)

    def call(self, inputs):
        length = ops.shape(inputs)[1]
        rows, columns = ops.arange(length)[:, None], ops.arange(length)
        mask = ops.expand_dims(rows >= columns, 0)
        x = self.norms[0](inputs + self.dropout(self.attention(inputs, inputs, attention_mask=mask)))
        return self.norms[1](x + self.dropout(self.feed(x)))

    def get_config(self):
        return {**super().get_config(), "width": self.width, "heads": self.heads, "inner": self.inner}


@architecture("text", tokens(16, 50), "composite", "mask", decides=True)
def mini_gpt():
    inputs = keras.Input((16,), dtype="int32")
    x = TokenAndPosition(16, 50, 24)(inputs)
    x = CausalBlock(24, 2, 48)(x)
    return keras.Model(inputs, layers.Dense(50)(x))


@register
class Router(layers.Layer):
    """Sends each word to one of some experts: the largest of the router's scores."""

    def __init__(self, experts, width, **kwargs):
        super().__init__(**kwargs)
        self.experts, self.width = experts, width
        self.route = layers.Dense(experts)
        self.feeds = [
            keras.Sequential([layers.Dense(2 * width, activation="relu"), layers.Dense(width)]) for _ in range(experts)
        ]

    def call(self, inputs):
        shares = ops.softmax(self.route(inputs), axis=-1)
        chosen = ops.one_hot(ops.argmax(shares, axis=-1), self.experts)
        results = ops.stack([feed(inputs) for feed in self.feeds], axis=-1)
        return ops.sum(results * ops.expand_dims(shares * chosen, -2), axis=-1)

    def get_config(self):
        return {**super().get_config(), "experts": self.experts, "width": self.width}


@register
class SwitchBlock(layers.Layer):
    """A transformer block whose feed-forward net another layer hands in."""

    def __init__(self, width, heads, experts=3, **kwargs):
        super().__init__(**kwargs)
        self.width, self.heads, self.experts = width, heads, experts
        self.attention = layers.MultiHeadAttention(heads, width)
        self.feed = Router(experts, width)
        self.norms = [layers.LayerNormalization(epsilon=1e-6), layers.LayerNormalization(epsilon=1e-6)]

    def call(self, inputs, training=False):
        x = self.norms[0](inputs + self.attention(inputs, inputs, training=training))
        return self.norms[1](x + self.feed(x))

    def get_config(self):
        return {**super().get_config(), "width": self.width, "heads": self.heads, "experts": self.experts}


@architecture("text", tokens(16, 50), "composite", decides=True)
def switch_transformer():
    inputs = keras.Input((16,))
    x = SwitchBlock(16, 2)(TokenAndPosition(16, 50, 16)(inputs))
    x = layers.Dense(16, activation="relu")(layers.Dropout(0.2)(layers.GlobalAveragePooling1D()(x)))
    return keras.Model(inputs, layers.Dense(2, activation="softmax")(x))


@architecture("text", tokens(20, 30), "rnn_dropout", decides=True)
def character_rnn():
    return keras.Sequential(
        [
            keras.Input((20,), dtype="int32"),
            layers.Embedding(30, 16, embeddings_initializer=keras.initializers.RandomNormal(0.0, 0.6)),
            layers.LSTM(24, return_sequences=True, dropout=0.2, recurrent_dropout=0.2),
            layers.Dense(30, activation="softmax"),
        ]
    )


@register
class NERModel(keras.Model):
    """Tags for words: a subclassed model of composite layers."""

    def __init__(self, tags=5, vocabulary=50, length=16, width=16, **kwargs):
        super().__init__(**kwargs)
        self.embedding = TokenAndPosition(length, vocabulary, width)
        self.block = TransformerBlock(width, 2, 32)
        self.dropouts = layers.Dropout(0.1), layers.Dropout(0.1)
        self.inner, self.last = layers.Dense(16, activation="relu"), layers.Dense(tags, activation="softmax")

    def call(self, inputs, training=False):
        x = self.dropouts[0](self.block(self.embedding(inputs)), training=training)
        return self.last(self.dropouts[1](self.inner(x), training=training))


@architecture("text", tokens(16, 50), "subclassed", "composite", decides=True)
def named_entities():
    model = NERModel()
    model(np.zeros((1, 16), "int32"))
    return model


@register
class PositionalEmbedding(layers.Layer):
    def __init__(self, length, vocabulary, width, **kwargs):
        super().__init__(**kwargs)
        self.length, self.vocabulary, self.width = length, vocabulary, width
        scale = keras.initializers.RandomNormal(0.0, 0.6)
        self.words = layers.Embedding(vocabulary, width, embeddings_initializer=scale)
        self.places = layers.Embedding(length, width, embeddings_initializer=scale)

    def call(self, inputs):
        return self.words(inputs) + self.places(ops.arange(0, ops.shape(inputs)[-1], 1))

    def compute_mask(self, inputs, mask=None):
        return ops.not_equal(inputs, 0)

    def get_config(self):
        return {**super().get_config(), "length": self.length, "vocabulary": self.vocabulary, "width": self.width}


@register
class MaskedEncoder(layers.Layer):
    """Takes the mask of its input."""

    def __init__(self, width, heads, **kwargs):
        super().__init__(**kwargs)
        self.width, self.heads = width, heads
        self.attention = layers.MultiHeadAttention(heads, width)
        self.dense = keras.Sequential([layers.Dense(2 * width, activation="relu"), layers.Dense(width)])
        self.norms = [layers.LayerNormalization(), layers.LayerNormalization()]
        self.supports_masking = True

    def call(self, inputs, mask=None):
        wide = None if mask is None else ops.cast(mask[:, None, :], "int32")
        x = self.norms[0](inputs + self.attention(inputs, inputs, attention_mask=wide))
        return self.norms[1](x + self.dense(x))

    def get_config(self):
        return {**super().get_config(), "width": self.width, "heads": self.heads}


@register
class CrossDecoder(layers.Layer):
    """Attends to its own past and to the encoder's output: two inputs, two masks."""

    def __init__(self, width, heads, **kwargs):
        super().__init__(**kwargs)
        self.width, self.heads = width, heads
        self.own, self.cross = layers.MultiHeadAttention(heads, width), layers.MultiHeadAttention(heads, width)
        self.dense = keras.Sequential([layers.Dense(2 * width, activation="relu"), layers.Dense(width)])
        self.norms = [layers.LayerNormalization() for _ in range(3)]
        self.supports_masking = True

    def call(self, inputs, mask=None):
        inputs, encoded = inputs
        x = self.norms[0](inputs + self.own(inputs, inputs, use_causal_mask=True))
        x = self.norms[1](x + self.cross(x, encoded, encoded))
        return self.norms[2](x + self.dense(x))

    def get_config(self):
        return {**super().get_config(), "width": self.width, "heads": self.heads}


@architecture(
    "text", together(source=tokens(12, 40, padded=True), target=tokens(10, 40)), "composite", "mask", decides=True
)
def translation_transformer():
    source = keras.Input((12,), dtype="int32", name="source")
    target = keras.Input((10,), dtype="int32", name="target")
    encoded = MaskedEncoder(16, 2)(PositionalEmbedding(12, 40, 16)(source))
    x = CrossDecoder(16, 2)([PositionalEmbedding(10, 40, 16)(target), encoded])
    x = layers.Dense(40, activation="softmax")(layers.Dropout(0.5)(x))
    return keras.Model({"source": source, "target": target}, x)


@architecture("text", together(tokens(12, 50, padded=True), tokens(12, 50, padded=True)), "shared", decides=True)
def sentence_pairs():
    """Two sentences go through the same layers; their difference and product decide."""
    first, second = keras.Input((12,), dtype="int32"), keras.Input((12,), dtype="int32")
    embedding = layers.Embedding(50, 16, embeddings_initializer=keras.initializers.RandomNormal(0.0, 0.6))
    encoder = layers.Bidirectional(layers.GRU(12))
    a, b = encoder(embedding(first)), encoder(embedding(second))
    x = layers.Concatenate()([a, b, ops.abs(a - b), layers.Multiply()([a, b])])
    return keras.Model([first, second], layers.Dense(3, activation="softmax")(layers.Dense(24, activation="relu")(x)))


@architecture("text", tokens(20, 60), "composite", decides=True)
def text_cnn():
    """Parallel convolutions of several widths, with spectral normalization of the last layer."""
    inputs = keras.Input((20,), dtype="int32")
    x = layers.Embedding(60, 16, embeddings_initializer=keras.initializers.RandomNormal(0.0, 0.6))(inputs)
    branches = [layers.GlobalMaxPooling1D()(layers.Conv1D(12, size, activation="relu")(x)) for size in (2, 3, 5)]
    x = layers.Dropout(0.3)(layers.Concatenate()(branches))
    return keras.Model(inputs, layers.SpectralNormalization(layers.Dense(4, activation="softmax"))(x))
