"""Models of tables: lookups, normalization, wide and deep ones, transformers over columns."""

import keras
import numpy as np
from keras import layers, ops

from .data import choices, together, tokens, vectors
from .registry import architecture, register

COLORS, SIZES = ("red", "green", "blue", "gray"), ("small", "medium", "large")


def _spread(*factors):
    """Columns of very different size."""
    make = vectors(len(factors))
    return lambda count, generator: (make(count, generator) * factors + np.array(factors) * 2).astype("float32")


def _adapted(layer, factors):
    layer.adapt(_spread(*factors)(256, np.random.default_rng(0)))
    return layer


def _number(scale):
    return lambda count, generator: (scale * (2 + generator.normal(size=(count, 1)))).astype("float32")


@architecture(
    "tables",
    together(color=choices(*COLORS), rooms=choices(1, 2, 3, 4), area=_number(80.0)),
    "lookup",
    "strings",
    decides=True,
    backends=("tensorflow",),
)
def structured_data():
    """Strings and whole numbers are looked up inside the model, a number is normalized."""
    color = keras.Input((1,), dtype="string", name="color")
    rooms = keras.Input((1,), dtype="int64", name="rooms")
    area = keras.Input((1,), name="area")
    normalize = layers.Normalization(axis=None, mean=160.0, variance=6400.0)
    parts = [
        layers.StringLookup(vocabulary=list(COLORS), output_mode="one_hot")(color),
        layers.IntegerLookup(vocabulary=[1, 2, 3, 4], output_mode="one_hot")(rooms),
        normalize(area),
    ]
    x = layers.Dense(32, activation="relu")(layers.concatenate(parts))
    x = layers.Dropout(0.5)(x)
    inputs = {"color": color, "rooms": rooms, "area": area}
    return keras.Model(inputs, layers.Dense(1, activation="sigmoid")(x))


@architecture("tables", together(rooms=choices(1, 2, 3, 4), age=_number(30.0), numbers=_spread(1.0, 40.0)), "lookup")
def integer_columns():
    """Lookups, buckets and one-hot columns of numbers only."""
    rooms = keras.Input((1,), dtype="int64", name="rooms")
    age, numbers = keras.Input((1,), name="age"), keras.Input((2,), name="numbers")
    buckets = layers.Discretization(bin_boundaries=[20.0, 40.0, 60.0, 80.0])(age)
    parts = [
        layers.CategoryEncoding(num_tokens=5, output_mode="one_hot")(rooms),
        layers.Flatten()(layers.Embedding(5, 4)(buckets)),
        _adapted(layers.Normalization(), (1.0, 40.0))(numbers),
    ]
    x = layers.Dense(32, activation="relu")(layers.Concatenate()(parts))
    return keras.Model({"rooms": rooms, "age": age, "numbers": numbers}, layers.Dense(1)(x))


@architecture(
    "tables",
    together(area=_number(80.0), color=choices(*COLORS), size=choices(*SIZES)),
    "lookup",
    "strings",
    backends=("tensorflow",),
)
def feature_space():
    """`FeatureSpace` before a dense net, in one model."""
    from keras.utils import FeatureSpace

    space = FeatureSpace(
        features={
            "color": FeatureSpace.string_categorical(num_oov_indices=1),
            "size": FeatureSpace.string_categorical(num_oov_indices=1),
            "area": FeatureSpace.float_normalized(),
        },
        crosses=[FeatureSpace.cross(("color", "size"), crossing_dim=8)],
        output_mode="concat",
    )
    import tensorflow as tf

    generator = np.random.default_rng(0)
    table = {
        "color": np.array(COLORS)[generator.integers(0, 4, 64)],
        "size": np.array(SIZES)[generator.integers(0, 3, 64)],
        "area": (80 * (2 + generator.normal(size=64))).astype("float32"),
    }
    space.adapt(tf.data.Dataset.from_tensor_slices(table))
    x = layers.Dense(32, activation="relu")(space.get_encoded_features())
    return keras.Model(space.get_inputs(), layers.Dense(1, activation="sigmoid")(layers.Dropout(0.5)(x)))


@architecture("tables", together(wide=vectors(12), deep=tokens(4, 20), numbers=_spread(1.0, 3.0, 10.0)), quick=True)
def wide_and_deep():
    wide, numbers = keras.Input((12,), name="wide"), keras.Input((3,), name="numbers")
    deep = keras.Input((4,), dtype="int32", name="deep")
    x = layers.Flatten()(layers.Embedding(20, 6)(deep))
    x = layers.Concatenate()([x, _adapted(layers.Normalization(), (1.0, 3.0, 10.0))(numbers)])
    for units in (32, 16):
        x = layers.Dropout(0.2)(layers.ReLU()(layers.BatchNormalization()(layers.Dense(units)(x))))
    merged = layers.concatenate([layers.BatchNormalization()(wide), x])
    inputs = {"wide": wide, "deep": deep, "numbers": numbers}
    return keras.Model(inputs, layers.Dense(1, activation="sigmoid")(merged))


@architecture("tables", together(tokens(6, 10), vectors(4)), decides=True)
def tab_transformer():
    """Attention over columns, each with an embedding that is looked up by `inputs[:, index]`."""
    categories, numbers = keras.Input((6,), dtype="int32"), keras.Input((4,))
    scale = keras.initializers.RandomNormal(0.0, 0.6)
    columns = [layers.Embedding(10, 16, embeddings_initializer=scale)(categories[:, index]) for index in range(6)]
    x = ops.stack(columns, axis=1)
    x = x + layers.Embedding(6, 16)(ops.arange(0, 6, 1))
    for _ in range(2):
        y = layers.MultiHeadAttention(2, 16, dropout=0.1)(x, x)
        x = layers.LayerNormalization(epsilon=1e-6)(layers.Add()([y, x]))
        y = layers.Dense(16)(layers.Dropout(0.1)(layers.Dense(32, activation="gelu")(x)))
        x = layers.LayerNormalization(epsilon=1e-6)(layers.Add()([y, x]))
    x = layers.Concatenate()([layers.Flatten()(x), layers.LayerNormalization(epsilon=1e-6)(numbers)])
    for units in (32, 16):
        x = layers.Dropout(0.2)(layers.Dense(units, activation="selu")(layers.BatchNormalization()(x)))
    return keras.Model([categories, numbers], layers.Dense(3, activation="softmax")(x))


@register
class GatedLinearUnit(layers.Layer):
    def __init__(self, units):
        super().__init__()
        self.units = units
        self.linear, self.gate = layers.Dense(units), layers.Dense(units, activation="sigmoid")

    def call(self, inputs):
        return self.linear(inputs) * self.gate(inputs)


@register
class GatedResidual(layers.Layer):
    """Its projection is made in `build`; no configuration but what Keras notes by itself."""

    def __init__(self, units, rate):
        super().__init__()
        self.units, self.rate = units, rate
        self.first, self.second = layers.Dense(units, activation="elu"), layers.Dense(units)
        self.dropout, self.gate = layers.Dropout(rate), GatedLinearUnit(units)
        self.norm, self.project = layers.LayerNormalization(), layers.Dense(units)

    def call(self, inputs):
        x = self.dropout(self.second(self.first(inputs)))
        if inputs.shape[-1] != self.units:
            inputs = self.project(inputs)
        return self.norm(inputs + self.gate(x))


@register
class VariableSelection(layers.Layer):
    """Weighs columns, each with a net of its own, in a list."""

    def __init__(self, count, units, rate):
        super().__init__()
        self.count, self.units, self.rate = count, units, rate
        self.nets = [GatedResidual(units, rate) for _ in range(count)]
        self.joined, self.weights_of = GatedResidual(units, rate), layers.Dense(count, activation="softmax")

    def call(self, inputs):
        columns = [inputs[:, index : index + 1] for index in range(self.count)]
        shares = ops.expand_dims(self.weights_of(self.joined(inputs)), -1)
        values = ops.stack([net(column) for net, column in zip(self.nets, columns, strict=True)], axis=1)
        return ops.squeeze(ops.matmul(ops.transpose(shares, (0, 2, 1)), values), axis=1)


@architecture("tables", vectors(5), "composite", "no_config", "uncalled", decides=True)
def gated_residual_network():
    """Some of its projections are never called."""
    inputs = keras.Input((5,))
    x = GatedResidual(16, 0.15)(VariableSelection(5, 16, 0.15)(inputs))
    return keras.Model(inputs, layers.Dense(2, activation="softmax")(x))


@register
class SoftTree(layers.Layer):
    """A tree whose nodes send a sample both ways: weights of its own beside a layer."""

    def __init__(self, depth, features, classes, **kwargs):
        super().__init__(**kwargs)
        self.depth, self.features, self.classes = depth, features, classes
        self.decide = layers.Dense(2**depth, activation="sigmoid", name="decide")

    def build(self, input_shape):
        self.leaves = self.add_weight(shape=(2**self.depth, self.classes), initializer="random_normal", name="leaves")
        self.built = True

    def call(self, features):
        chances = ops.expand_dims(self.decide(features), axis=2)
        chances = ops.concatenate([chances, 1 - chances], axis=2)
        reach = ops.ones((ops.shape(features)[0], 1, 1))
        start, end = 1, 2
        for level in range(self.depth):
            reach = ops.reshape(reach, (-1, 2**level, 1))
            reach = ops.tile(reach, (1, 1, 2)) * chances[:, start:end, :]
            start, end = end, end + 2 ** (level + 1)
        reach = ops.reshape(reach, (-1, 2**self.depth))
        return ops.matmul(reach, ops.softmax(5.0 * self.leaves))

    def get_config(self):
        names = ("depth", "features", "classes")
        return {**super().get_config(), **{name: getattr(self, name) for name in names}}


@architecture("tables", vectors(8), "composite", decides=True)
def soft_forest():
    inputs = keras.Input((8,))
    x = layers.BatchNormalization()(inputs)
    trees = [SoftTree(3, 8, 3)(x) for _ in range(3)]
    return keras.Model(inputs, layers.Average()(trees))
