"""What an operation is goes by its class, never by the name of that."""

import keras
import numpy as np
import pytest
from keras import layers, ops

from keras_mot._keras import producer_of
from keras_mot.graph import find_foldable_batch_norms
from keras_mot.graph.functional import as_functional, is_a
from keras_mot.graph.kinds import Kind, bias_of, has_role, is_kind, kernel_of, kind_of, register_kind
from keras_mot.layers import WeightAxes, find_weights
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
    for tensor, name, role in (
        (layers.Concatenate()([x, x]), "concatenate", "joins"),
        (ops.concatenate([x, x]), "concatenate", "joins"),
        (x + x, "add", "merges"),
        (layers.Add()([x, x]), "add", "merges"),
        (x / 2.0, "divide", "merges"),
        (ops.relu(x), "relu", "activation"),
        (layers.ReLU()(x), "relu", "activation"),
        (layers.ReLU(6.0)(x), "relu6", "activation"),
        (layers.ReLU(negative_slope=0.2)(x), "leaky_relu", "activation"),
        (layers.Activation("gelu")(x), "gelu", "activation"),
        (layers.Conv2D(2, 1)(x), "conv", "weighted"),
        (layers.UpSampling2D()(x), "upsample", "moves"),
        (layers.UpSampling2D(interpolation="bilinear")(x), "resize_bilinear", "averages"),
        (ops.max(x, axis=1), "max", "picks"),
        (ops.mean(x, axis=1), "mean", "averages"),
        (layers.GlobalAveragePooling2D()(x), "mean", "averages"),
    ):
        operation = producer_of(tensor)
        assert (kind_of(operation).name, kind_of(operation).role) == (name, role)
        assert is_kind(operation, "another", name)
        assert has_role(operation, role)


@pytest.mark.parametrize(
    "layer",
    [
        layers.Dot(axes=1, normalize=True),
        layers.Activation(lambda x: x - ops.mean(x, axis=-1, keepdims=True)),
        layers.Activation(lambda x: x * float(x[0, 0])),
        layers.Softmax(axis=1),
    ],
)
def test_what_has_no_row(layer):
    assert kind_of(layer) is None


@pytest.mark.parametrize(
    "layer",
    [
        layers.ReLU(threshold=1.0),
        layers.ReLU(6.0, negative_slope=0.1),
        layers.ELU(0.5),
        layers.Activation(lambda x: x * ops.sigmoid(1.7 * x)),
        layers.Activation("softsign"),
    ],
)
def test_functions_of_each_element(layer):
    kind = kind_of(layer)
    assert kind.table
    assert kind.channels_stay
    assert not kind_of(layers.Softmax()).table


SINGLE = {
    "dropout": layers.Dropout(0.5),
    "noise": layers.GaussianNoise(0.5),
    "cropping": layers.Cropping2D(1),
    "nearest": layers.UpSampling2D(2),
    "bilinear": layers.UpSampling2D(2, interpolation="bilinear"),
    "bicubic": layers.UpSampling2D(2, interpolation="bicubic"),
    "flatten": layers.Flatten(),
    "permute": layers.Permute((3, 1, 2)),
    "zero padding": layers.ZeroPadding2D(1),
    "max pooling": layers.MaxPooling2D(2),
    "padded max pooling": layers.MaxPooling2D(2, padding="same"),
    "global max pooling": layers.GlobalMaxPooling2D(),
    "average pooling": layers.AveragePooling2D(2),
    "padded average pooling": layers.AveragePooling2D(3, 1, padding="same"),
    "global average pooling": layers.GlobalAveragePooling2D(),
    "PReLU": layers.PReLU(alpha_initializer="random_uniform", shared_axes=[1, 2]),
    "depthwise": layers.DepthwiseConv2D(3, bias_initializer="random_normal"),
    "convolution": layers.Conv2D(3, 3, bias_initializer="random_normal"),
    "batch normalization": layers.BatchNormalization(beta_initializer="random_normal"),
    "softmax": layers.Softmax(),
    "ELU": layers.ELU(),
    **{
        name: layers.Activation(name)
        for name in ("linear", "relu", "relu6", "leaky_relu", "sigmoid", "tanh", "silu", "hard_silu", "gelu", "mish")
    },
}


@pytest.mark.parametrize("name", SINGLE)
def test_the_table_says_what_layers_do(name):
    """Each property is read off the layer's own results."""
    keras.utils.set_random_seed(1)
    layer, kind = SINGLE[name], kind_of(SINGLE[name])
    x = 3.0 * np.random.default_rng(2).standard_normal((2, 6, 6, 3)).astype("float32")

    def call(inputs):
        return ops.convert_to_numpy(layer(inputs))

    plain = call(x)
    assert kind.homogeneous == np.allclose(call(2.5 * x), 2.5 * plain, atol=1e-4)
    other = x.copy()
    other[..., 1] += 1.0
    changed = np.abs(call(other) - plain).reshape(-1, plain.shape[-1]).max(axis=0) > 1e-6
    assert kind.channels_stay == (set(np.flatnonzero(changed) % 3) == {1})
    constants = call(np.broadcast_to(np.float32([-1.5, 0.5, 7.0]), x.shape))
    stays = plain.shape[-1] == 3 and np.allclose(constants, [-1.5, 0.5, 7.0], atol=1e-5)
    assert kind.keeps_constants == stays


class Row(layers.Layer):
    """A product with a matrix of outputs by inputs."""

    def build(self, input_shape):
        self.matrix = self.add_weight(shape=(3, input_shape[-1]), name="matrix")
        self.offset = self.add_weight(shape=(3,), name="offset")

    def call(self, inputs):
        return ops.matmul(inputs, ops.transpose(self.matrix)) + self.offset


def test_a_layer_of_ones_own_is_one_row():
    assert kind_of(Row()) is None
    axes = WeightAxes(inputs=(1,), outputs=(0,))
    assert register_kind(Row, layers.Dense, kernel="matrix", axes=axes, bias="offset") is Row
    layer = Row()
    layer.build((None, 5))
    assert has_role(layer, "weighted")
    assert is_kind(layer, "dense")
    assert kernel_of(layer) is layer.matrix
    assert bias_of(layer) is layer.offset
    assert find_weights(layer)[0][0].axes == axes

    class Doubled(Row):
        def call(self, inputs):
            return 2.0 * super().call(inputs)

    class Named(Row):
        """Computes as `Row` does."""

    assert kind_of(Doubled()) is None
    assert kind_of(Named()) is kind_of(layer)
    assert kind_of(layers.Dense(3)).kernel == "kernel"


def test_what_cannot_be_a_row():
    with pytest.raises(TypeError, match=r"subclass of `keras\.layers\.Layer`; received 'Dense'"):
        register_kind("Dense", layers.Dense)
    with pytest.raises(TypeError, match="layer class or a `Kind`"):
        register_kind(Row, "dense")
    with pytest.raises(ValueError, match="ReLU is not: what it is depends on how it is configured"):
        register_kind(Row, layers.ReLU)
    with pytest.raises(ValueError, match="LSTM is not: nothing is known of it"):
        register_kind(Row, layers.LSTM)
    with pytest.raises(ValueError, match="`role` should be one of"):
        Kind("mine", "weights")
    with pytest.raises(ValueError, match="`ranges` should be"):
        Kind("mine", "moves", "shared")
    with pytest.raises(ValueError, match="`kernel` belongs to the role 'weighted'"):
        Kind("mine", "weighted")


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
    assert is_kind(Configured(), "dense")
    assert not is_a(Standardized(3), layers.Dense)
    assert not is_a(Doubling(), layers.Add)
    assert kind_of(Doubling()) is None


@pytest.mark.parametrize("name", ["Stack", "Concatenate", "Add"])
def test_a_convolution_before_a_users_layer_is_in_integers(name):
    inputs = keras.Input((6, 6, 2))
    outputs = users_layer(name)(name="own")(layers.Conv2D(3, 3, name="conv")(inputs))
    x = np.random.default_rng(0).standard_normal((8, 6, 6, 2)).astype("float32")
    quantized = quantize_post_training(keras.Model(inputs, outputs), calibration_data=x)
    assert isinstance(quantized.get_layer("conv_quantizer"), ActivationQuantizer)
    assert any(layer.name.startswith("own_") for layer in quantized.layers)  # it is taken for what it computes


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
