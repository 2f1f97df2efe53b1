"""Refitting: the weights that are left make the outputs what they were, by least squares, for all kinds of layers."""

import re
import types
import warnings

import keras
import numpy as np
import pytest
from keras import layers, ops

from keras_mot.clustering import cluster_weights
from keras_mot.layers import transformed_weights
from keras_mot.recipes import Prune
from keras_mot.sparsity import (
    Block,
    Channel,
    ConstantSparsity,
    NofM,
    OptimalBrainSurgeon,
    PruningConfig,
    Taylor,
    WholeModel,
    prune_at_once,
    prune_low_magnitude,
    pruning_report,
    refit,
    strip_pruning,
    update_pruning_step,
)
from keras_mot.sparsity._samples import affordable

HALF = ConstantSparsity(0.5)


def numpy(tensor):
    return np.array(ops.convert_to_numpy(tensor))


def pruned_at_once(model, **settings):
    pruned = prune_low_magnitude(model, HALF, **settings)
    update_pruning_step(pruned, steps=0)
    return pruned


def images(count=48):
    """Neighbouring pixels and channels are alike, as in real images: there is something to make up with."""
    generator = np.random.default_rng(0)
    small = generator.normal(size=(count, 4, 4, 2)).astype("float32")
    large = small.repeat(2, axis=1).repeat(2, axis=2) @ generator.normal(size=(2, 4)).astype("float32")
    return large + 0.1 * generator.normal(size=large.shape).astype("float32")


@pytest.fixture(scope="module")
def network():
    keras.utils.set_random_seed(1)
    inputs = keras.Input((8, 8, 4))
    x = layers.Conv2D(8, 3, padding="same", use_bias=False, name="stem")(inputs)
    x = layers.BatchNormalization(name="norm")(x)
    x = layers.ReLU()(x)
    y = layers.DepthwiseConv2D(3, padding="same", name="depthwise")(x)
    y = layers.Conv2D(8, 1, activation="relu", name="pointwise")(y)
    x = layers.Add()([x, y])
    x = layers.Conv2D(12, 3, strides=2, groups=2, activation="relu", name="grouped")(x)
    outputs = layers.Dense(5, name="head")(layers.GlobalAveragePooling2D()(x))
    model = keras.Model(inputs, outputs)
    model(images(), training=True)  # so that the statistics are no round numbers
    return model


def test_dense_layer_is_least_squares():
    """One layer with a bias, without damping: NumPy's solver on inputs with a column of ones says the same."""
    keras.utils.set_random_seed(1)
    model = keras.Sequential([layers.Input((10,)), layers.Dense(6)])
    generator = np.random.default_rng(0)
    x = (generator.normal(size=(200, 10)) @ generator.normal(size=(10, 10)) + 1).astype("float32")
    pruned = pruned_at_once(model)
    small = strip_pruning(refit(pruned, x, damping=0.0, batch_size=50))
    x = x[50:]  # the first of four batches is kept to judge by
    kernel, bias = map(numpy, small.layers[0].get_weights())
    mask = numpy(transformed_weights(pruned)[0].transforms[0].mask)
    for column in range(6):
        kept = mask[:, column]
        ones = np.column_stack([x[:, kept], np.ones(len(x))])
        solved = np.linalg.lstsq(ones, numpy(model(x))[:, column], rcond=None)[0]
        np.testing.assert_allclose([*kernel[kept, column], bias[column]], solved, rtol=1e-3, atol=1e-3)
        assert not kernel[~kept, column].any()


SETTINGS = {
    "elements": {},
    "whole model": {"scope": WholeModel()},
    "depthwise": {"include_depthwise": True},
    "blocks": {"granularity": Block((2, 2))},
    "pattern": {"granularity": NofM(2, 4)},
    "channels": {"granularity": Channel(), "overrides": {"head": None}},
}


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
def test_outputs_come_nearer_and_zeros_stay(network, settings):
    x = images()
    pruned = pruned_at_once(network, **settings)
    result = refit(pruned, x)
    expected, before, after = (numpy(model(x)) for model in (network, pruned, result))
    assert np.square(after - expected).mean() < 0.5 * np.square(before - expected).mean()
    pairs = zip(transformed_weights(pruned), transformed_weights(result), strict=True)
    for old, new in pairs:
        assert (numpy(old.transforms[0].mask) == numpy(new.transforms[0].mask)).all()
        hidden = ~numpy(new.transforms[0].mask)
        np.testing.assert_array_equal(numpy(old.variable)[hidden], numpy(new.variable)[hidden])
    # Means of channels are what they were, up to what rectifiers before make of errors.
    assert np.abs((after - expected).mean(axis=0)).max() < 0.05 * np.abs(expected).max()
    np.testing.assert_allclose(numpy(strip_pruning(result)(x)), after, atol=1e-5)


def test_plain_models_with_zeros_need_the_original(network):
    x = images()
    pruned = pruned_at_once(network)
    small = strip_pruning(pruned)
    with pytest.raises(ValueError, match="reference"):
        refit(small, x)
    once = refit(small, x, reference=network)
    np.testing.assert_allclose(numpy(once(x)), numpy(refit(pruned, x)(x)), atol=1e-4)
    # Refitting what is refitted changes nothing, and in place it is the same model.
    again = refit(once, x, reference=network, inplace=True)
    assert again is once
    np.testing.assert_allclose(numpy(again(x)), numpy(refit(pruned, x)(x)), atol=1e-4)


@pytest.mark.parametrize(
    "layer",
    [
        lambda: layers.SimpleRNN(6),
        lambda: layers.LSTM(6),
        lambda: layers.GRU(6),
        lambda: layers.GRU(6, reset_after=False),
        lambda: layers.Conv1DTranspose(6, 3),
        lambda: layers.SeparableConv1D(6, 3),
        lambda: layers.EinsumDense("abc,cde->abde", (None, 2, 3), bias_axes="de"),
        lambda: layers.EinsumDense("abc,cd->abd", (None, 6)),
    ],
    ids=["rnn", "lstm", "gru", "gru, reset before", "transposed", "separable", "einsum", "einsum without bias"],
)
def test_layers_of_all_kinds(layer):
    keras.utils.set_random_seed(1)
    model = keras.Sequential([layers.Input((7, 8)), layer()])
    x = images(32).reshape(32, -1, 8)[:, :7]
    pruned = pruned_at_once(model)
    result = refit(pruned, x)
    expected, before, after = (numpy(each(x)) for each in (model, pruned, result))
    assert np.square(after - expected).mean() < 0.8 * np.square(before - expected).mean()


@keras.saving.register_keras_serializable("refit_tests")
class Block2(keras.Model):
    """A subclassed model."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.first, self.second = layers.Dense(12, activation="relu"), layers.Dense(8)

    def call(self, inputs):
        return inputs + self.second(self.first(inputs))


def test_subclassed_models():
    x = images().reshape(-1, 8)[:200]
    model = Block2()
    model(x)
    pruned = pruned_at_once(model)
    result = refit(pruned, x)
    assert type(result).__mro__[1] is Block2 or isinstance(result, Block2)
    errors = [np.square(numpy(each(x)) - numpy(model(x))).mean() for each in (pruned, result)]
    assert errors[1] < 0.5 * errors[0]


def test_what_cannot_be_refitted_is_refused(network):
    x = images()
    with pytest.raises(ValueError, match="no zeros"):
        refit(prune_low_magnitude(network, HALF), x)
    with pytest.raises(ValueError, match="before clustering"):
        refit(cluster_weights(pruned_at_once(network), 4), x)
    pruned = pruned_at_once(network)
    with pytest.raises(ValueError, match="damping"):
        refit(pruned, x, damping=-1)
    with pytest.raises(ValueError, match="samples"):
        refit(pruned, x, samples=0)
    with pytest.raises(ValueError, match="empty"):
        refit(pruned, [])
    with pytest.raises(ValueError, match="shape"):
        refit(pruned, x[..., :3])
    with pytest.raises(ValueError, match="NaN"):
        refit(pruned, np.full_like(x, np.nan))
    other = keras.Sequential([layers.Input((8, 8, 4)), layers.Dense(3)])
    with pytest.raises(ValueError, match="reference"):
        refit(pruned, x, reference=other)


def test_few_samples_and_unknown_layers_are_said():
    model = keras.Sequential(
        [layers.Input((6,), dtype="int32"), layers.Embedding(9, 8), layers.Flatten(), layers.Dense(3)]
    )
    pruned = pruned_at_once(model)
    x = np.random.default_rng(0).integers(0, 9, (5, 6)).astype("int32")
    rows = pytest.warns(UserWarning, match="looked up one by one.*'embedding[^']*/embeddings'")
    with rows, pytest.warns(UserWarning, match="fewer samples"):
        refit(pruned, x)


def test_layers_are_named_as_in_the_model():
    """Copies of subclassed models number their layers anew."""
    Block2()  # takes the names without a number
    model = Block2()
    x = np.random.default_rng(0).normal(size=(2, 8)).astype("float32")
    model(x)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        prune_at_once(model, x, 0.5)
    told = {str(each.message) for each in caught if "fewer samples" in str(each.message)}
    named = {name for text in told for name in re.findall(r"'([^']+)'", text)}
    assert named
    assert named <= {weight.path for weight in model.weights}


@pytest.mark.parametrize("x", [np.zeros((20, 8)), np.random.default_rng(3).normal(size=(1, 8))], ids=["zeros", "one"])
def test_samples_that_never_vary(x):
    """They say nothing of weights: what is left of a kernel stays what it was."""
    model = keras.Sequential([layers.Input((8,)), layers.Dense(16, activation="relu"), layers.Dense(3)])
    kernel = ops.convert_to_numpy(model.layers[0].kernel)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pruned = strip_pruning(prune_at_once(model, x.astype("float32"), 0.5))
    left = ops.convert_to_numpy(pruned.layers[0].kernel)
    assert 0.3 < np.mean(left == 0) < 0.7
    np.testing.assert_allclose(left[left != 0], kernel[left != 0], rtol=1e-5)


def test_pruning_at_once(network):
    x = images()
    y = np.random.default_rng(0).integers(0, 5, len(x))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    expected = numpy(network(x))
    magnitude = np.square(numpy(pruned_at_once(network, scope=WholeModel())(x)) - expected).mean()
    configs = {
        "share": 0.5,
        "surgeon": PruningConfig(HALF, criterion=OptimalBrainSurgeon()),
        "taylor": PruningConfig(HALF, criterion=Taylor(), scope=WholeModel()),
    }
    for how in configs.values():
        result = prune_at_once(network, (x, y), how, loss=loss)
        assert pruning_report(result).sparsity == pytest.approx(0.5, abs=0.02)
        assert np.square(numpy(result(x)) - expected).mean() < magnitude
    result.compile("sgd", loss)
    masks = [numpy(weight.transforms[0].mask) for weight in transformed_weights(result)]
    result.fit(x, y, verbose=0)  # the masks stay as they are, and no criterion is asked again
    after = [numpy(weight.transforms[0].mask) for weight in transformed_weights(result)]
    assert all((old == new).all() for old, new in zip(masks, after, strict=True))


def test_in_rounds_with_layers_left_alone(network):
    x = images()
    pattern = prune_at_once(network, (x[i : i + 16] for i in range(0, 48, 16)), PruningConfig(granularity=NofM(2, 4)))
    groups = numpy(strip_pruning(pattern).get_layer("pointwise").kernel)[0, 0].reshape(2, 4, 8)
    assert (np.count_nonzero(groups, axis=1) == 2).all()
    result = prune_at_once(network, x, 0.6, rounds=2, overrides={network.get_layer("head"): None})
    assert pruning_report(result).sparsity == pytest.approx(0.6, abs=0.02)
    assert numpy(strip_pruning(result).get_layer("head").kernel).all()
    pruned = prune_low_magnitude(network, ConstantSparsity(0.6), scope=WholeModel(), overrides={"head": None})
    update_pruning_step(pruned, steps=0)
    errors = [np.square(numpy(each(x)) - numpy(network(x))).mean() for each in (pruned, result)]
    assert errors[1] < 0.5 * errors[0]
    with pytest.raises(ValueError, match="rounds"):
        prune_at_once(network, x, rounds=0)
    with pytest.raises(TypeError, match="how"):
        prune_at_once(network, x, "half")


def test_zeros_of_patterns_move_to_where_less_is_lost(network):
    x = images()
    masked = pruned_at_once(network, granularity=NofM(2, 4), overrides={"head": None})
    stay, move = (refit(masked, x, move_zeros=each) for each in (False, True))
    errors = [np.square(numpy(each(x)) - numpy(network(x))).mean() for each in (stay, move)]
    assert errors[1] < 0.9 * errors[0]
    plain = strip_pruning(move)
    for weight in transformed_weights(move):
        mask = numpy(weight.transforms[0].mask)
        kernel = numpy(plain.get_layer(weight.owner.name).kernel)
        np.testing.assert_array_equal(kernel != 0, mask)
        groups = np.moveaxis(mask, -2, -1).reshape(-1, 4)  # the inputs of each output, at each position
        assert (groups.sum(axis=1) == 2).all()
    moved = [
        (numpy(old.transforms[0].mask) != numpy(new.transforms[0].mask)).any()
        for old, new in zip(transformed_weights(stay), transformed_weights(move), strict=True)
    ]
    assert any(moved)


def test_as_a_stage_of_recipes(network):
    x, seen = images(), []
    run = types.SimpleNamespace(calibration=lambda samples: seen.append(samples) or x, rehearsing=False, progress=False)
    stage = Prune(n_m=(2, 4), skip=["head"], refit=True)
    result = stage.apply(network, run)
    assert seen == [1024]
    assert numpy(strip_pruning(result).get_layer("head").kernel).all()
    how = PruningConfig(granularity=NofM(2, 4), criterion=OptimalBrainSurgeon())
    once = prune_at_once(network, x, how, overrides={"head": None})
    np.testing.assert_allclose(numpy(result(x)), numpy(once(x)), atol=1e-5)


def test_a_pattern_of_a_stage_goes_by_magnitudes_where_inputs_are_unknown():
    model = keras.Sequential([keras.Input((6,), dtype="int32"), layers.Embedding(8, 8), layers.Dense(4, name="dense")])
    x = np.random.default_rng(0).integers(0, 8, (64, 6)).astype("int32")
    run = types.SimpleNamespace(calibration=lambda samples: x, rehearsing=False, progress=False)
    with pytest.warns(UserWarning, match="embeddings"):
        result = strip_pruning(Prune(n_m=(2, 4), refit=True).apply(model, run))
    table, original = (numpy(each.layers[0].embeddings) for each in (result, model))
    groups = np.sort(np.abs(original).T.reshape(-1, 4), axis=1)
    assert np.count_nonzero(table) == table.size // 2
    np.testing.assert_allclose(np.abs(table).sum(), groups[:, 2:].sum(), rtol=1e-5)
    assert np.count_nonzero(numpy(result.get_layer("dense").kernel)) == 16


def test_memory_bounds_the_samples():
    inputs = keras.Input((256, 256, 1))
    model = keras.Model(inputs, layers.MaxPooling2D(256)(layers.Conv2D(16, 1)(inputs)))  # 4 MB a sample, at four places
    assert affordable(model, 4096) == 128
    assert affordable(keras.Sequential([layers.Input((4,)), layers.Dense(3)]), 4096) == 4096
