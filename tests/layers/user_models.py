"""Models as users write them: composite layers without `build`, nested, shared, in containers, with several inputs."""

import keras
import numpy as np
from keras import layers, ops

register = keras.saving.register_keras_serializable("user_models")


@register
class FeedForward(layers.Layer):
    """Two dense layers and a dropout, made in `__init__` and built by the first call."""

    def __init__(self, width=6, activation="relu", **kwargs):
        super().__init__(**kwargs)
        self.width = width
        self.first = layers.Dense(width, activation=activation)
        self.dropout = layers.Dropout(0.1)
        self.second = layers.Dense(width)

    def call(self, inputs, training=None):
        return self.second(self.dropout(self.first(inputs), training=training))

    def get_config(self):
        return {**super().get_config(), "width": self.width}


@register
class Containers(layers.Layer):
    """Composite layers within a composite one, in a list and a dictionary, and a model that is not built."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.blocks = [FeedForward(), FeedForward()]
        self.branches = {"left": FeedForward(), "right": layers.Dense(6)}
        self.head = keras.Sequential([layers.Dense(8, activation="relu"), layers.Dense(6)])

    def call(self, inputs):
        for block in self.blocks:
            inputs = block(inputs)
        return self.head(self.branches["left"](inputs) + self.branches["right"](inputs))


@register
class TokenAndPosition(layers.Layer):
    """Embeddings of integers, which hand on a mask."""

    def __init__(self, length=5, **kwargs):
        super().__init__(**kwargs)
        self.length = length
        self.tokens = layers.Embedding(12, 6, mask_zero=True)
        self.positions = layers.Embedding(length, 6)

    def call(self, inputs):
        return self.tokens(inputs) + self.positions(ops.arange(self.length))

    def compute_mask(self, inputs, mask=None):
        return self.tokens.compute_mask(inputs)

    def get_config(self):
        return {**super().get_config(), "length": self.length}


@register
class Decoder(layers.Layer):
    """Takes two arguments and the mask of the first."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.attention = layers.MultiHeadAttention(2, 3)
        self.output_layer = layers.Dense(6)
        self.supports_masking = True

    def call(self, query, memory, query_mask=None):
        mask = None if query_mask is None else query_mask[:, None, :]
        return self.output_layer(query + self.attention(query, memory, attention_mask=mask))


@register
class Encoder(keras.Model):
    """A subclassed model of composite layers."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.containers = Containers()
        self.feed_forward = FeedForward()

    def call(self, inputs):
        return self.feed_forward(self.containers(inputs))


def _functional(function, *shapes, dtype="float32"):
    inputs = [keras.Input(shape, dtype=dtype) for shape in shapes]
    return keras.Model(inputs[0] if len(inputs) == 1 else inputs, function(*inputs))


def _containers():
    return keras.Sequential([keras.Input((6,)), Containers(), layers.Dense(2)])


def _text():
    def call(tokens):
        embedded = TokenAndPosition()(tokens)
        return layers.GlobalAveragePooling1D()(Decoder()(embedded, embedded))

    return _functional(call, (5,), dtype="int32")


def _shared():
    shared = FeedForward()
    return _functional(lambda left, right: layers.Dense(2)(shared(left) - shared(shared(right))), (6,), (6,))


def _nested():
    inner = _functional(lambda x: FeedForward()(x) + x, (6,))
    return _functional(lambda x: layers.Dense(2)(inner(x)), (6,))


def _subclassed():
    model = Encoder()
    model(np.zeros((1, 6), "float32"))
    return model


# name -> (function that makes the model, how many weights it has to prune)
COMPOSITES = {
    "containers": (_containers, 10),
    "text": (_text, 7),
    "shared": (_shared, 3),
    "nested": (_nested, 3),
    "subclassed": (_subclassed, 11),
}


def inputs_of(model, rng, size=4):
    """A batch of inputs that fit a model."""
    specs = [(tensor.shape[1:], tensor.dtype) for tensor in getattr(model, "inputs", None) or ()] or [((6,), "float32")]
    batch = [
        rng.integers(0, 10, (size, *shape)).astype("int32")
        if keras.backend.is_int_dtype(dtype)
        else rng.standard_normal((size, *shape)).astype("float32")
        for shape, dtype in specs
    ]
    return batch[0] if len(batch) == 1 else batch
