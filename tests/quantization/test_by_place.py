"""Ranges by default: what is rare in inputs is cut off, what decides is not, and no order of the data matters."""

import keras
import numpy as np
import pytest
from keras import layers

from keras_mot.layers.activation_quantizer import activation_quantizers
from keras_mot.quantization import INT8, INT16X8, MeanMinMax, SeenValues, quantize_post_training
from keras_mot.quantization.estimators.by_place import (
    MeanOfSamples,
    MostSamples,
    estimators_by_place,
    mean_of_groups,
    quantile_of_groups,
)
from keras_mot.quantization.estimators.calibrating import observe
from keras_mot.quantization.estimators.passes import Passes
from keras_mot.quantization.estimators.samples import RandomSamples, Samples

QUICK = {"equalize": False, "correct_biases": False}


def classifier():
    """Two dense layers behind frames of features, and a softmax at the end."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input((20, 20))
    hidden = layers.Dense(12, activation="relu", name="hidden")(inputs)
    logits = layers.Dense(5, name="logits")(layers.Flatten()(hidden))
    return keras.Model(inputs, layers.Softmax()(logits))


def frames(count=64, seed=0):
    """Normal features, and in one sample of sixteen some values twenty times as large, as of digital silence."""
    x = np.random.default_rng(seed).standard_normal((count, 20, 20)).astype("float32")
    x[::16, :4, 0] = -20.0
    return x


def ranges(model):
    return {item.name: item.clipping_range for item in activation_quantizers(model) if item.fixed is None}


@pytest.fixture(scope="module")
def quantized():
    return quantize_post_training(classifier(), INT8, frames(), **QUICK)


def test_rare_values_of_inputs_are_cut_off_to_the_mean_of_extremes(quantized):
    low, high = next(iter(ranges(quantized).values()))
    x = frames().reshape(64, -1)
    assert (low, high) == pytest.approx((x.min(axis=1).mean(), x.max(axis=1).mean()), rel=1e-5)


def test_logits_are_whole(quantized):
    model, x = classifier(), frames()
    logits = keras.ops.convert_to_numpy(keras.Model(model.input, model.get_layer("logits").output)(x))
    low, high = ranges(quantized)["logits_quantizer"]
    # Inputs are not cut off while ranges are observed; weights are rounded.
    assert (low, high) == pytest.approx((logits.min(), logits.max()), abs=0.05 * float(np.ptp(logits)))


def test_training_does_not_go_back_to_what_was_cut_off(quantized):
    first = activation_quantizers(quantized)[0]
    assert first.limits[0] == pytest.approx(first.clipping_range[0])
    assert first.limits[0] > -20


def test_sixteen_bits_keep_all():
    model = quantize_post_training(classifier(), INT16X8, frames(), **QUICK)
    assert next(iter(ranges(model).values()))[0] == -20.0


def test_what_is_not_rare_is_kept():
    """Small images are bright or dark all over: the mean of their extremes would cut off half of some."""
    seen = SeenValues()
    generator = np.random.default_rng(0)
    tiles = generator.uniform(-1, 1, (200, 1)) + generator.uniform(-0.1, 0.1, (200, 300))
    seen.add(tiles.astype("float32"))
    low, high = MeanOfSamples().range(seen)
    # Of numbers that are all over, a hundredth could be cut off, which is not worth it.
    assert (low, high) == pytest.approx((tiles.min(), tiles.max()))
    assert MeanMinMax().range(seen)[1] < 0.2


@pytest.mark.parametrize("count", [4, 20])
def test_extremes_of_few_features_are_taken_of_many_samples(count):
    seen = SeenValues()
    values = np.random.default_rng(0).standard_normal((512, count)).astype("float32")
    for batch in np.split(values, 16):
        seen.add(batch)
    low, high = MeanOfSamples().range(seen)
    if count == 4:
        assert (low, high) == (values.min(), values.max())
    assert low < -2.5
    assert high > 2.5
    assert MeanMinMax().range(seen)[1] < 2


def test_groups_against_drawing_them():
    generator = np.random.default_rng(0)
    greatest = generator.exponential(size=2000)
    groups = greatest[generator.integers(0, 2000, (50000, 5))].max(axis=1)
    assert mean_of_groups(greatest, 5) == pytest.approx(groups.mean(), rel=0.01)
    assert quantile_of_groups(greatest, 5, 0.9) == pytest.approx(np.quantile(groups, 0.9), rel=0.03)
    assert mean_of_groups(greatest, 1) == pytest.approx(greatest.mean())


def test_one_of_ten_samples_may_be_cut_off_within():
    seen = SeenValues()
    values = np.random.default_rng(0).uniform(0, 1, (100, 1000)).astype("float32")
    values[:, 0] = (np.arange(100) + 1.0) ** 3
    seen.add(values)
    low, high = MostSamples().range(seen)
    assert high == pytest.approx(np.percentile(values[:, 0], 90))
    assert low == pytest.approx(0.0, abs=0.01)


def test_places():
    model = quantize_post_training(classifier(), INT8, frames(), **QUICK)
    kinds = {item.name: type(estimator).__name__ for item, estimator in estimators_by_place(model)}
    assert list(kinds.values()) == ["MeanOfSamples", "MostSamples", "MinMax"]
    assert list(kinds)[-1] == "logits_quantizer"


def test_states_of_steps_are_taken_by_the_mean():
    inputs = keras.Input((6, 3))
    model = keras.Model(inputs, layers.Dense(2)(layers.LSTM(4, name="lstm")(inputs)))
    x = np.random.default_rng(0).standard_normal((16, 6, 3)).astype("float32")
    chosen = estimators_by_place(quantize_post_training(model, INT8, x, **QUICK))
    kinds = {item.name.removeprefix("lstm_"): type(estimator).__name__ for item, estimator in chosen}
    assert kinds["recurrent_quantizer"] == kinds["sum_quantizer"] == kinds["kept_quantizer"] == "MeanOfSamples"
    assert kinds["input_quantizer"] == "MostSamples"
    held = [item.name for item, estimator in chosen if getattr(estimator, "held", False)]
    assert len(held) == 1
    (total,) = [item for item, _ in chosen if item.name == "lstm_sum_quantizer"]
    assert total.limits == (-8.0, 8.0)  # beyond which all gates saturate


def test_steps_of_a_recurrent_layer_are_one_sample():
    """The state of the first steps is small; a range from the mean over steps would cut off that of the last ones."""
    seen = SeenValues()
    for batch in range(3):
        for step in range(5):
            seen.add(np.full((4, 6), step + 10.0 * batch, "float32"), further=step > 0)
    assert seen.extremes.tolist() == [[0.0] * 4 + [10.0] * 4 + [20.0] * 4, [4.0] * 4 + [14.0] * 4 + [24.0] * 4]
    assert seen.size == 30
    assert seen.batches == [(0.0, 4.0), (10.0, 14.0), (20.0, 24.0)]


def test_windows_of_a_sample_are_one_sample():
    seen = SeenValues()
    values = np.arange(24, dtype="float32").reshape(6, 4)
    seen.add(values, samples=2)
    assert seen.extremes.tolist() == [[0.0, 12.0], [11.0, 23.0]]
    seen.add(values[:1], samples=2)  # the same for all samples
    assert seen.extremes.shape == (2, 3)


def test_compiled_runs_see_what_eager_ones_do(quantized):
    batches = [frames()[:32], frames()[32:50]]  # the second one is filled up
    expected = {item.name: seen for item, seen in observe(quantized, batches, progress=False)}
    received = {name: SeenValues() for name in expected}
    for calls in Passes(quantized).watch(batches):
        for quantizer, extremes, values, size in calls:
            received[quantizer.name].note(extremes, values, size)
    for name, seen in expected.items():
        assert received[name].extremes.shape == (2, 50)
        np.testing.assert_allclose(received[name].extremes, seen.extremes, rtol=1e-4, atol=1e-4)
        assert received[name].size == seen.size
        assert received[name].quantile(0.2) == pytest.approx(seen.quantile(0.2), abs=1e-3)


def test_the_order_of_samples_changes_little():
    x = frames(128)
    order = np.argsort(x.mean(axis=(1, 2)))
    first, second = (ranges(quantize_post_training(classifier(), INT8, data, **QUICK)) for data in (x, x[order]))
    for one, other in zip(first.values(), second.values(), strict=True):
        assert other == pytest.approx(one, rel=0.01, abs=0.01)


def test_samples_of_all_are_kept_to_judge_changes_by():
    x = np.repeat(np.arange(4000, dtype="float32")[:, None], 3, axis=1)
    inputs = keras.Input((3,))
    model = keras.Model(inputs, layers.Dense(1)(inputs))
    samples = Samples(model, x)
    assert samples.head[0].max() == 31
    assert sum(len(batch) for batch in samples) == 4000
    kept = np.concatenate(samples.head)[:, 0]
    assert len(kept) == len(set(kept)) == 128
    assert 1500 < kept.mean() < 2500
    assert {len(batch) for batch in samples.head} == {32}


def test_samples_of_several_shapes_are_not_drawn():
    drawn = RandomSamples(8)
    drawn.add((np.zeros((4, 3)),))
    assert sum(len(batch) for (batch,) in drawn.batches()) == 4
    drawn.add((np.zeros((4, 5)),))
    assert drawn.batches() == []


def test_what_is_joined_at_the_output_is_whole():
    """The states of a recurrent layer beside its result: nothing of them is cut off."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input((20, 8))
    model = keras.Model(inputs, layers.Concatenate()([layers.Dense(20, name=name)(inputs) for name in "ab"]))
    quantized = quantize_post_training(model, INT8, frames()[:, :, :8], **QUICK)
    chosen = estimators_by_place(quantized)
    kinds = [type(estimator).__name__ for _, estimator in chosen]
    assert kinds.count("MinMax") == len(kinds) - 1  # all but the input
