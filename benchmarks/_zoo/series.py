"""Models of time series in the style of Keras's published examples."""

import keras
import numpy as np
from keras import layers, ops

from .data import signals, vectors
from .registry import architecture, register


@architecture("series", signals(64, 1), decides=True, quick=True)
def series_convolutions():
    inputs = x = keras.Input((64, 1))
    for _ in range(3):
        x = layers.ReLU()(layers.BatchNormalization()(layers.Conv1D(16, 3, padding="same")(x)))
    return keras.Model(inputs, layers.Dense(2, activation="softmax")(layers.GlobalAveragePooling1D()(x)))


@architecture("series", signals(48, 1), decides=True)
def series_transformer():
    inputs = x = keras.Input((48, 1))
    for _ in range(2):
        y = layers.MultiHeadAttention(num_heads=2, key_dim=8, dropout=0.1)(x, x)
        start = layers.LayerNormalization(epsilon=1e-6)(layers.Dropout(0.1)(y)) + x
        y = layers.Dropout(0.1)(layers.Conv1D(4, 1, activation="relu")(start))
        x = layers.LayerNormalization(epsilon=1e-6)(layers.Conv1D(1, 1)(y)) + start
    x = layers.GlobalAveragePooling1D(data_format="channels_last")(x)
    x = layers.Dropout(0.4)(layers.Dense(16, activation="relu")(layers.Concatenate()([x, layers.Flatten()(inputs)])))
    return keras.Model(inputs, layers.Dense(2, activation="softmax")(x))


@architecture("series", signals(24, 7), "recurrent")
def weather_lstm():
    inputs = keras.Input((24, 7))
    return keras.Model(inputs, layers.Dense(1)(layers.LSTM(16)(inputs)))


@architecture("series", signals(32, 2))
def temporal_convolutions():
    """Causal residual blocks that a class of blocks builds, with weights outside `build`."""
    inputs = x = keras.Input((32, 2))
    for rate in (1, 2, 4):
        x = ResidualCausal(12, rate)(x)
    return keras.Model(inputs, layers.Dense(3)(x[:, -1]))


@register
class ResidualCausal(layers.Layer):
    def __init__(self, filters, rate, **kwargs):
        super().__init__(**kwargs)
        self.filters, self.rate = filters, rate
        self.convolutions = [layers.Conv1D(filters, 3, dilation_rate=rate, padding="causal") for _ in range(2)]
        self.norms = [layers.BatchNormalization(), layers.BatchNormalization()]
        self.match = layers.Conv1D(filters, 1)
        self.dropout = layers.SpatialDropout1D(0.1)

    def call(self, inputs, training=None):
        x = inputs
        for convolution, norm in zip(self.convolutions, self.norms, strict=True):
            x = self.dropout(ops.relu(norm(convolution(x), training=training)), training=training)
        return ops.relu(x + (inputs if inputs.shape[-1] == self.filters else self.match(inputs)))

    def get_config(self):
        return {**super().get_config(), "filters": self.filters, "rate": self.rate}


class GraphConvolution(layers.Layer):
    """Aggregates neighbours by a constant adjacency; raw weights beside no layer, and no configuration."""

    def __init__(self, width, adjacency, **kwargs):
        super().__init__(**kwargs)
        self.width, self.adjacency = width, np.asarray(adjacency, "float32")

    def build(self, input_shape):
        self.weight = self.add_weight(shape=(input_shape[-1], self.width), name="weight")

    def call(self, features):  # (batch, time, nodes, features)
        own = ops.matmul(features, self.weight)
        near = ops.matmul(ops.convert_to_tensor(self.adjacency), ops.matmul(features, self.weight))
        return ops.relu(ops.concatenate([own, near], axis=-1))


class GraphLSTM(layers.Layer):
    """A graph convolution, then an LSTM over each node's series."""

    def __init__(self, width, units, steps, adjacency, **kwargs):
        super().__init__(**kwargs)
        self.units, self.steps, self.nodes = units, steps, len(adjacency)
        self.convolution = GraphConvolution(width, adjacency)
        self.lstm, self.dense = layers.LSTM(units, activation="relu"), layers.Dense(steps)

    def call(self, inputs):  # (batch, time, nodes, features)
        x = ops.transpose(self.convolution(inputs), (0, 2, 1, 3))
        x = ops.reshape(x, (-1, x.shape[2], x.shape[3]))
        x = self.dense(self.lstm(x))
        return ops.transpose(ops.reshape(x, (-1, self.nodes, self.steps)), (0, 2, 1))


@architecture(
    "series",
    vectors(8, 5, 1),
    "composite",
    "no_config",
    "recurrent",
    custom_objects={"GraphLSTM": GraphLSTM, "GraphConvolution": GraphConvolution},
)
def traffic_graph():
    near = np.eye(5)
    near[:-1, 1:] += 0.5 * np.eye(4)
    near[1:, :-1] += 0.5 * np.eye(4)
    inputs = keras.Input((8, 5, 1))
    return keras.Model(inputs, GraphLSTM(6, 12, 3, near)(inputs))


@register
class PeepholeCell(layers.Layer):
    """An own recurrent cell: a gate that looks at the state."""

    def __init__(self, units, **kwargs):
        super().__init__(**kwargs)
        self.units, self.state_size, self.output_size = units, units, units

    def build(self, input_shape):
        self.kernel = self.add_weight(shape=(input_shape[-1], 2 * self.units), name="kernel")
        self.recurrent_kernel = self.add_weight(shape=(self.units, 2 * self.units), name="recurrent_kernel")
        self.bias = self.add_weight(shape=(2 * self.units,), initializer="zeros", name="bias")
        self.built = True

    def call(self, inputs, states):
        z = ops.matmul(inputs, self.kernel) + ops.matmul(states[0], self.recurrent_kernel) + self.bias
        gate, value = ops.split(z, 2, axis=-1)
        gate = ops.sigmoid(gate)
        state = gate * states[0] + (1 - gate) * ops.tanh(value)
        return state, [state]

    def get_config(self):
        return {**super().get_config(), "units": self.units}


@architecture("series", signals(16, 3), "own_cell", "recurrent")
def own_recurrent_cell():
    inputs = keras.Input((16, 3))
    x = layers.RNN(PeepholeCell(12), return_sequences=True)(inputs)
    x = layers.RNN([layers.LSTMCell(8), layers.GRUCell(8)])(x)
    return keras.Model(inputs, layers.Dense(2)(x))


@architecture("series", signals(24, 3), "rnn_dropout", "recurrent")
def dropout_recurrence():
    """Dropout within an LSTM and within a GRU."""
    inputs = keras.Input((24, 3))
    x = layers.LSTM(12, return_sequences=True, dropout=0.2, recurrent_dropout=0.2)(inputs)
    x = layers.GRU(12, dropout=0.3)(x)
    return keras.Model(inputs, layers.Dense(2)(x))


@architecture("series", signals(32, 1))
def anomaly_autoencoder():
    inputs = keras.Input((32, 1))
    x = layers.Conv1D(12, 7, strides=2, padding="same", activation="relu")(inputs)
    x = layers.Conv1D(8, 7, strides=2, padding="same", activation="relu")(layers.Dropout(0.2)(x))
    x = layers.Conv1DTranspose(8, 7, strides=2, padding="same", activation="relu")(x)
    x = layers.Conv1DTranspose(12, 7, strides=2, padding="same", activation="relu")(layers.Dropout(0.2)(x))
    return keras.Model(inputs, layers.Conv1DTranspose(1, 7, padding="same")(x))


@architecture("series", signals(6, 8), "subclassed")
def time_distributed_network():
    """A small network applied at each time, and attention pooling with `Dot`."""
    inner = keras.Sequential([keras.Input((8,)), layers.Dense(12, activation="relu"), layers.Dense(8)])
    inputs = keras.Input((6, 8))
    x = layers.TimeDistributed(inner)(inputs)
    x = layers.ConvLSTM1D(4, 3, padding="same")(layers.Reshape((6, 8, 1))(x))
    return keras.Model(inputs, layers.Dense(2)(layers.Flatten()(x)))
