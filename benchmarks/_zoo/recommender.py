"""Recommender models: of keras_rs, where it is installed, and in the style of published examples."""

import importlib.util

import keras
import numpy as np
from keras import layers, ops

from .data import together, tokens, vectors
from .registry import architecture, register

HAS_KERAS_RS = importlib.util.find_spec("keras_rs") is not None


@register
class Recommender(keras.Model):
    """Products of embeddings, and biases: `Embedding(...)(inputs[:, 0])` of a subclassed model on integers."""

    def __init__(self, users=30, films=40, width=8, **kwargs):
        super().__init__(**kwargs)
        spread = keras.initializers.RandomNormal(0.0, 0.5)
        self.user, self.film = (
            layers.Embedding(count, width, embeddings_initializer=spread) for count in (users, films)
        )
        self.user_bias, self.film_bias = (layers.Embedding(c, 1, embeddings_initializer=spread) for c in (users, films))

    def call(self, inputs):
        user, film = self.user(inputs[:, 0]), self.film(inputs[:, 1])
        product = ops.sum(user * film, axis=-1, keepdims=True)
        return ops.nn.sigmoid(product + self.user_bias(inputs[:, 0]) + self.film_bias(inputs[:, 1]))


def _pairs(count, generator):
    return np.stack([generator.integers(0, 30, count), generator.integers(0, 40, count)], axis=1).astype("int32")


@architecture("recommender", _pairs, "subclassed", quick=True)
def collaborative_filter():
    model = Recommender()
    model(np.zeros((1, 2), "int32"))
    return model


@architecture("recommender", together(tokens(8, 40), tokens((), 40)), "composite")
def behavior_sequence():
    """A transformer over what somebody has seen and what is offered, with the target joined in."""
    history, target = keras.Input((8,), dtype="int32"), keras.Input((), dtype="int32")
    embedding = layers.Embedding(40, 16, embeddings_initializer=keras.initializers.RandomNormal(0.0, 0.5))
    joined = layers.Concatenate(axis=1)([embedding(history), layers.Reshape((1, 16))(embedding(target))])
    places = layers.Embedding(9, 16)(np.arange(9))
    x = joined + places
    y = layers.Dropout(0.1)(layers.MultiHeadAttention(2, 16, dropout=0.1)(x, x))
    x = layers.LeakyReLU()(layers.LayerNormalization()(layers.Add()([x, y])))
    y = layers.Dropout(0.1)(layers.Dense(16)(x))
    x = layers.Flatten()(layers.LayerNormalization()(layers.Add()([x, y])))
    x = layers.Dropout(0.1)(layers.LeakyReLU()(layers.BatchNormalization()(layers.Dense(24)(x))))
    return keras.Model([history, target], layers.Dense(1)(x))


@register
class FeatureCrossing(layers.Layer):
    """A factorization of pairs of fields, in a layer that owns its weights."""

    def __init__(self, width, **kwargs):
        super().__init__(**kwargs)
        self.width = width

    def build(self, input_shape):
        self.factors = self.add_weight(shape=(input_shape[-1], self.width), name="factors")
        self.built = True

    def call(self, x):
        squares = ops.square(ops.matmul(x, self.factors))
        return 0.5 * ops.sum(squares - ops.matmul(ops.square(x), ops.square(self.factors)), axis=1, keepdims=True)

    def get_config(self):
        return {**super().get_config(), "width": self.width}


@architecture("recommender", vectors(16), "composite")
def deep_factorization_machine():
    inputs = keras.Input((16,))
    deep = layers.Dense(12, activation="relu")(layers.Dense(24, activation="relu")(inputs))
    parts = [layers.Dense(1)(inputs), FeatureCrossing(6)(inputs), layers.Dense(1)(deep)]
    return keras.Model(inputs, layers.Activation("sigmoid")(layers.Add()(parts)))


if HAS_KERAS_RS:
    import keras_rs

    @architecture("recommender", together(dense=vectors(6), sparse=tokens(4, 20)), "keras_rs")
    def dlrm():
        """Dense features and embeddings interact by dot products."""
        dense = keras.Input((6,), name="dense")
        sparse = keras.Input((4,), dtype="int32", name="sparse")
        spread = keras.initializers.RandomNormal(0.0, 0.5)
        bottom = keras.Sequential([layers.Dense(16, activation="relu"), layers.Dense(8, activation="relu")])(dense)
        embedded = [layers.Embedding(20, 8, embeddings_initializer=spread)(sparse[:, index]) for index in range(4)]
        crossed = keras_rs.layers.DotInteraction()([bottom, *embedded])
        top = keras.Sequential([layers.Dense(24, activation="relu"), layers.Dense(1, activation="sigmoid")])
        return keras.Model({"dense": dense, "sparse": sparse}, top(layers.Concatenate()([bottom, crossed])))

    @architecture("recommender", vectors(12), "keras_rs")
    def deep_and_cross():
        inputs = keras.Input((12,))
        x = keras_rs.layers.FeatureCross(projection_dim=6)(inputs, keras_rs.layers.FeatureCross()(inputs, inputs))
        x = layers.Dense(24, activation="relu")(x)
        return keras.Model(inputs, layers.Dense(1)(x))

    @register
    class TwoTowers(keras.Model):
        """Queries and candidates, each with a tower; the scores are products. Has a loss of its own."""

        def __init__(self, queries=30, candidates=40, width=8, **kwargs):
            super().__init__(**kwargs)
            spread = keras.initializers.RandomNormal(0.0, 0.5)
            self.query, self.candidate = (
                keras.Sequential(
                    [
                        layers.Embedding(count, 16, embeddings_initializer=spread),
                        layers.Dense(16, activation="relu"),
                        layers.Dense(width),
                    ]
                )
                for count in (queries, candidates)
            )
            self.retrieval = keras_rs.layers.BruteForceRetrieval(k=5, return_scores=False)

        def call(self, inputs):
            query, candidate = self.query(inputs["query"]), self.candidate(inputs["candidate"])
            return ops.sum(query * candidate, axis=-1, keepdims=True)

    @architecture(
        "recommender", together(candidate=tokens((), 40), query=tokens((), 30)), "subclassed", "uncalled", "keras_rs"
    )
    def two_towers():
        model = TwoTowers()
        model({"candidate": np.zeros(1, "int32"), "query": np.zeros(1, "int32")})
        return model
