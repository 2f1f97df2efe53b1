"""Tests of `trace`: subclassed models as graphs."""

import keras
import numpy as np
import pytest
from keras import layers, ops

from keras_mot.export import export_litert
from keras_mot.graph import fold_batch_norm, operations_of, trace
from keras_mot.quantization import quantize_post_training


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
