"""Models whose kernels have low rank compute the same when they are factorized; what cannot be is named."""

import zipfile

import keras
import numpy as np
import pytest
from keras import layers, ops

from keras_mot.low_rank import (
    EnergyShare,
    FixedRank,
    InputChannels,
    OutputChannels,
    ParameterShare,
    Spatial,
    Tucker,
    factorize,
    plan_factorization,
)
from keras_mot.low_rank.decompositions import Factor, composed
from keras_mot.quantization import Calibration
from keras_mot.sparsity import ConstantSparsity, prune_low_magnitude

RNG = np.random.default_rng(0)
IMAGES = RNG.normal(size=(2, 9, 8, 6)).astype("float32")
SEQUENCE = RNG.normal(size=(3, 6, 8)).astype("float32")


def of_low_rank(shape, transposed=False, rank=2):
    """A kernel that all decompositions write exactly: few inputs, a column, a row, and all outputs."""
    *positions, inputs, outputs = shape
    if transposed:
        inputs, outputs = outputs, inputs
    ones = [1] * len(positions)
    lengths = [[*positions[:1], *ones[1:]], [*ones[:1], *positions[1:]]] if positions else []
    chain = [RNG.normal(size=(*ones, inputs, rank)), RNG.normal(size=(*ones, rank, outputs))]
    chain[1:1] = [RNG.normal(size=(*each, rank, rank)) for each in lengths]
    kernel = composed([Factor(each, ()) for each in chain])
    kernel = kernel / np.sqrt(np.square(kernel).sum(axis=tuple(range(kernel.ndim - 1))).max())
    return np.swapaxes(kernel, -1, -2) if transposed else kernel


def with_low_rank(model):
    """Numbers in all weights, kernels of rank 2."""
    for layer in model.layers if isinstance(model, keras.Model) else [model]:
        for variable in layer.variables:
            value = RNG.normal(size=variable.shape) * 0.5
            variable.assign(np.abs(value) + 0.5 if "variance" in variable.name else value)
        if isinstance(layer, layers.EinsumDense):
            shape = tuple(layer.kernel.shape)
            inputs = 2 if layer.equation.startswith("abc,bcd") else 1  # axes
            matrix = of_low_rank((int(np.prod(shape[:inputs])), int(np.prod(shape[inputs:]))))
            layer.kernel.assign(matrix.reshape(shape))
        elif isinstance(layer, layers.SeparableConv1D | layers.SeparableConv2D):
            layer.pointwise_kernel.assign(of_low_rank(layer.pointwise_kernel.shape))
        elif isinstance(layer, layers.Embedding):
            layer.embeddings.assign(of_low_rank(layer.embeddings.shape))
        elif hasattr(layer, "kernel"):
            layer.kernel.assign(of_low_rank(layer.kernel.shape, "Transpose" in type(layer).__name__))
    return model


def outputs(model, x):
    return ops.convert_to_numpy(model(x, training=False))


def check_same(model, factorized, x):
    np.testing.assert_allclose(outputs(factorized, x), outputs(model, x), rtol=1e-3, atol=2e-5)


LAYERS = {
    "dense": (lambda: layers.Dense(12, "relu"), SEQUENCE),
    "conv": (lambda: layers.Conv2D(10, 3, strides=2, padding="same", activation="tanh"), IMAGES),
    "valid": (lambda: layers.Conv2D(10, (3, 5), use_bias=False), IMAGES),
    "dilated": (lambda: layers.Conv2D(10, 3, dilation_rate=(2, 1), padding="same"), IMAGES),
    "pointwise": (lambda: layers.Conv2D(10, 1, strides=2), IMAGES),
    "causal": (lambda: layers.Conv1D(10, 3, padding="causal", dilation_rate=2), SEQUENCE),
    "volume": (lambda: layers.Conv3D(6, 3, padding="same"), IMAGES[..., None].repeat(4, -1)),
    "transposed": (lambda: layers.Conv2DTranspose(10, 3, strides=(2, 3), padding="same"), IMAGES),
    "enlarged": (lambda: layers.Conv2DTranspose(10, (3, 2), strides=2, output_padding=1), IMAGES),
    "separable": (lambda: layers.SeparableConv2D(14, 3, strides=2, depth_multiplier=2, activation="relu"), IMAGES),
    "einsum": (lambda: layers.EinsumDense("abc,cde->abde", (None, 4, 3), bias_axes="de", activation="relu"), SEQUENCE),
    "einsum of all": (lambda: layers.EinsumDense("...x,xy->...y", 12, bias_axes="y"), SEQUENCE),
    "einsum of two": (lambda: layers.EinsumDense("abc,bcd->ad", 9), SEQUENCE),
    "embedding": (lambda: layers.Embedding(20, 10), np.arange(12).reshape(3, 4)),
}


@pytest.mark.parametrize("name", LAYERS)
def test_exact_where_the_rank_is_full(name):
    make, x = LAYERS[name]
    layer = make()
    layer.name = "first"
    model = keras.Sequential([keras.Input(x.shape[1:], dtype=x.dtype), layer])
    with_low_rank(layer)
    tried = [None]
    if layer.name and name in ("conv", "dilated", "transposed"):
        tried = [None, OutputChannels(), InputChannels(), Tucker()]
    if name in ("conv", "transposed", "enlarged", "volume"):
        tried.append(Spatial())
    for decomposition in tried:
        plan = plan_factorization(model, EnergyShare(1), decomposition=decomposition)
        assert [row.layer.split("/")[-1] for row in plan.rows] == ["first"], str(plan)
        assert max(plan.rows[0].ranks) <= 6
        small = plan.build()
        check_same(model, small, x)
        assert small.count_params() == model.count_params() - plan.parameters_before + plan.parameters_after
        assert [each.name for each in small.layers][-1] == "first"
        assert small.layers[-2].name.startswith("first_factor")


def composite():
    class Block(layers.Layer):
        def __init__(self, width, **kwargs):
            super().__init__(**kwargs)
            self.up, self.down = layers.Dense(32, "relu", name="up"), layers.Dense(width, name="down")

        def call(self, x):
            return x + self.down(self.up(x))

    class Network(keras.Model):
        def __init__(self):
            super().__init__(name="network")
            self.block, self.shared, self.head = Block(8), layers.Dense(8, name="shared"), layers.Dense(5, name="head")
            self.recurrent = layers.LSTM(8, name="recurrent")

        def call(self, x):
            x = self.shared(self.shared(self.block(x)))
            return self.head(self.recurrent(x))

    model = Network()
    model(SEQUENCE)
    return model


def test_subclassed_and_composite_models():
    model = composite()
    for layer in (model.block.up, model.block.down, model.shared, model.head):
        layer.kernel.assign(of_low_rank(layer.kernel.shape, rank=1))
    before = [np.array(ops.convert_to_numpy(variable)) for variable in model.variables]
    plan = plan_factorization(model, EnergyShare(1), overrides={"head": None})
    assert [row.layer.split("/")[-1] for row in plan.rows] == ["up", "down", "shared"]
    reasons = {path.split("/")[-1]: reason for path, reason in plan.skipped}
    assert reasons["head"] == "it is not selected"
    assert "recurrent" in reasons["recurrent"]
    small = plan.build()
    check_same(model, small, SEQUENCE)
    for value, variable in zip(before, model.variables, strict=True):
        np.testing.assert_array_equal(value, ops.convert_to_numpy(variable))
    assert sum("shared" in layer.name for layer in small.layers) == 2  # called twice, made once


def nested():
    inner = keras.Sequential([keras.Input((8,)), layers.Dense(24, "relu", name="wide"), layers.Dense(8, name="narrow")])
    inputs = keras.Input((8,))
    x = layers.BatchNormalization(name="norm")(layers.Dense(8, name="narrow", use_bias=False)(inner(inputs)))
    return keras.Model(inputs, layers.Dense(3, "softmax", name="classes")(x))


def test_nested_models_and_batch_norm():
    model = nested()
    x = SEQUENCE[:, 0]
    model.get_layer("norm").moving_variance.assign(RNG.uniform(0.5, 2, 8))
    small = factorize(model, FixedRank(2))
    assert small.get_layer("classes").output is not None
    assert any(layer.name == "norm" for layer in small.layers)
    exact = factorize(model, FixedRank(8), overrides={"wide": FixedRank(2)})
    assert outputs(exact, x).shape == (3, 3)
    plan = plan_factorization(model, None, overrides={model.layers[1]: FixedRank(2)})
    assert {row.layer.split("/")[-1] for row in plan.rows} == {"wide", "narrow"}
    assert len(plan.rows) == 2


def test_ranks_follow_the_budget_over_all_layers():
    model = nested()
    plan = plan_factorization(model, ParameterShare(0.5))
    assert plan.parameters_after <= 0.5 * plan.parameters_before + 24
    text = str(plan)
    assert "wide" in text
    assert "OutputChannels" in text


def test_it_trains_saves_and_loads_without_keras_mot(tmp_path):
    small = factorize(nested(), FixedRank(2))
    small.compile("sgd", "sparse_categorical_crossentropy")
    small.fit(SEQUENCE[:, 0], np.arange(3), verbose=0)
    path = tmp_path / "small.keras"
    small.save(path)
    with zipfile.ZipFile(path) as archive:
        assert b"keras_mot" not in archive.read("config.json")
    loaded = keras.models.load_model(path)
    np.testing.assert_allclose(outputs(loaded, SEQUENCE[:, 0]), outputs(small, SEQUENCE[:, 0]), rtol=1e-5, atol=1e-6)


def test_what_a_layer_is_configured_to_stays():
    layer = layers.Dense(
        *(12, "gelu"),
        kernel_regularizer="l2",
        bias_regularizer="l2",
        dtype="mixed_bfloat16",
        trainable=False,
        name="layer",
    )
    model = keras.Sequential([keras.Input((8,)), layer])
    small = factorize(model, FixedRank(2))
    first, second = small.layers[-2:]
    assert (first.name, second.name) == ("layer_factor1", "layer")
    assert second.activation is keras.activations.gelu
    assert second.bias_regularizer is not None
    assert first.activation is keras.activations.linear
    assert not first.use_bias
    assert first.kernel_regularizer is None
    assert second.kernel_regularizer is None
    assert first.dtype_policy.name == second.dtype_policy.name == "mixed_bfloat16"
    assert not first.trainable_variables
    assert not second.trainable_variables


def test_refusals():
    model = keras.Sequential([keras.Input((8,)), layers.Dense(12, name="first"), layers.Dense(12, name="second")])
    with pytest.raises(TypeError, match=r"`ranks` should be a `RankRule`, such as .*; received 0.5"):
        factorize(model, 0.5)
    with pytest.raises(TypeError, match=r"`decomposition` should be a `Decomposition`"):
        factorize(model, FixedRank(2), decomposition="tucker")
    with pytest.raises(ValueError, match=r"No layer .* matches 'frist'"):
        factorize(model, FixedRank(2), overrides={"frist": None})
    with pytest.raises(ValueError, match="carries weight transforms"):
        factorize(prune_low_magnitude(model, ConstantSparsity(0.5)), FixedRank(2))
    with pytest.warns(UserWarning, match=r"Nothing is factorized: '.*first', '.*second' \(no rank"):
        factorize(model, FixedRank(12))
    model.layers[0].kernel.assign(np.full((8, 12), np.nan))
    with pytest.raises(ValueError, match="'first' contains NaN"):
        factorize(model, FixedRank(2))


def test_layers_that_stay_say_why():
    class Mine(layers.Dense):
        def call(self, inputs):
            return super().call(inputs) * 2

    inputs = keras.Input((6, 8))
    x = layers.DepthwiseConv1D(3, name="depthwise")(inputs)
    x = layers.Conv1D(8, 3, groups=2, padding="same", name="grouped")(x)
    x = layers.MultiHeadAttention(2, 4, name="attention")(x, x)
    x = layers.EinsumDense("abc,bcd->abd", (4, 5), name="each")(x)
    x = layers.Dense(5, name="one")(x)
    outputs = Mine(7, name="mine")(x)
    model = keras.Model(inputs, outputs)
    plan = plan_factorization(model, FixedRank(1), overrides={"one": None})
    assert dict(plan.skipped) == {
        "depthwise": "depthwise: each channel has a small kernel of its own",
        "grouped": "a convolution in groups has a kernel for each",
        "attention": "its projections are read within the layer",
        "each": "its kernel is a matrix of its own for each position",
        "one": "it is not selected",
        "mine": "there is no rule for Mine",
    }


def correlated(samples):
    """Inputs of 24 numbers that lie near a plane of few dimensions, with a mean."""
    generator = np.random.default_rng(1)
    base = generator.normal(size=(24, 24)) * np.geomspace(1, 0.02, 24)[:, None]
    return (generator.normal(size=(samples, 24)) @ base + 1).astype("float32")


def test_data_make_the_outputs_nearer():
    keras.utils.set_random_seed(1)
    hidden = [layers.Dense(32, "relu", name=name) for name in ("one", "two", "three")]
    model = keras.Sequential([keras.Input((24,)), *hidden, layers.Dense(6, name="last")])
    for layer in model.layers:
        layer.bias.assign(RNG.normal(size=layer.bias.shape) * 0.1)
    x, new = correlated(600), correlated(700)[600:]
    expected = outputs(model, new)

    def error(**settings):
        small = factorize(model, ParameterShare(0.5), **settings)
        assert small.count_params() < 0.65 * model.count_params()
        return np.square(outputs(small, new) - expected).sum() / np.square(expected - expected.mean(axis=0)).sum()

    plain, aware = error(), error(calibration_data=x)
    assert aware < plain / 4
    np.testing.assert_allclose(outputs(model, new), expected)  # the given model is as it was


def test_biases_keep_the_mean_of_outputs():
    model = keras.Sequential([keras.Input((24,)), layers.Dense(32, name="only")])
    x = correlated(600)
    small = factorize(model, FixedRank(2), calibration_data=Calibration(x, batch_size=600))  # one batch: all are used
    np.testing.assert_allclose(outputs(small, x).mean(axis=0), outputs(model, x).mean(axis=0), atol=1e-4)
    # What is left is no more than what the nearest outputs of rank 2 leave (Eckart and Young).
    centered = outputs(model, x) - outputs(model, x).mean(axis=0)
    left = np.square(np.linalg.svd(centered, compute_uv=False)[2:]).sum()
    assert np.square(outputs(small, x) - outputs(model, x)).sum() == pytest.approx(left, rel=0.02)


@pytest.mark.parametrize(("smallest", "most"), [(0.02, 0.85), (0.3, 1.1)])
def test_few_samples_against_none(smallest, most):
    """16 samples of 64 inputs help where inputs differ in size, and do next to no harm where they do not."""
    model = keras.Sequential([keras.Input((64,)), layers.Dense(64, name="only")])
    generator = np.random.default_rng(2)
    model.layers[0].kernel.assign(generator.normal(size=(64, 64)))
    sizes = np.geomspace(smallest, 1, 64)
    x, new = ((np.maximum(generator.normal(size=(count, 64)), 0) * sizes).astype("float32") for count in (16, 1000))
    with pytest.warns(UserWarning, match="fewer samples"):
        aware = outputs(factorize(model, FixedRank(16), calibration_data=x), new) - outputs(model, new)
    plain = outputs(factorize(model, FixedRank(16)), new) - outputs(model, new)
    # As if the kernel without data had been given the mean of each output, too.
    assert np.square(aware).mean() < most * np.square(plain - plain.mean(axis=0)).mean()


def test_few_samples_are_told_of_and_convolutions_use_their_positions():
    inputs = keras.Input((9, 8, 6))
    x = layers.Conv2D(10, 3, name="conv")(inputs)
    x = layers.Conv2DTranspose(8, 3, strides=2, name="up")(x)
    model = keras.Model(inputs, layers.Dense(4, name="dense")(layers.Flatten()(x)))
    with pytest.warns(UserWarning, match="fewer samples than inputs of 'dense/kernel'"):
        plan = plan_factorization(model, ParameterShare(0.6), calibration_data=IMAGES)
    assert np.isfinite(outputs(plan.build(), IMAGES)).all()
