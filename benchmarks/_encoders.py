"""Transformer encoders whose latency is measured, small and with random weights."""

import keras
from keras import layers, ops


def _block(x, heads, width, before):
    """One block of attention and two dense layers; normalization stands before both parts, or behind their sums."""

    def norm(tensor):
        return layers.LayerNormalization(epsilon=1e-6)(tensor)

    inner = norm(x) if before else x
    x = x + layers.MultiHeadAttention(heads, width // heads)(inner, inner)
    x = x if before else norm(x)
    inner = norm(x) if before else x
    inner = layers.Dense(width)(layers.Dense(4 * width, activation="gelu")(inner))
    return x + inner if before else norm(x + inner)


class Positions(layers.Layer):
    """Adds an embedding of its position to each element of a sequence."""

    def build(self, shape):
        self.table = self.add_weight(shape=shape[1:], initializer=keras.initializers.RandomNormal(stddev=0.02))

    def call(self, inputs):
        """The sums."""
        return inputs + self.table


def bert_like(blocks=4, width=128, tokens=64, heads=4, words=1000):
    """An encoder of words, normalized behind each sum, as BERT's."""
    inputs = keras.Input((tokens,), dtype="int32", name="words")
    x = layers.Embedding(words, width)(inputs)
    x = layers.LayerNormalization(epsilon=1e-6)(Positions()(x))
    for _ in range(blocks):
        x = _block(x, heads, width, before=False)
    x = layers.Dense(width, activation="tanh")(x[:, 0])
    return keras.Model(inputs, layers.Dense(2, activation="softmax")(x), name="bert_like")


def vit_like(blocks=4, width=128, size=64, patch=8, heads=4):
    """An encoder of patches of an image, normalized before each part, as ViT."""
    inputs = keras.Input((size, size, 3), name="images")
    x = layers.Conv2D(width, patch, strides=patch)(inputs)
    x = layers.Reshape((-1, width))(x)
    x = Positions()(x)
    for _ in range(blocks):
        x = _block(x, heads, width, before=True)
    x = layers.LayerNormalization(epsilon=1e-6)(x)
    x = layers.GlobalAveragePooling1D()(x)
    return keras.Model(inputs, layers.Dense(10, activation="softmax")(x), name="vit_like")


MODELS = {"bert_like": bert_like, "vit_like": vit_like}
"""Function that builds a model, by name."""


def samples_of(model, count=8):
    """Random inputs: words, or values of a normal distribution."""
    generator = keras.random.SeedGenerator(0)
    shape = (count, *model.input_shape[1:])
    if "int" in str(model.inputs[0].dtype):
        return ops.convert_to_numpy(keras.random.randint(shape, 0, 1000, seed=generator)).astype("int32")
    return ops.convert_to_numpy(keras.random.normal(shape, seed=generator))
