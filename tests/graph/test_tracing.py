"""Tests of `trace`: subclassed models as graphs."""

import keras
import numpy as np
import pytest
from keras import layers, ops

from keras_mot.export import export_litert
from keras_mot.graph import flatten, fold_batch_norm, operations_of, trace
from keras_mot.layers import copy_model, transformed_weights
from keras_mot.quantization import quantize_post_training
from keras_mot.transforms import FakeQuantize


@keras.saving.register_keras_serializable("tests")
class Block(keras.Model):
    """A convolution with batch normalization, and a shortcut."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.convolution = layers.Conv2D(3, 3, padding="same", use_bias=False)
        self.normalization = layers.BatchNormalization()

    def build(self, input_shape):
        self.convolution.build(input_shape)
        self.normalization.build(input_shape)

    def call(self, inputs, training=None):
        """Adds what the convolution finds."""
        return inputs + ops.relu(self.normalization(self.convolution(inputs), training=training))


@keras.saving.register_keras_serializable("tests")
class Network(keras.Model):
    """Two blocks and a head."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.blocks = [Block(name="first"), Block(name="second")]
        self.head = layers.Dense(4)

    def build(self, input_shape):
        for block in self.blocks:
            block.build(input_shape)
        self.head.build((None, input_shape[-1]))

    def call(self, inputs, training=None):
        """Features, averaged, classified."""
        for block in self.blocks:
            inputs = block(inputs, training=training)
        return self.head(ops.mean(inputs, axis=(1, 2)))


class Doubtful(keras.Model):
    """Looks at its inputs."""

    def build(self, input_shape):
        pass

    def call(self, inputs):
        """Twice the inputs, if they are positive."""
        return inputs * 2 if float(ops.max(inputs)) > 0 else inputs


class Two(keras.Model):
    """Takes a list."""

    def __init__(self):
        super().__init__()
        self.dense = layers.Dense(2)

    def build(self, input_shape):
        self.dense.build((None, 5))

    def call(self, inputs):
        """Both inputs joined."""
        return self.dense(ops.concatenate(inputs, axis=-1))


def images(count):
    return np.random.default_rng(0).normal(size=(count, 6, 6, 3)).astype("float32")


def called(model, inputs):
    model(inputs)
    return model


def values(model, inputs):
    return ops.convert_to_numpy(model(inputs, training=False))


def test_a_subclassed_model_of_subclassed_models_becomes_one_graph():
    model = called(Network(), images(1))
    traced = trace(model)
    kinds = [type(operation).__name__ for operation in operations_of(traced)]
    assert kinds.count("Conv2D") == kinds.count("BatchNormalization") == 2
    assert not any(isinstance(operation, keras.Model) for operation in operations_of(traced))
    np.testing.assert_allclose(values(traced, images(5)), values(model, images(5)), rtol=1e-5, atol=1e-6)
    assert {id(v) for v in traced.variables} == {id(v) for v in model.variables}
    folded = fold_batch_norm(traced)
    np.testing.assert_allclose(values(folded, images(5)), values(model, images(5)), rtol=1e-4, atol=1e-5)


def test_a_subclassed_model_in_a_functional_one():
    inputs = keras.Input((6, 6, 3))
    model = keras.Model(inputs, layers.GlobalMaxPooling2D()(Block()(inputs)))
    traced = trace(model)
    assert not any(isinstance(operation, keras.Model) for operation in operations_of(traced))
    np.testing.assert_allclose(values(traced, images(5)), values(model, images(5)), rtol=1e-5, atol=1e-6)
    assert trace(traced) is traced


class Named(keras.Model):
    """Blocks whose layers have one name, and two layers of that name of its own."""

    def __init__(self, depth=1):
        super().__init__()
        self.first, self.last = layers.Dense(4, name="dense"), layers.Dense(4, name="dense")
        self.blocks = [Named(depth - 1) for _ in range(2)] if depth else []
        self.normalization = layers.BatchNormalization(name="norm")

    def call(self, inputs):
        """One after the other."""
        x = self.normalization(self.first(inputs))
        for block in self.blocks:
            x = ops.tanh(block(x))
        return self.last(x)


def test_layers_of_one_name(tmp_path):
    """Names need not be unique in what was a subclassed model (it is about its layers, not about `call`)."""
    x = np.random.default_rng(0).normal(size=(64, 4)).astype("float32")
    model = called(Named(), x[:1])
    expected = values(model, x)
    traced = trace(model)
    assert {layer.name for layer in traced.layers[1:] if layer.weights} == {"dense", "norm"}
    assert model.first.name == "dense"
    np.testing.assert_allclose(values(traced, x), expected, rtol=1e-5, atol=1e-6)
    flat = flatten(traced)
    assert len({layer.name for layer in flat.layers}) == len(flat.layers)
    np.testing.assert_allclose(values(flat, x), expected, rtol=1e-5, atol=1e-6)
    flat.save(tmp_path / "flat.keras")
    loaded = keras.models.load_model(tmp_path / "flat.keras")
    np.testing.assert_allclose(values(loaded, x), expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(values(copy_model(traced), x), expected, rtol=1e-5, atol=1e-6)
    folded = fold_batch_norm(traced)
    assert sum(isinstance(layer, layers.BatchNormalization) for layer in folded.layers) == 0
    np.testing.assert_allclose(values(folded, x), expected, rtol=1e-4, atol=1e-5)
    assert all(layer.name == "dense" for layer in (model.first, model.last, model.blocks[0].first))
    quantized, same = (quantize_post_training(each, calibration_data=x) for each in (model, flat))
    np.testing.assert_array_equal(values(quantized, x), values(same, x))  # as with names of their own
    assert ((values(quantized, x) - expected) ** 2).sum() < 0.01 * (expected**2).sum()
    kernels = [weight for weight in transformed_weights(quantized) if weight.transform_of(FakeQuantize)]
    assert len(kernels) == 6


def test_several_inputs():
    data = [np.ones((1, 2), "float32"), np.ones((1, 3), "float32")]
    model = called(Two(), data)
    np.testing.assert_allclose(values(trace(model), data), values(model, data), rtol=1e-6)


def test_quantization_reads_subclassed_models(tmp_path):
    model = called(Network(), images(1))
    quantized = quantize_post_training(model, calibration_data=images(64))
    near = np.abs(values(quantized, images(20)) - values(model, images(20)))
    assert near.max() < 0.1 * np.abs(values(model, images(20))).max()
    assert not export_litert(quantized, tmp_path / "model.tflite", strict=True).float_operators


def test_errors():
    with pytest.raises(TypeError, match="Keras model"):
        trace("model")
    with pytest.raises(ValueError, match="Call the model once"):
        trace(Network())
    with pytest.raises(ValueError, match="cannot be traced"):
        trace(called(Doubtful(), np.ones((1, 3), "float32")))


def test_functions_within_a_call():
    class Decides(Network):
        def call(self, inputs):
            x = super().call(inputs)
            return ops.cond(ops.max(x) > 100.0, lambda: x / 100.0, lambda: x)

    with pytest.raises(ValueError, match="hands functions to 'Cond'"):
        trace(called(Decides(), images(1)))
