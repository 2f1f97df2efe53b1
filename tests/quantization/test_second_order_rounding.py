"""Rounding by the second moments of inputs: GPTQ against its definition, and in models of all kinds."""

import keras
import numpy as np
import pytest
from keras import layers, ops

import keras_mot
from keras_mot._arrays import numpy_value
from keras_mot.layers import copy_model
from keras_mot.layers.transformed import transformed_weights
from keras_mot.quantization import (
    GPTQ,
    INT4_WEIGHTS,
    INT8,
    AdaRound,
    Nearest,
    QuantizationScheme,
    quantize_model,
    quantize_post_training,
    strip_quantization,
)
from keras_mot.quantization.algorithms.adaround import adaround
from keras_mot.quantization.algorithms.gptq import descended, gptq
from keras_mot.quantization.simulation.weights import with_rounding
from keras_mot.transforms import FakeQuantize
from keras_mot.transforms.grid import Grid

RNG = np.random.default_rng(0)


def images(seed):
    """Images whose neighbouring pixels are alike, as those of cameras are."""
    smooth = np.random.default_rng(seed).normal(size=(128, 6, 6, 2)).cumsum(axis=1).cumsum(axis=2)
    return (smooth / smooth.std()).astype("float32")


X = images(0)
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
    inputs = keras.Input((6, 6, 2))
    x = layers.Conv2D(6, 3, use_bias=False, name="conv")(inputs)
    x = layers.BatchNormalization(name="norm")(x)
    x = layers.ReLU()(x)
    x = layers.DepthwiseConv2D(3, activation="relu", name="depthwise")(x)
    made = keras.Model(inputs, layers.Dense(5, name="dense")(layers.Flatten()(x)))
    made.get_layer("norm").moving_mean.assign(RNG.normal(size=6) * 0.3)
    made.get_layer("norm").moving_variance.assign(RNG.uniform(0.3, 2.0, 6))
    return made


@pytest.fixture(scope="module")
def by_data(model):
    return quantize_post_training(model, INT4_WEIGHTS, X)


@pytest.fixture(scope="module")
def nearest(model):
    return quantize_post_training(model, INT4_WEIGHTS, X, rounding=Nearest())


def outputs(model, x=X):
    return ops.convert_to_numpy(model(x, training=False))


def error_of(quantized, model, x=X):
    return np.mean((outputs(quantized, x) - outputs(model, x)) ** 2)


def quantizers(model):
    return {weight.owner.name: (weight, weight.transform_of(FakeQuantize)) for weight in transformed_weights(model)}


def before(quantized, name):
    """The weight as it is rounded, and its integers."""
    weight, transform = quantizers(quantized)[name]
    value = numpy_value(weight.value_before(transform))
    return value, transform.integers(value)[0]


def test_the_default_below_8_bits_is_nearer_to_the_float_model(model, by_data, nearest):
    assert {transform.rounding for _, transform in quantizers(by_data).values()} == {GPTQ()}
    fresh = images(1)
    assert error_of(by_data, model, fresh) < 0.7 * error_of(nearest, model, fresh)


def test_training_starts_from_the_integers_and_moves_weights_and_biases(model, by_data):
    prepared = quantize_model(model, INT4_WEIGHTS, calibration_data=X)
    assert {transform.rounding for _, transform in quantizers(prepared).values()} == {GPTQ()}
    for name in ("conv", "depthwise", "dense"):
        assert np.mean(before(prepared, name)[1] == before(by_data, name)[1]) > 0.95
    trained = copy_model(by_data)
    trained.compile(keras.optimizers.SGD(1e-4), "mse")
    trained.fit(X[:32], outputs(model, X[:32]) + 1.0, verbose=0)
    for name, (weight, transform) in quantizers(trained).items():
        partner, same = quantizers(by_data)[name]
        np.testing.assert_array_equal(numpy_value(transform.offsets), numpy_value(same.offsets))
        np.testing.assert_array_equal(before(trained, name)[1], before(by_data, name)[1])
        assert np.any(numpy_value(weight.variable) != numpy_value(partner.variable))
        assert np.any(numpy_value(trained.get_layer(name).bias) != numpy_value(by_data.get_layer(name).bias))


def test_means_of_outputs_are_those_of_the_float_model(model, by_data):
    off = outputs(by_data).mean(axis=0) - outputs(model).mean(axis=0)
    assert np.abs(off / outputs(model).std(axis=0)).max() < 0.1


def test_the_integers_are_saved_and_stripped(by_data, tmp_path):
    by_data.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(outputs(loaded), outputs(by_data))
    stripped = strip_quantization(by_data)
    for name, (weight, transform) in quantizers(by_data).items():
        integers, scale = transform.integers(numpy_value(weight.value_before(transform)))
        assert np.abs(integers).max() <= 7
        plain = getattr(stripped.get_layer(name), weight.key)
        np.testing.assert_allclose(numpy_value(plain), integers * scale, atol=1e-6)


@pytest.mark.backend_independent
def test_the_default_of_schemes():
    for bits, by_data, expected in ((4, True, GPTQ()), (8, True, Nearest()), (4, False, Nearest())):
        assert with_rounding(QuantizationScheme(bits), by_data).rounding == expected
    asked = QuantizationScheme(8, rounding=AdaRound())
    assert with_rounding(asked, by_data=True) is asked


def test_overrides_and_the_argument_say_it_for_some_layers(model):
    overrides = {"^conv$": INT4_WEIGHTS, "^dense$": QuantizationScheme(4, rounding=AdaRound(iterations=20))}
    quantized = quantize_post_training(model, INT8, X, overrides=overrides, rounding=GPTQ(damping=0.1))
    found = {name: transform.rounding for name, (_, transform) in quantizers(quantized).items()}
    assert found == {"conv": GPTQ(damping=0.1), "depthwise": GPTQ(damping=0.1), "dense": AdaRound(iterations=20)}
    default = quantize_post_training(model, INT8, X, correct_biases=False)
    assert error_of(quantized, model) < 30 * error_of(default, model)


def test_biases_stay_if_asked(model, by_data):
    kept = quantize_post_training(model, INT4_WEIGHTS, X, correct_biases=False)
    off, moved = (
        np.abs(numpy_value(each.get_layer("dense").bias) - numpy_value(model.get_layer("dense").bias)).max()
        for each in (kept, by_data)
    )
    assert off < 1e-3 < moved  # they are rounded to integers of 32 bits in any case


def test_one_scale_for_all_channels_and_three_bits(model):
    scheme = QuantizationScheme(3, per_channel=False)
    quantized = [
        quantize_post_training(model, scheme, X, equalize=False, rounding=rounding) for rounding in (GPTQ(), Nearest())
    ]
    assert error_of(quantized[0], model) < error_of(quantized[1], model)


def test_zeros_and_shared_values_stay(model):
    pruned = keras_mot.sparsity.prune_low_magnitude(model, keras_mot.sparsity.ConstantSparsity(0.5, 0))
    keras_mot.sparsity.update_pruning_step(pruned)
    value, integers = before(quantize_post_training(pruned, INT4_WEIGHTS, X), "dense")
    assert (value == 0).sum() == value.size // 2
    assert not integers[value == 0].any()

    stripped = keras_mot.graph.fold_batch_norm(keras_mot.sparsity.strip_pruning(pruned))
    clustered = keras_mot.clustering.cluster_weights(stripped, number_of_clusters=4, preserve_sparsity=True)
    value, integers = before(quantize_post_training(clustered, INT4_WEIGHTS, X), "dense")
    assert not integers[value == 0].any()
    assert [len(np.unique(integers[value == each])) for each in np.unique(value)] == [1] * len(np.unique(value))


def test_kernels_of_all_timesteps_are_rounded():
    keras.utils.set_random_seed(0)
    recurrent = keras.Sequential([keras.Input((2, 3)), layers.SimpleRNN(16), layers.Dense(2)])
    x = RNG.normal(size=(128, 2, 3)).astype("float32")
    quantized = quantize_post_training(recurrent, INT4_WEIGHTS, x)
    changed = [
        np.any(transform.integers(value)[0] != transform.grid.integers(value / transform.steps(value)))
        for weight, transform in quantizers(quantized).values()
        for value in [numpy_value(weight.value_before(transform))]
    ]
    assert len(changed) == 3
    assert any(changed)
    assert error_of(quantized, recurrent, x) < 0.05 * outputs(recurrent, x).var()


def test_few_samples_are_said(model):
    with pytest.warns(UserWarning, match="fewer samples than inputs of 'dense/kernel'"):
        quantize_post_training(model, INT4_WEIGHTS, X[:3])


def test_without_data_nothing_rounds_by_data(model):
    with pytest.raises(ValueError, match=r"GPTQ\(.*goes by data, and there are none"):
        quantize_post_training(model, QuantizationScheme(4, "dynamic"), rounding=GPTQ())
    quantize_post_training(model, QuantizationScheme(4, "dynamic"))  # to the nearest
    with pytest.raises(TypeError, match=r"such as `GPTQ\(\)` or `AdaRound\(\)`; received 'gptq'"):
        quantize_post_training(model, INT4_WEIGHTS, X, rounding="gptq")


def test_a_generator_is_read_once(model, by_data):
    batches = (X[start : start + 32] for start in range(0, 128, 32))
    np.testing.assert_allclose(
        outputs(quantize_post_training(model, INT4_WEIGHTS, batches)), outputs(by_data), atol=1e-5
    )


@pytest.mark.backend_independent
def test_learned_rounding_is_at_least_as_near_as_gptq():
    weights, scale, second = problem(rows=12, columns=6)
    kept = RNG.random(weights.shape) > 0.2
    target = weights * kept
    received = AdaRound(iterations=200).choose(target, scale, second, GRID, kept)
    assert not received[~kept].any()
    assert error(received, target, scale, second) <= error(
        gptq(target, scale, second, GRID, kept), target, scale, second
    )
    # The learned part alone: each weight goes up or down by less than a step, and better than to the nearest.
    learned = adaround(target, scale, second, GRID, kept, iterations=300)
    assert np.abs(learned - target / scale)[kept].max() < 1.0
    nearest = GRID.integers(target / scale)
    assert error(learned, target, scale, second) < error(nearest, target, scale, second)


@pytest.mark.backend_independent
@pytest.mark.parametrize(
    ("make", "kind", "message"),
    [
        (lambda: GPTQ(damping=-1), ValueError, "`damping` should be at least 0"),
        (lambda: GPTQ(damping="much"), TypeError, "`damping` should be a number"),
        (lambda: GPTQ(ordered="diagonal"), TypeError, "`ordered` should be True or False"),
        (lambda: AdaRound(iterations=0), ValueError, "`iterations` should be at least 1"),
        (lambda: AdaRound(iterations=0.5), TypeError, "`iterations` should be an integer"),
        (lambda: AdaRound(penalty=0), ValueError, "`penalty` should be above 0"),
        (lambda: AdaRound(penalty="much"), TypeError, "`penalty` should be a number"),
        (lambda: quantize_post_training(None, INT4_WEIGHTS, X, rounding="gptq"), TypeError, "should be a `Rounding`"),
    ],
)
def test_bad_arguments(make, kind, message):
    with pytest.raises(kind, match=message):
        make()
