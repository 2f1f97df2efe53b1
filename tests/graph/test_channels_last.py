"""Models with channels first compute the same with channels last, and are transposed once."""

import collections

import keras
import numpy as np
import pytest
from keras import layers, ops

from keras_mot.graph import channels_last
from keras_mot.graph.rewrite import flatten
from keras_mot.quantization import quantize_model, quantize_post_training
from keras_mot.sparsity import ConstantSparsity, prune_low_magnitude, update_pruning_step


class Scaled(layers.Layer):
    """A layer of a user's own, which needs the channels where they were."""

    def call(self, inputs):
        return inputs * ops.reshape(ops.arange(1.0, inputs.shape[1] + 1.0), (1, -1, 1, 1))


def network(first):
    """The same network with channels first or last; both have the same weights in the same order."""
    form = {"data_format": "channels_first" if first else "channels_last"}
    channels, (rows, columns) = (1, (2, 3)) if first else (-1, (1, 2))
    inputs = keras.Input((3, 12, 10) if first else (12, 10, 3))
    x = layers.Conv2D(8, 3, padding="same", use_bias=False, name="stem", **form)(inputs)
    x = layers.ReLU()(layers.BatchNormalization(axis=channels)(x))
    y = layers.BatchNormalization(axis=channels)(layers.DepthwiseConv2D(3, padding="same", **form)(x))
    y = layers.SeparableConv2D(8, 3, padding="same", activation="relu", **form)(y)
    gate = layers.Dense(8, activation="sigmoid")(layers.GlobalAveragePooling2D(**form)(y))
    y = y * layers.Reshape((8, 1, 1) if first else (1, 1, 8))(gate)
    x = layers.PReLU(shared_axes=[rows, columns], name="slopes")(layers.Add()([x, y]))
    x = layers.SpatialDropout2D(0.1, **form)(layers.Dropout(0.1)(x))
    pooled = [layers.MaxPooling2D(2, **form)(x), layers.AveragePooling2D(2, **form)(x)]
    x = layers.Activation("relu")(layers.BatchNormalization(axis=channels)(layers.Concatenate(axis=channels)(pooled)))
    x = layers.Conv2D(16, 3, strides=2, **form)(layers.ZeroPadding2D(1, **form)(x))
    x = x - ops.mean(x, axis=(rows, columns), keepdims=True)
    x = x * np.linspace(0.5, 2.0, 16, dtype="float32").reshape((16, 1, 1) if first else (1, 1, 16))
    x = layers.Conv2DTranspose(6, 2, strides=2, **form)(ops.max_pool(x, 2, 1, "same", **form))
    x = layers.LayerNormalization(axis=channels)(layers.UpSampling2D(2, **form)(x))
    plain = x if first else layers.Permute((3, 1, 2))(x)
    both = [layers.Flatten(**form)(x), layers.Flatten()(plain)]
    return keras.Model(inputs, layers.Dense(5)(layers.Concatenate()(both)))


def randomize(model, rng):
    for variable in model.trainable_variables:
        variable.assign(rng.normal(0.0, 0.3, variable.shape))
    for variable in model.variables:
        if "moving_variance" in variable.path or "gamma" in variable.path:
            variable.assign(rng.uniform(0.5, 1.5, variable.shape))


@pytest.fixture
def pair(rng):
    first, last = network(True), network(False)
    randomize(last, rng)
    for target, source in zip(first.variables, last.variables, strict=True):
        value = ops.convert_to_numpy(source)
        target.assign(np.moveaxis(value, -1, 0) if "slopes" in source.path else value)
    return first, last


def outputs_of(model, values):
    return ops.convert_to_numpy(model(values))


def transpositions(model):
    return collections.Counter(type(each).__name__ for each in model.operations)["Moveaxis"]


def test_the_same_numbers_by_one_transposition(pair, rng):
    first, last = pair
    turned, origins = channels_last.with_channels_last(flatten(first))
    values = rng.standard_normal((4, 12, 10, 3)).astype("float32")
    found = outputs_of(turned, np.moveaxis(values, -1, 1))
    np.testing.assert_allclose(found, outputs_of(last, values), atol=1e-4)
    # Of the input, of the gate, which is reshaped, and for the layer that asks for the order of before.
    assert transpositions(turned) == 3
    assert origins.of(turned.get_layer("stem")) is not turned.get_layer("stem")
    assert not any(map(channels_last.has_channels_first, turned.operations))


def test_sequences(rng):
    inputs = keras.Input((4, 16))
    x = layers.Conv1D(6, 3, padding="same", data_format="channels_first", name="conv")(inputs)
    outputs = layers.AveragePooling1D(2, data_format="channels_first")(x)
    turned, _ = channels_last.with_channels_last(flatten(keras.Model(inputs, outputs)))
    values = rng.standard_normal((2, 4, 16)).astype("float32")
    kernel, bias = turned.get_layer("conv").get_weights()
    again = ops.convert_to_numpy(ops.conv(np.moveaxis(values, 1, -1), kernel, padding="same")) + bias
    expected = np.moveaxis(again.reshape(2, 8, 2, 6).mean(2), -1, 1)
    np.testing.assert_allclose(outputs_of(turned, values), expected, atol=1e-5)


def test_what_needs_the_channels_first_gets_them(rng):
    inputs = keras.Input((3, 6, 6))
    x = layers.Conv2D(4, 3, data_format="channels_first", name="conv")(inputs)
    x = Scaled(name="scaled")(x)
    outputs = layers.Softmax(axis=1)(x)
    turned, _ = channels_last.with_channels_last(flatten(keras.Model(inputs, outputs)))
    values = rng.standard_normal((2, 3, 6, 6)).astype("float32")
    kernel, bias = turned.get_layer("conv").get_weights()
    again = ops.convert_to_numpy(ops.conv(np.moveaxis(values, 1, -1), kernel)) + bias
    expected = ops.softmax(np.moveaxis(again, -1, 1) * np.arange(1.0, 5.0).reshape(1, 4, 1, 1), axis=1)
    np.testing.assert_allclose(outputs_of(turned, values), ops.convert_to_numpy(expected), atol=1e-5)


def test_a_shared_layer_stays_shared(rng):
    inputs = keras.Input((3, 6, 6))
    conv = layers.Conv2D(3, 3, padding="same", data_format="channels_first", name="conv")
    norm = layers.BatchNormalization(axis=1, name="norm")
    outputs = norm(conv(norm(conv(inputs))))
    model = keras.Model(inputs, outputs)
    randomize(model, rng)
    turned, _ = channels_last.with_channels_last(flatten(model))
    assert len(turned.variables) == len(model.variables)
    values = rng.standard_normal((2, 3, 6, 6)).astype("float32")
    kernel, bias, *_ = [ops.convert_to_numpy(each) for each in conv.variables]
    x = values
    for _ in range(2):
        x = np.moveaxis(ops.convert_to_numpy(ops.conv(np.moveaxis(x, 1, -1), kernel, padding="same")) + bias, -1, 1)
        x = ops.convert_to_numpy(norm(x))
    np.testing.assert_allclose(outputs_of(turned, values), x, atol=1e-4)


def test_models_with_channels_last_stay_as_they_are():
    model = keras.Sequential([layers.Input((6, 6, 3)), layers.Conv2D(4, 3), layers.Flatten()])
    flat = flatten(model)
    assert channels_last.with_channels_last(flat)[0] is flat


def test_integers_as_of_channels_last(pair, rng):
    first, last = pair
    values = rng.standard_normal((64, 12, 10, 3)).astype("float32")
    quantized = quantize_post_training(first, calibration_data=np.moveaxis(values, -1, 1), placement="integer")
    expected = outputs_of(last, values)
    noise = outputs_of(quantized, np.moveaxis(values, -1, 1)) - expected
    assert np.square(noise).mean() < np.square(expected).mean() / 30  # about 15 dB, of random weights
    by_last = quantize_post_training(last, calibration_data=values, placement="integer")
    of_last = outputs_of(by_last, values) - expected
    assert np.square(noise).mean() < 1.5 * np.square(of_last).mean()


def test_zeros_stay(rng):
    inputs = keras.Input((3, 8, 8))
    x = layers.Conv2D(8, 3, data_format="channels_first", name="conv", activation="relu")(inputs)
    model = keras.Model(inputs, layers.Dense(2)(layers.GlobalAveragePooling2D(data_format="channels_first")(x)))
    pruned = prune_low_magnitude(model, ConstantSparsity(0.5, 0))
    update_pruning_step(pruned)
    quantized = quantize_model(pruned)
    kernel = next(each for each in quantized.variables if each.path.endswith("conv/kernel"))
    assert np.mean(ops.convert_to_numpy(kernel) == 0) == pytest.approx(0.5, abs=0.01)


@pytest.mark.parametrize(
    "change",
    [
        lambda x: x * np.linspace(1.0, 2.0, 5, dtype="float32"),  # along the columns
        lambda x: x + ops.convert_to_tensor(np.linspace(1.0, 2.0, 5, dtype="float32")),
        lambda x: x - np.ones((4, 6, 1), "float32") * np.arange(6.0, dtype="float32")[:, None],
        lambda x: ops.maximum(x, 0.25),
        lambda x: layers.Rescaling(0.5, 1.0)(x),
    ],
)
def test_constants_meet_the_axes_that_they_met(change, rng):
    inputs = keras.Input((3, 6, 5))
    x = layers.Conv2D(4, 3, padding="same", data_format="channels_first", name="conv")(inputs)
    turned, _ = channels_last.with_channels_last(flatten(keras.Model(inputs, change(x))))
    values = rng.standard_normal((2, 3, 6, 5)).astype("float32")
    kernel, bias = turned.get_layer("conv").get_weights()
    before = ops.convert_to_numpy(ops.conv(np.moveaxis(values, 1, -1), kernel, padding="same")) + bias
    expected = change(ops.convert_to_tensor(np.moveaxis(before, -1, 1).astype("float32")))
    np.testing.assert_allclose(outputs_of(turned, values), ops.convert_to_numpy(expected), atol=1e-5)
