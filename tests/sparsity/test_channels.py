"""Removing pruned channels: the smaller model computes the same (TFMOT#541, TFMOT#732)."""

import warnings

import keras
import numpy as np
import pytest
from keras import layers, ops

import keras_mot
from keras_mot.sparsity import Channel, ConstantSparsity, prune_low_magnitude, remove_pruned_channels, strip_pruning
from keras_mot.sparsity.channels import layers_before_outputs

IMAGES = np.random.default_rng(0).normal(size=(4, 16, 16, 3)).astype("float32")


def batch_norm(inputs, level):
    """A trained batch normalization; at a low level, channels without weights are zero behind a ReLU."""
    layer, generator = layers.BatchNormalization(), np.random.default_rng(inputs.shape[-1])
    outputs = layer(inputs)
    layer.beta.assign(generator.normal(size=inputs.shape[-1]) + level)
    layer.moving_mean.assign(generator.normal(size=inputs.shape[-1]) / 10 if level == 0 else np.zeros(inputs.shape[-1]))
    layer.moving_variance.assign(generator.uniform(0.5, 2.0, inputs.shape[-1]))
    return outputs


def everything(level):
    """Every kind of layer that has a rule, with a residual branch, a gate, and layers that have several readers."""
    inputs = keras.Input((16, 16, 3))
    x = layers.Conv2D(16, 3, padding="same", use_bias=False, name="first")(inputs)
    x = layers.ReLU()(batch_norm(x, level))
    x = layers.DepthwiseConv2D(3, padding="same", depth_multiplier=2, name="depthwise")(x)
    x = layers.Dropout(0.5)(layers.ReLU()(batch_norm(x, level)))
    x = layers.ReLU()(batch_norm(layers.Conv2D(16, 1, name="left")(x), level))
    y = layers.ReLU()(batch_norm(layers.Conv2D(16, 3, padding="same", name="right")(x), level))
    x = layers.Add()([x, y])
    gate = layers.Dense(8, activation="relu", name="squeeze")(layers.GlobalAveragePooling2D()(x))
    x = x * layers.Reshape((1, 1, 16))(layers.Dense(16, activation="sigmoid", name="excite")(gate))
    y = layers.SeparableConv2D(12, 3, strides=2, padding="same", activation="silu", name="separable")(x)
    y = ops.relu6(layers.LeakyReLU()(y) + 3.0) * (1 / 6)
    x = layers.Concatenate()([y, layers.MaxPooling2D()(layers.ZeroPadding2D(1)(x))[:, :8, :8]])
    x = layers.Conv2DTranspose(8, 2, strides=2, name="transposed")(x)
    x = layers.Flatten()(layers.AveragePooling2D(4)(x))
    return keras.Model(inputs, layers.Dense(5, name="last")(layers.Dense(32, activation="relu", name="dense")(x)))


def pruned(model, share=0.5, **overrides):
    overrides |= dict.fromkeys(layers_before_outputs(model))
    result = prune_low_magnitude(model, ConstantSparsity(share, 0), granularity=Channel(), overrides=overrides)
    keras_mot.layers.update_step(result, 0)
    return strip_pruning(result)


def outputs(model, x=IMAGES):
    return model.predict(x, verbose=0)


def shapes(model):
    return {layer.name: tuple(layer.weights[0].shape) for layer in model.layers if layer.weights}


@pytest.mark.parametrize("level", [-5, 0])
def test_the_smaller_model_computes_the_same(level, tmp_path):
    model = pruned(everything(level))
    before, variables = outputs(model), [ops.convert_to_numpy(variable) for variable in model.variables]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Pruned channels stay")
        small = remove_pruned_channels(model)
    assert small.count_params() < (0.6 if level else 0.75) * model.count_params()
    np.testing.assert_allclose(outputs(small), before, rtol=1e-4, atol=1e-6)
    assert (small.input_shape, small.output_shape) == (model.input_shape, model.output_shape)
    assert {type(layer).__module__.split(".")[0] for layer in small.layers} == {"keras"}
    for variable, value in zip(model.variables, variables, strict=True):
        np.testing.assert_array_equal(ops.convert_to_numpy(variable), value)
    small.save(tmp_path / "small.keras")
    np.testing.assert_allclose(outputs(keras.models.load_model(tmp_path / "small.keras")), outputs(small), rtol=1e-6)
    small.compile("sgd", "mse")
    small.fit(IMAGES, before, verbose=0)


def chain(**settings):
    """Each layer's zeros leave the next one fewer inputs."""
    model = keras.Sequential(
        [
            keras.Input((8, 8, 2)),
            layers.Conv2D(6, 3, activation="relu", name="first", **settings),
            layers.Conv2D(4, 3, activation="tanh", name="second", **settings),
            layers.Flatten(),
            layers.Dense(3, activation="softmax", name="last"),
        ]
    )
    for layer in model.layers:
        if layer.weights:
            layer.bias.assign(np.linspace(-0.3, 0.6, layer.bias.shape[0]))
    return model


def test_constants_go_into_biases():
    model = pruned(chain(), 0.5)
    small = remove_pruned_channels(model)
    assert shapes(small) == {"first": (3, 3, 2, 3), "second": (3, 3, 3, 2), "last": (32, 3)}
    x = IMAGES[:, :8, :8, :2]
    np.testing.assert_allclose(outputs(small, x), outputs(model, x), atol=1e-6)


def test_borders_keep_constants():
    model = pruned(chain(padding="same"), 0.5)
    x = IMAGES[:, :8, :8, :2]
    with pytest.warns(UserWarning, match=r"Pruned channels stay: \d before 'second'. Their constants are not zero"):
        small = remove_pruned_channels(model)
    np.testing.assert_allclose(outputs(small, x), outputs(model, x), atol=1e-6)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        warnings.filterwarnings("ignore", message=".*__array__")
        smaller = remove_pruned_channels(model, exact=False)
    assert shapes(smaller) == {"first": (3, 3, 2, 3), "second": (3, 3, 3, 2), "last": (128, 3)}
    assert shapes(small)["second"][2] > 3
    difference = outputs(smaller, x) - outputs(model, x)
    assert 1e-5 < np.abs(difference).max() < 0.5


def test_branches_that_are_added_go_together():
    inputs = keras.Input((5,))
    one, other = layers.Dense(4, name="one"), layers.Dense(4, name="other")
    model = keras.Model(inputs, layers.Dense(2, name="last")(layers.Add()([one(inputs), other(inputs)])))
    for layer, kept in ((one, [1, 0, 0, 1]), (other, [0, 0, 1, 1])):
        layer.kernel.assign(ops.convert_to_numpy(layer.kernel) * kept)
    x = IMAGES[0, 0, :, :1].repeat(5, axis=1)
    small = remove_pruned_channels(model)
    assert shapes(small) == {"one": (5, 3), "other": (5, 3), "last": (3, 2)}
    np.testing.assert_allclose(outputs(small, x), outputs(model, x), atol=1e-6)


def test_what_nobody_reads_goes_too():
    model = chain()
    kernel = ops.convert_to_numpy(model.get_layer("second").kernel).copy()
    kernel[:, :, 1:4] = 0
    model.get_layer("second").kernel.assign(kernel)
    small = remove_pruned_channels(model)
    assert shapes(small)["first"] == (3, 3, 2, 3)
    x = IMAGES[:, :8, :8, :2]
    np.testing.assert_allclose(outputs(small, x), outputs(model, x), atol=1e-6)


def test_one_channel_is_left():
    model = chain()
    for name in ("first", "second"):
        model.get_layer(name).kernel.assign(np.zeros(model.get_layer(name).kernel.shape))
    small = remove_pruned_channels(model)
    assert shapes(small) == {"first": (3, 3, 2, 1), "second": (3, 3, 1, 1), "last": (16, 3)}
    x = IMAGES[:, :8, :8, :2]
    np.testing.assert_allclose(outputs(small, x), outputs(model, x), atol=1e-6)


@keras.saving.register_keras_serializable("tests")
class Whole(layers.Layer):
    """A layer of a user's, which looks at its input as a whole."""

    def call(self, x):
        return x / (1 + ops.sum(x, axis=-1, keepdims=True) ** 2)


READERS = [
    lambda x: layers.LSTM(3)(x),
    lambda x: layers.LayerNormalization()(x),
    lambda x: layers.Softmax()(x),
    lambda x: Whole()(x),
    lambda x: layers.MultiHeadAttention(1, 2)(x, x),
    lambda x: layers.Permute((2, 1))(x),
    lambda x: ops.sum(x, axis=-1, keepdims=True),
    lambda x: layers.Dense(2, activation="softmax")(layers.Reshape((12, 4))(x)),
]


def test_layers_without_a_rule_keep_what_they_read():
    inputs = keras.Input((6, 5))
    producers = [layers.Dense(8, name=f"producer_{number}") for number in range(len(READERS))]
    pairs = zip(producers, READERS, strict=True)
    model = keras.Model(inputs, [reader(producer(inputs)) for producer, reader in pairs])
    for producer in producers:
        producer.kernel.assign(ops.convert_to_numpy(producer.kernel) * ([1, 0] * 4))
    small = remove_pruned_channels(model)
    assert {shapes(small)[producer.name] for producer in producers} == {(5, 8)}
    x = IMAGES[:, :6, :5, 0]
    for result, expected in zip(small.predict(x, verbose=0), model.predict(x, verbose=0), strict=True):
        np.testing.assert_allclose(result, expected, atol=1e-6)


def test_shared_layers_stay():
    inputs = [keras.Input((5,)), keras.Input((5,))]
    shared = layers.Dense(4, activation="relu", name="shared")
    model = keras.Model(inputs, layers.Dense(2, name="last")(layers.Concatenate()([shared(x) for x in inputs])))
    shared.kernel.assign(ops.convert_to_numpy(shared.kernel) * [1, 0, 0, 1])
    assert shapes(remove_pruned_channels(model)) == {"shared": (5, 4), "last": (8, 2)}


class Subclassed(keras.Model):
    """A nested sequential model and a layer."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.inner = keras.Sequential([layers.Dense(8, activation="relu", name="inner"), layers.Dropout(0.1)])
        self.last = layers.Dense(2, name="last")

    def call(self, x):
        return self.last(self.inner(x))


def test_nested_and_subclassed_models():
    model = Subclassed()
    x = IMAGES[:, 0, :5, 0]
    model(x)
    assert layers_before_outputs(model) == [model.last]
    model = pruned(model, 0.5)
    small = remove_pruned_channels(model)
    assert shapes(small) == {"inner": (5, 4), "last": (4, 2)}
    np.testing.assert_allclose(outputs(small, x), outputs(model, x), atol=1e-6)
    inputs = keras.Input((5,))
    outer = keras.Model(inputs, layers.Softmax()(keras.Sequential([keras.Input((5,)), layers.Dense(3)])(inputs)))
    (found,) = layers_before_outputs(outer)
    assert found is outer.layers[1].layers[0]
    assert len(found._inbound_nodes) == len(keras.models.clone_model(outer).layers[1].layers[0]._inbound_nodes)


@pytest.mark.parametrize(
    "head",
    [
        lambda x: layers.Softmax()(layers.EinsumDense("ab,bc->ac", 4, name="head")(x)),
        lambda x: layers.LSTM(3, name="head")(layers.Reshape((2, 4))(x)),
        lambda x: layers.Activation("softmax")(layers.BatchNormalization()(layers.Dense(3, name="head")(x))),
    ],
)
def test_layers_before_outputs(head):
    inputs = keras.Input((5,))
    model = keras.Model(inputs, head(layers.Dense(8, name="hidden")(inputs)))
    assert [layer.name for layer in layers_before_outputs(model)] == ["head"]


def test_bad_input():
    with pytest.raises(TypeError, match="expects a Keras model; received 3"):
        remove_pruned_channels(3)
    with pytest.raises(TypeError, match="`exact` should be True or False; received 1"):
        remove_pruned_channels(chain(), exact=1)
    with pytest.raises(ValueError, match="not built"):
        remove_pruned_channels(keras.Sequential([layers.Dense(3)]))
    with pytest.raises(ValueError, match="carries weight transforms: strip it first"):
        remove_pruned_channels(prune_low_magnitude(chain(), granularity=Channel(), overrides={"last": None}))


def without_channels(layer, count):
    """The layer, whose first channels have no weights."""
    kernel = ops.convert_to_numpy(layer.kernel).copy()
    kernel[..., :count] = 0
    layer.kernel.assign(kernel)


@pytest.mark.parametrize(
    ("shared", "sizes", "dead", "left"),
    [
        (layers.ReLU(), (6, 4), (2, 1), (4, 3)),
        (layers.ReLU(), (6, 4), (0, 1), (6, 3)),
        (layers.Reshape((1, 6)), (6, 6), (2, 0), (6, 6)),  # no one shape fits both
        (layers.Reshape((1, 6)), (6, 6), (2, 2), (6, 6)),
    ],
)
def test_a_layer_without_weights_that_is_called_twice(shared, sizes, dead, left):
    inputs, made = keras.Input((8,)), [layers.Dense(size, name=f"made{i}") for i, size in enumerate(sizes)]
    read = [layers.Dense(3)(layers.Flatten()(shared(layer(inputs)))) for layer in made]
    model = keras.Model(inputs, read)
    for layer, count in zip(made, dead, strict=True):
        without_channels(layer, count)
    x = np.random.default_rng(0).normal(size=(5, 8)).astype("float32")
    small = remove_pruned_channels(model)
    assert (small.get_layer("made0").units, small.get_layer("made1").units) == left
    for received, expected in zip(outputs(small, x), outputs(model, x), strict=True):
        np.testing.assert_allclose(received, expected, rtol=1e-5, atol=1e-6)
