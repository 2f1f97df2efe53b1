"""Rounding by the second moments of inputs: GPTQ against its definition, and in models of all kinds."""

import keras
import numpy as np
import pytest
from keras import layers, ops

import keras_mot
from keras_mot._arrays import numpy_value
from keras_mot.graph.kinds import bias_of
from keras_mot.layers.transformed import transformed_weights
from keras_mot.quantization import (
    GPTQ,
    INT4_WEIGHTS,
    INT8,
    Nearest,
    QuantizationScheme,
    quantize_model,
    quantize_post_training,
    strip_quantization,
)
from keras_mot.quantization.algorithms.gptq import descended, gptq
from keras_mot.transforms import FakeQuantize
from keras_mot.transforms.grid import Grid

RNG = np.random.default_rng(0)
X = RNG.normal(size=(160, 8, 8, 2)).astype("float32")
GRID = Grid(3)


def problem(groups=1, rows=6, columns=4):
    rng = np.random.default_rng(1)
    inputs = rng.normal(size=(groups, 80, rows)) @ rng.normal(size=(groups, rows, rows))
    weights = rng.normal(size=(groups, rows, columns))
    scale = np.broadcast_to(np.abs(weights).max(axis=1, keepdims=True) / GRID.highest, weights.shape)
    return weights, scale, np.swapaxes(inputs, 1, 2) @ inputs


def error(integers, weights, scale, second):
    off = integers * scale - weights
    return float((np.swapaxes(off, 1, 2) @ second @ off).trace(axis1=1, axis2=2).sum())


def by_definition(weights, scale, second, order):
    """One input after the other; what is left is solved anew for the least squared error, with those before fixed."""
    result = np.zeros_like(weights)
    for column in range(weights.shape[1]):
        left, now = list(order), weights[:, column].copy()
        while left:
            row = left.pop(0)
            result[row, column] = GRID.integers(now[row] / scale[row, column])
            off = weights[:, column] - result[:, column] * scale[:, column]
            off[left] = 0.0
            now[left] = weights[left, column] + np.linalg.solve(second[np.ix_(left, left)], (second @ off)[left])
    return result


@pytest.mark.backend_independent
@pytest.mark.parametrize("ordered", [False, True])
def test_each_input_is_made_up_for_by_those_to_come(ordered):
    weights, scale, second = problem()
    order = np.argsort(-second[0].diagonal()) if ordered else np.arange(6)
    received = gptq(weights, scale, second, GRID, damping=0.0, ordered=ordered)
    np.testing.assert_array_equal(received[0], by_definition(weights[0], scale[0], second[0], order))
    nearest = GRID.integers(weights / scale)
    assert error(received, weights, scale, second) < error(nearest, weights, scale, second)


@pytest.mark.backend_independent
def test_groups_and_blocks_are_each_as_alone(monkeypatch):
    weights, scale, second = problem(groups=3)
    together = gptq(weights, scale, second, GRID)
    alone = [gptq(weights[group, None], scale[group, None], second[group, None], GRID)[0] for group in range(3)]
    np.testing.assert_array_equal(together, alone)
    monkeypatch.setattr("keras_mot.quantization.algorithms.gptq._BLOCK", 2)
    np.testing.assert_array_equal(gptq(weights, scale, second, GRID), together)


@pytest.mark.backend_independent
def test_what_is_not_kept_stays_zero_and_is_made_up_for():
    weights, scale, second = problem()
    kept = RNG.random(weights.shape) > 0.4
    received = gptq(weights * kept, scale, second, GRID, kept)
    assert not received[~kept].any()
    nearest = GRID.integers(weights * kept / scale)
    assert error(received, weights * kept, scale, second) < error(nearest, weights * kept, scale, second)


@pytest.mark.backend_independent
def test_steps_of_single_weights_lower_the_error():
    weights, scale, second = problem()
    start = GRID.integers(weights / scale)
    kept = np.ones(weights.shape, bool)
    better = descended(start, weights, scale, second, GRID, kept)
    assert error(better, weights, scale, second) < error(start, weights, scale, second)
    for place in np.ndindex(weights.shape):  # no single step is left that would lower it
        for step in (-1, 1):
            other = better.copy()
            other[place] += step
            if abs(other[place]) <= GRID.highest:
                assert error(other, weights, scale, second) >= error(better, weights, scale, second) - 1e-9


@pytest.fixture(scope="module")
def model():
    keras.utils.set_random_seed(0)
    inputs = keras.Input((8, 8, 2))
    x = layers.Conv2D(6, 3, use_bias=False, name="conv")(inputs)
    x = layers.BatchNormalization(name="norm")(x)
    x = layers.ReLU()(x)
    x = layers.SeparableConv2D(6, 3, padding="same", activation="relu", name="separable")(x)
    x = layers.GlobalAveragePooling2D()(x)
    made = keras.Model(inputs, layers.Dense(5, name="dense")(x))
    made.get_layer("norm").moving_mean.assign(RNG.normal(size=6) * 0.3)
    made.get_layer("norm").moving_variance.assign(RNG.uniform(0.3, 2.0, 6))
    return made


@pytest.fixture(scope="module")
def rounded(model):
    """Quantized by default, and to the nearest, with 4 bits."""
    return (
        quantize_post_training(model, INT4_WEIGHTS, X),
        quantize_post_training(model, INT4_WEIGHTS, X, rounding=Nearest()),
    )


def outputs(model, x=X):
    return ops.convert_to_numpy(model(x, training=False))


def quantizers(model):
    return [(weight, weight.transform_of(FakeQuantize)) for weight in transformed_weights(model)]


def test_the_default_below_8_bits_is_nearer_to_the_float_model(model, rounded):
    by_data, nearest = rounded
    assert {transform.rounding for _, transform in quantizers(by_data)} == {GPTQ()}
    fresh = np.random.default_rng(9).normal(size=X.shape).astype("float32")
    errors = [np.mean((outputs(each, fresh) - outputs(model, fresh)) ** 2) for each in (by_data, nearest)]
    assert errors[0] < 0.9 * errors[1]  # what is left comes from activations, and from depthwise kernels of 9 weights


def test_means_of_outputs_are_those_of_the_float_model(model, rounded):
    means = [outputs(each).mean(axis=0) for each in (model, *rounded)]
    spread = outputs(model).std(axis=0)
    assert np.abs((means[1] - means[0]) / spread).max() < 0.1


def test_the_integers_are_saved_stripped_and_shipped(rounded, tmp_path):
    by_data, _ = rounded
    by_data.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(outputs(loaded), outputs(by_data))
    stripped = strip_quantization(by_data)
    for weight, transform in quantizers(by_data):
        integers, scale = transform.integers(numpy_value(weight.value_before(transform)))
        assert np.abs(integers).max() <= 7
        plain = next(layer for layer in stripped.layers if layer.name == weight.owner.name)
        np.testing.assert_allclose(numpy_value(getattr(plain, weight.key)), integers * scale, atol=1e-6)


def test_with_8_bits_it_is_the_nearest_unless_it_is_asked_for(model):
    default = quantize_post_training(model, INT8, X)
    assert {transform.rounding for _, transform in quantizers(default)} == {Nearest()}
    asked = quantize_post_training(model, INT8, X, rounding=GPTQ())
    errors = [np.mean((outputs(each) - outputs(model)) ** 2) for each in (asked, default)]
    assert errors[0] < 1.2 * errors[1]
    trained = quantize_model(model, INT4_WEIGHTS, calibration_data=X)
    assert {transform.rounding for _, transform in quantizers(trained)} == {Nearest()}


def test_overrides_have_roundings_of_their_own(model):
    quantized = quantize_post_training(
        model,
        INT8,
        X,
        overrides={"^conv$": INT4_WEIGHTS, "^dense$": QuantizationScheme(4, rounding=GPTQ(damping=0.1))},
    )
    found = {weight.owner.name: transform.rounding for weight, transform in quantizers(quantized)}
    assert (found["conv"], found["dense"], found["separable"]) == (GPTQ(), GPTQ(damping=0.1), Nearest())


def test_biases_stay_if_asked(model):
    before = quantize_post_training(model, INT4_WEIGHTS, X, rounding=Nearest(), correct_biases=False)
    after = quantize_post_training(model, INT4_WEIGHTS, X, correct_biases=False)
    for one, other in zip(before.layers, after.layers, strict=True):
        for variable, same in zip(one.variables, other.variables, strict=False):
            if variable is getattr(one, "bias", None):
                step = np.abs(numpy_value(variable)).max() * 1e-3 + 1e-3  # biases are rounded to their integers
                np.testing.assert_allclose(numpy_value(variable), numpy_value(same), atol=step)


@pytest.mark.parametrize("per_channel", [False, True])
def test_three_bits_and_one_scale(model, per_channel):
    scheme = QuantizationScheme(3, per_channel=per_channel)
    by_data = quantize_post_training(model, scheme, X, equalize=False)
    nearest = quantize_post_training(model, scheme, X, equalize=False, rounding=Nearest())
    errors = [np.mean((outputs(each) - outputs(model)) ** 2) for each in (by_data, nearest)]
    assert errors[0] < errors[1]


def test_zeros_and_shared_values_stay(model):
    pruned = keras_mot.sparsity.prune_low_magnitude(model, keras_mot.sparsity.ConstantSparsity(0.5, 0))
    keras_mot.sparsity.update_pruning_step(pruned)
    quantized = quantize_post_training(pruned, INT4_WEIGHTS, X)
    weight, transform = next(pair for pair in quantizers(quantized) if pair[0].owner.name == "dense")
    before = numpy_value(weight.value_before(transform))
    assert (before == 0).sum() == before.size // 2
    assert not transform.integers(before)[0][before == 0].any()

    clustered = keras_mot.clustering.cluster_weights(
        keras_mot.sparsity.strip_pruning(pruned), number_of_clusters=4, preserve_sparsity=True
    )
    quantized = quantize_post_training(clustered, INT4_WEIGHTS, X)
    weight, transform = next(pair for pair in quantizers(quantized) if pair[0].owner.name == "dense")
    before = numpy_value(weight.value_before(transform))
    integers = transform.integers(before)[0]
    assert not integers[before == 0].any()
    for value in np.unique(before):
        assert len(np.unique(integers[before == value])) == 1


def test_recurrent_kernels_see_all_timesteps():
    keras.utils.set_random_seed(0)
    recurrent = keras.Sequential([keras.Input((2, 3)), layers.SimpleRNN(5), layers.Dense(2)])
    x = RNG.normal(size=(96, 2, 3)).astype("float32")
    by_data = quantize_post_training(recurrent, INT4_WEIGHTS, x)
    nearest = quantize_post_training(recurrent, INT4_WEIGHTS, x, rounding=Nearest())
    errors = [np.mean((outputs(each, x) - outputs(recurrent, x)) ** 2) for each in (by_data, nearest)]
    assert errors[0] < errors[1]


def test_few_samples_are_said(model):
    with pytest.warns(UserWarning, match="fewer samples than inputs of 'dense/kernel'"):
        quantize_post_training(model, INT4_WEIGHTS, X[:3])


def test_a_generator_is_read_once(model):
    batches = (X[start : start + 40] for start in range(0, 160, 40))
    by_batches = quantize_post_training(model, INT4_WEIGHTS, batches)
    by_array = quantize_post_training(model, INT4_WEIGHTS, X, batch_size=40)
    np.testing.assert_allclose(outputs(by_batches), outputs(by_array), atol=1e-5)


def test_bad_arguments(model):
    with pytest.raises(ValueError, match="`damping` should be at least 0"):
        GPTQ(damping=-1)
    with pytest.raises(TypeError, match="`damping` should be a number"):
        GPTQ(damping="much")
    with pytest.raises(TypeError, match="`ordered` should be True or False"):
        GPTQ(ordered="diagonal")
    with pytest.raises(TypeError, match="`rounding` should be a `Rounding`"):
        quantize_post_training(model, INT4_WEIGHTS, X, rounding="gptq")
    assert bias_of(model.get_layer("dense")) is not None
