"""What an operation is goes by its class, never by the name of that."""

import keras
import numpy as np
import pytest
from keras import layers, ops

from keras_mot.graph import find_foldable_batch_norms
from keras_mot.graph.functional import as_functional, is_a, kind_of
from keras_mot.layers.activation_quantizer import ActivationQuantizer
from keras_mot.quantization import quantize_post_training
from keras_mot.sparsity import remove_pruned_channels

NAMES = ["Concatenate", "Stack", "Add", "Multiply", "Mean", "Max", "Relu", "Softmax", "Reshape", "Square", "Negative"]


def users_layer(name):
    """A class of a name that Keras has, which computes something else."""
    return type(name, (layers.Layer,), {"call": lambda self, inputs: inputs * inputs - 3.0})


def users_operation(name):
    def compute_output_spec(self, inputs):
        return keras.KerasTensor(inputs.shape, inputs.dtype)

    methods = {"call": lambda self, inputs: inputs * inputs - 3.0, "compute_output_spec": compute_output_spec}
    return type(name, (keras.Operation,), methods)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("make", [users_layer, users_operation])
def test_a_users_class_is_none_of_keras_own(make, name):
    assert kind_of(make(name)()) is None


def test_operations_and_layers_of_keras_have_kinds():
    x = keras.Input((4, 4, 2))
    for tensor, kind in (
        (layers.Concatenate()([x, x]), "Concatenate"),
        (ops.concatenate([x, x]), "Concatenate"),
        (x + x, "Add"),
        (layers.Add()([x, x]), "Add"),
        (ops.relu(x), "Relu"),
        (layers.Conv2D(2, 1)(x), "Conv2D"),
    ):
        assert kind_of(tensor._keras_history.operation) == kind


def test_a_subclass_is_what_it_computes():
    class Configured(layers.Dense):
        def __init__(self, units=3, **kwargs):
            super().__init__(units, **kwargs)

        def build(self, input_shape):
            super().build(input_shape)

    class Standardized(layers.Dense):
        """Its kernel is not what is stored."""

        @property
        def kernel(self):
            return super().kernel - ops.mean(super().kernel)

    class Doubling(layers.Add):
        def _merge_function(self, inputs):
            return 2.0 * super()._merge_function(inputs)

    assert is_a(Configured(), layers.Dense)
    assert kind_of(Configured()) == "Dense"
    assert not is_a(Standardized(3), layers.Dense)
    assert not is_a(Doubling(), layers.Add)
    assert kind_of(Doubling()) is None


@pytest.mark.parametrize("name", ["Stack", "Concatenate", "Add"])
def test_a_convolution_before_a_users_layer_is_in_integers(name):
    inputs = keras.Input((6, 6, 2))
    outputs = users_layer(name)(name="own")(layers.Conv2D(3, 3, name="conv")(inputs))
    x = np.random.default_rng(0).standard_normal((8, 6, 6, 2)).astype("float32")
    quantized = quantize_post_training(keras.Model(inputs, outputs), calibration_data=x)
    (before,) = quantized.get_layer("own")._inbound_nodes[0].arguments.keras_tensors
    assert isinstance(before._keras_history.operation, ActivationQuantizer)


def test_channels_pass_no_users_operation_of_a_known_name():
    inputs = keras.Input((6, 6, 2))
    x = users_operation("Relu")()(layers.Conv2D(4, 3, name="conv")(inputs))
    model = keras.Model(inputs, layers.Conv2D(2, 3)(x))
    kernel, bias = model.get_layer("conv").get_weights()
    kernel[..., 0], bias[0] = 0.0, 0.0
    model.get_layer("conv").set_weights([kernel, bias])
    images = np.random.default_rng(0).standard_normal((2, 6, 6, 2)).astype("float32")
    smaller = remove_pruned_channels(model)
    np.testing.assert_allclose(*(ops.convert_to_numpy(item(images)) for item in (smaller, model)), atol=1e-5)


def overriding(method):
    """A functional model with a method of its own, as for a custom training step; it computes as others do."""

    def own(self, *args, **kwargs):
        return getattr(super(kind, self), method)(*args, **kwargs)

    members = {method: property(lambda self: super(kind, self).metrics) if method == "metrics" else own}
    kind = type("Custom", (keras.Model,), members)
    inputs = keras.Input((8,))
    return kind(inputs, layers.BatchNormalization()(layers.Dense(2)(inputs)))


@pytest.mark.parametrize("method", ["train_step", "test_step", "compute_loss", "compile", "metrics"])
def test_a_model_with_a_training_step_of_its_own_is_read(method):
    model, x = overriding(method), np.random.default_rng(0).standard_normal((16, 8)).astype("float32")
    quantized = quantize_post_training(model, calibration_data=x)
    expected = ops.convert_to_numpy(model(x))
    np.testing.assert_allclose(ops.convert_to_numpy(quantized(x)), expected, atol=0.05 * np.abs(expected).max())
    assert len(find_foldable_batch_norms(model)) == 1


def test_a_model_with_a_call_of_its_own_is_not_read():
    class Doubled(keras.Model):
        def call(self, inputs, training=None):
            return 2.0 * super().call(inputs, training=training)

    inputs = keras.Input((8,))
    assert as_functional(Doubled(inputs, layers.Dense(2)(inputs))) is None
