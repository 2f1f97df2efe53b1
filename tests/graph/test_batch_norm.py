"""Folding batch normalization: the same answers without it, and what cannot be folded stays."""

import keras
import numpy as np
import pytest
from keras import layers, ops

from keras_mot.clustering import cluster_weights
from keras_mot.graph import find_foldable_batch_norms, fold_batch_norm


def unsettled(model, rng):
    """Statistics, scales and biases as after training."""
    for variable in model.variables:
        if variable.name in ("moving_variance", "gamma"):
            variable.assign(rng.uniform(0.3, 2.0, variable.shape))
        if variable.name in ("moving_mean", "beta", "bias"):
            variable.assign(rng.standard_normal(variable.shape))
    return model


def check(model, rng, folded_count, left=0):
    unsettled(model, rng)
    x = rng.standard_normal((4, *model.input_shape[1:])).astype("float32")
    assert len(find_foldable_batch_norms(model)) == folded_count
    folded = fold_batch_norm(model)
    np.testing.assert_allclose(ops.convert_to_numpy(folded(x)), ops.convert_to_numpy(model(x)), rtol=2e-3, atol=2e-4)
    norms = [layer for layer in folded._flatten_layers() if isinstance(layer, layers.BatchNormalization)]
    assert len(norms) == left
    assert not {id(v) for v in folded.variables} & {id(v) for v in model.variables}
    assert folded.name == model.name
    return folded


LINEAR = {
    "dense": ((6,), lambda **k: layers.Dense(5, **k)),
    "conv1d": ((8, 3), lambda **k: layers.Conv1D(4, 3, **k)),
    "conv2d": ((6, 6, 4), lambda **k: layers.Conv2D(6, 3, groups=2, **k)),
    "conv3d": ((4, 4, 4, 2), lambda **k: layers.Conv3D(3, 2, **k)),
    "conv1d_transpose": ((8, 3), lambda **k: layers.Conv1DTranspose(4, 3, **k)),
    "conv2d_transpose": ((5, 5, 3), lambda **k: layers.Conv2DTranspose(4, 3, strides=2, **k)),
    "conv3d_transpose": ((3, 3, 3, 2), lambda **k: layers.Conv3DTranspose(3, 2, **k)),
    "depthwise_conv1d": ((8, 3), lambda **k: layers.DepthwiseConv1D(3, depth_multiplier=2, **k)),
    "depthwise_conv2d": ((6, 6, 3), lambda **k: layers.DepthwiseConv2D(3, depth_multiplier=2, **k)),
    "separable_conv1d": ((8, 3), lambda **k: layers.SeparableConv1D(4, 3, **k)),
    "separable_conv2d": ((6, 6, 3), lambda **k: layers.SeparableConv2D(4, 3, **k)),
}


@pytest.mark.parametrize("use_bias", [False, True])
@pytest.mark.parametrize("name", LINEAR)
def test_every_linear_layer(name, use_bias, rng, tmp_path):
    shape, make = LINEAR[name]
    model = keras.Sequential(
        [layers.Input(shape), make(use_bias=use_bias, name="linear"), layers.BatchNormalization(), layers.ReLU()]
    )
    folded = check(model, rng, 1)
    assert isinstance(folded, keras.Sequential)
    assert [layer.name for layer in folded.layers] == ["linear", model.layers[-1].name]
    folded.save(tmp_path / "m.keras")
    assert keras.models.load_model(tmp_path / "m.keras").count_params() == folded.count_params()


def test_without_scale_and_center(rng):
    norm = layers.BatchNormalization(scale=False, center=False, epsilon=0.1)
    check(keras.Sequential([layers.Input((6,)), layers.Dense(5), norm]), rng, 1)


def test_a_residual_network_with_a_nested_model(rng):
    inner = keras.Sequential(
        [layers.Input((6, 6, 4)), layers.Conv2D(4, 3, padding="same"), layers.BatchNormalization()], name="inner"
    )
    inputs = keras.Input((6, 6, 3), name="image")
    x = layers.BatchNormalization(name="kept_first")(inputs)
    x = layers.Conv2D(4, 1, use_bias=False, name="conv")(x)
    x = layers.BatchNormalization(name="folded")(x)
    y = ops.relu(x) + inner(x)
    model = keras.Model(inputs, layers.Dense(3)(layers.GlobalAveragePooling2D()(y)))
    folded = check(model, rng, 2, left=1)
    assert [tensor.name for tensor in folded.inputs] == ["image"]


def test_what_must_not_be_folded_is_not(rng):
    inputs = keras.Input((6,))
    shared, norm = layers.Dense(6), layers.BatchNormalization()
    a = layers.BatchNormalization()(layers.Dense(6, activation="relu")(inputs))  # not linear
    b = layers.Dense(6)(inputs)
    b = layers.BatchNormalization()(b) + b  # read twice
    c = layers.BatchNormalization()(shared(shared(inputs)))  # used twice
    d = norm(layers.Dense(6)(inputs)) + norm(inputs)
    e = layers.BatchNormalization(axis=1)(layers.Dense(6)(layers.Reshape((3, 2))(inputs)))  # another axis

    @keras.saving.register_keras_serializable("test_batch_norm")
    class Squared(layers.Dense):
        def call(self, inputs):
            return super().call(inputs) ** 2

    f = layers.BatchNormalization()(Squared(6)(inputs))
    check(keras.Model(inputs, a + b + c + d + f), rng, 0, left=5)
    check(keras.Model(inputs, e), rng, 0, left=1)


def test_frozen_layers_stay_frozen(rng):
    model = keras.Sequential([layers.Input((6,)), layers.Dense(5), layers.BatchNormalization()])
    model.layers[0].trainable = False
    assert not check(model, rng, 1).layers[0].trainable


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: "model", TypeError, "expects a Keras model"),
        (lambda: keras.Sequential([layers.Dense(2)]), ValueError, "not built"),
        (
            lambda: cluster_weights(keras.Sequential([layers.Input((6,)), layers.Dense(5)]), 2),
            ValueError,
            "carries weight transforms",
        ),
    ],
)
def test_what_cannot_be_read_is_refused(make, error, message):
    with pytest.raises(error, match=message):
        fold_batch_norm(make())


def test_subclassed_models_have_no_graph_to_read():
    class Model(keras.Model):
        def __init__(self):
            super().__init__()
            self.dense = layers.Dense(2)

        def call(self, inputs):
            return self.dense(inputs)

    model = Model()
    model(np.zeros((1, 3), "float32"))
    assert find_foldable_batch_norms(model) == []
    with pytest.raises(ValueError, match="sequential and functional"):
        fold_batch_norm(model)


def _branch(name, filters, norm=True):
    parts = [layers.Conv2D(filters, 1, name="conv")] + [layers.BatchNormalization(name="norm")] * norm
    return keras.Sequential([layers.Input((4, 4, 3)), *parts], name=name)


def test_nested_models_may_use_the_same_layer_names(rng):
    inputs = keras.Input((4, 4, 3))
    left, right, plain = _branch("left", 2), _branch("right", 2), _branch("plain", 2, norm=False)
    check(keras.Model(inputs, left(inputs) + 2 * right(inputs) + 3 * plain(inputs)), rng, 2)


def test_a_shared_nested_model_stays_shared(rng):
    inner = _branch("inner", 3)
    outers = []
    for name in ("first", "second"):
        x = keras.Input((4, 4, 3))
        outers.append(keras.Model(x, layers.ReLU()(inner(x)), name=name))
    inputs = keras.Input((4, 4, 3))
    model = keras.Model(inputs, outers[0](inputs) + outers[1](inputs))
    folded = fold_batch_norm(unsettled(model, rng))
    kernels = [variable for variable in folded.variables if variable.name == "kernel"]
    assert len(kernels) == 1


def test_what_is_folded_has_a_graph_of_its_own(rng):
    model = keras.Sequential(
        [layers.Input((6,), name="features"), layers.Dense(5), layers.BatchNormalization(), layers.ReLU(name="relu")]
    )
    folded = check(model, rng, 1)
    middle = keras.Model(folded.inputs, folded.get_layer("relu").output)
    assert middle(np.ones((2, 6), "float32")).shape == (2, 5)


def test_odd_calls_and_classes(rng):
    @keras.saving.register_keras_serializable("test_batch_norm")
    class Doubled(layers.BatchNormalization):
        def call(self, inputs, training=None, mask=None):
            return 2 * super().call(inputs, training=training, mask=mask)

    inputs = keras.Input((6,))
    by_name = layers.BatchNormalization()(inputs=layers.Dense(6)(inputs))
    check(keras.Model(inputs, Doubled()(layers.Dense(6)(inputs)) + by_name), rng, 1, left=1)
