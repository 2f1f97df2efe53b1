"""Sensitivities against what a user sees who changes one layer himself."""

import dataclasses
import importlib.util
import json
import sys

import keras
import numpy as np
import pytest
from keras import layers, ops

import keras_mot
from keras_mot.analysis import Sensitivity, sensitivity
from keras_mot.analysis._output_loss import decibels, make_measure, relative_noise
from keras_mot.analysis._weight_changes import clustered, pruned, quantized
from keras_mot.layers import WeightAxes
from keras_mot.transforms import FakeQuantize

RNG = np.random.default_rng(0)
X = RNG.normal(size=(48, 8, 8, 3)).astype("float32")


@pytest.fixture(scope="module")
def model():
    keras.utils.set_random_seed(0)
    inner = keras.Sequential(
        [keras.Input((8, 8, 6)), layers.Conv2D(8, 3, activation="relu", name="conv")], name="inner"
    )
    inputs = keras.Input((8, 8, 3))
    x = layers.BatchNormalization(name="norm")(layers.Conv2D(6, 1, name="point")(inputs))
    x = layers.Flatten()(inner(layers.DepthwiseConv2D(3, padding="same", name="depthwise")(x)))
    model = keras.Model(inputs, layers.Dense(4, "softmax", name="classes")(x), name="network")
    model.get_layer("classes").kernel.assign(model.get_layer("classes").kernel * 5)
    return model


@pytest.fixture(scope="module")
def found(model):
    return sensitivity(model, X, weight_bits=(3, 8), sparsity=(0.5,), values=(4,), rank=(0.5,))


def outputs(model):
    return ops.convert_to_numpy(model(X, training=False)).astype("float64")


def test_each_layer_by_its_path_in_the_model(found):
    everything = {("weight_bits", 3), ("weight_bits", 8), ("sparsity", 0.5), ("values", 4), ("rank", 0.5)}
    bits = {("weight_bits", 3), ("weight_bits", 8)}
    expected = {"point": everything - {("rank", 0.5)}, "depthwise": bits, "conv": everything, "classes": everything}
    received = {}
    for row in found:
        received.setdefault(row.layer.split("/")[-1], set()).add((row.technique, row.setting))
    # A kernel of 3 x 6 has rank 3, of which each costs 9 of 18 parameters: one stays.
    expected["point"] = everything
    assert received == expected
    assert (found.measure, found.samples) == ("KL divergence", 48)


def test_losses_are_those_of_the_changed_model(model, found):
    """The divergence, computed here, of a copy with one kernel changed by the public functions."""
    before = outputs(model)
    changed = keras.models.clone_model(model)
    changed.set_weights(model.get_weights())
    kernel = changed.get_layer("classes").kernel
    values = np.array(ops.convert_to_numpy(kernel))
    smallest = np.sort(np.abs(values).ravel())[values.size // 2 - 1]
    kernel.assign(np.where(np.abs(values) <= smallest, 0, values))
    after = outputs(changed)
    (row,) = found.of("sparsity", "classes")
    assert row.loss == pytest.approx(np.mean(np.sum(before * np.log(before / after), axis=-1)), rel=1e-3)
    noise, signal = np.square(after - before).sum(), np.square(before - before.mean(axis=0)).sum()
    assert row.snr_db == pytest.approx(10 * np.log10(signal / noise), rel=1e-3)
    # The energy of the layer's own outputs, from its inputs.
    inputs = ops.convert_to_numpy(keras.Model(model.inputs, model.get_layer("classes").input)(X, training=False))
    pruned_values = np.where(np.abs(values) <= smallest, 0, values)
    lost = np.square(inputs @ (pruned_values - values)).sum() / np.square(inputs @ values).sum()
    assert row.layer_error == pytest.approx(lost, rel=1e-3)
    assert row.parameters == values.size


def test_the_model_is_not_changed(model, found):
    weights = model.get_weights()
    again = sensitivity(model, X, weight_bits=(3,))
    assert {row.layer: row.loss for row in again} == pytest.approx(
        {row.layer: row.loss for row in found.of("weight_bits") if row.setting == 3}, rel=1e-3
    )
    for before, after in zip(weights, model.get_weights(), strict=True):
        np.testing.assert_array_equal(before, after)


def test_rougher_costs_more(found):
    for layer in {row.layer for row in found}:
        losses = {row.setting: row.loss for row in found.of("weight_bits", layer)}
        assert losses[3] > 10 * losses[8]
    assert found.worst(1)[0].loss == max(row.loss for row in found)


def test_estimates_are_near_what_is_measured(model):
    bits = (8, 6, 5)
    measured = sensitivity(model, X, weight_bits=bits)
    estimated = sensitivity(model, X, weight_bits=bits, estimate_below=0.05)
    assert sum(row.estimated for row in estimated) == 8  # of four layers, one of three is run
    for one, other in zip(measured, estimated, strict=True):
        assert (one.layer, one.setting) == (other.layer, other.setting)
        assert other.loss == pytest.approx(one.loss, rel=0.9, abs=1e-7)
        assert other.estimated or other.loss == pytest.approx(one.loss, rel=1e-3)


def test_activations_and_quantized_models():
    """Of a float model, activations are rounded in their ranges; of a quantized one, the 4 bits are to blame."""
    keras.utils.set_random_seed(0)
    first, last = layers.Dense(12, "relu", name="first"), layers.Dense(3, "softmax", name="last")
    model = keras.Sequential([keras.Input((6,), name="features"), first, last])
    x = RNG.normal(size=(64, 6)).astype("float32")
    of_floats = sensitivity(model, x, activation_bits=(8,))
    assert {row.layer for row in of_floats} == {"features", "first", "last"}
    assert all(row.loss > 0 and row.snr_db > 20 for row in of_floats)
    scheme = keras_mot.quantization.QuantizationScheme(weight_bits=4, rounding=keras_mot.quantization.Nearest())
    calibration = keras_mot.quantization.Calibration(x, correct_biases=False, equalize=False)
    quantized = keras_mot.quantization.quantize_post_training(
        model, overrides={"first": scheme}, calibration_data=calibration
    )
    found = sensitivity(quantized, x)
    assert {row.technique for row in found} == {"weight_bits", "activation_bits"}
    blamed = max(found.of("weight_bits"), key=lambda row: row.loss)
    assert (blamed.layer, blamed.setting) == ("first", 4)


def test_kernels_of_one_layer_are_told_apart():
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((6, 4)), layers.SeparableConv1D(3, 3, name="both"), layers.Dense(2)])
    x = np.random.default_rng(0).normal(size=(32, 6, 4)).astype("float32")
    found = sensitivity(model, x, weight_bits=4)
    assert [row.name for row in found] == ["both (depthwise_kernel)", "both (pointwise_kernel)", "dense"]
    assert {row.layer for row in found} == {"both", "dense"}  # which selects the layer
    assert Sensitivity.from_dict(found.to_dict()) == found
    rounded = sensitivity(keras_mot.quantization.quantize_post_training(model, calibration_data=x), x).of("weight_bits")
    assert len({row.name for row in rounded}) == 3
    assert {row.layer for row in rounded} == {"both", "dense"}


def test_what_stays_in_floats_has_no_row_of_activations():
    """One scale for features of different size would lose them, so that they are normalized in floats."""
    keras.utils.set_random_seed(0)
    x = (RNG.normal(size=(64, 4)) * [1e4, 1.0, 1e-2, 10.0]).astype("float32")
    normalization = layers.Normalization(mean=np.zeros(4), variance=np.square([1e4, 1.0, 1e-2, 10.0]), name="normal")
    model = keras.Sequential([keras.Input((4,), name="features"), normalization, layers.Dense(3, name="last")])
    found = sensitivity(model, x, activation_bits=np.int64(8), values=(np.int64(4),))
    assert [row.layer for row in found.of("activation_bits")] == ["normal", "last"]
    assert all(row.snr_db > 20 for row in found.of("activation_bits"))


def test_no_change_compiles_anything(backend):
    class Counting(layers.Layer):
        calls = 0

        def build(self, input_shape):
            self.offset = self.add_weight(shape=(input_shape[-1],), initializer="zeros", name="offset")

        def call(self, inputs):
            Counting.calls += 1
            return inputs + self.offset

    model = keras.Sequential([keras.Input((4,)), layers.Dense(6), Counting(), layers.Dense(3)])
    x, calls = X.reshape(-1, 4)[:32], []
    for settings in ((4,), (2, 3, 4, 5, 6, 8)):
        before = Counting.calls
        sensitivity(model, x, weight_bits=settings)
        calls.append(Counting.calls - before)
    if backend == "torch":  # which compiles nothing: one more call for each run
        assert calls[1] - calls[0] == 2 * 5
    else:
        assert calls[1] == calls[0]


def test_measures():
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((5,)), layers.Dense(3, name="only")])
    x = RNG.normal(size=(32, 5)).astype("float32")
    kernel, y = np.array(ops.convert_to_numpy(model.layers[0].kernel)), np.arange(32) % 3
    (relative,) = sensitivity(model, x, sparsity=(0.5,))
    expected = x @ kernel
    rounded = pruned(kernel, 0.5)
    noise = np.square(x @ rounded - expected).sum() / np.square(expected - expected.mean(axis=0)).sum()
    assert relative.loss == pytest.approx(noise, rel=1e-3)
    logits = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    found = sensitivity(model, (x, y), sparsity=(0.5,), loss=logits)
    increase = float(logits(y, x @ rounded)) - float(logits(y, expected.astype("float32")))
    assert found.measure == "increase of the loss"
    assert found.rows[0].loss == pytest.approx(max(increase, 0), abs=1e-5)
    (divergence,) = sensitivity(model, x, sparsity=(0.5,), loss="kl")
    wanted, got = (np.exp(each) / np.exp(each).sum(-1, keepdims=True) for each in (expected, x @ rounded))
    assert divergence.loss == pytest.approx(np.mean(np.sum(wanted * np.log(wanted / got), -1)), rel=1e-3)


def test_few_bits_are_rounded_by_the_inputs():
    """GPTQ loses less of the outputs than the nearest integers, which 8 bits have."""
    model = keras.Sequential([keras.Input((16,)), layers.Dense(8, name="only")])
    x = (RNG.normal(size=(200, 3)) @ RNG.normal(size=(3, 16)) + 0.1 * RNG.normal(size=(200, 16))).astype("float32")
    kernel = np.array(ops.convert_to_numpy(model.layers[0].kernel))
    errors = {row.setting: row.layer_error for row in sensitivity(model, x, weight_bits=(3, 8))}

    def nearest(bits):
        error = x @ (quantized(kernel, bits, WeightAxes((0,), (1,))) - kernel)
        return np.square(error).sum() / np.square(x @ kernel).sum()

    assert errors[8] == pytest.approx(nearest(8), rel=1e-3)
    assert errors[3] < nearest(3) / 2


def test_reports(found, tmp_path):
    assert Sensitivity.from_dict(json.loads(found.to_json(tmp_path / "found.json"))) == found
    assert json.loads((tmp_path / "found.json").read_text())["measure"] == "KL divergence"
    assert "bits of weights" in str(found)


@pytest.mark.backend_independent
def test_a_plot_needs_matplotlib(found, tmp_path, monkeypatch):
    if importlib.util.find_spec("matplotlib") is not None:
        found.plot(tmp_path / "found.png")
        assert (tmp_path / "found.png").stat().st_size > 5000
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ImportError, match="pip install matplotlib"):
        found.plot(tmp_path / "found.svg")


def test_refusals(model):
    with pytest.raises(
        ValueError, match=r"`sparsity` should be a tuple of shares from 0 to below 1; received \(1.0,\)"
    ):
        sensitivity(model, X, sparsity=(1.0,))
    with pytest.raises(ValueError, match=r"`weight_bits` should be a tuple of integers .*; received '8'"):
        sensitivity(model, X, weight_bits="8")
    with pytest.raises(TypeError, match="`loss` should be a Keras loss, its name, or a function"):
        sensitivity(model, X, loss={"classes": "mse"})
    with pytest.raises(TypeError, match="The model takes 1 inputs"):
        sensitivity(model, {"image": X, "text": X})
    with pytest.raises(ValueError, match="`estimate_below` should be a share"):
        sensitivity(model, X, weight_bits=(8,), estimate_below=3)
    for wrong in ({"batch_size": 0}, {"batch_size": 1.5}, {"max_samples": 0}, {"max_samples": "all"}):
        with pytest.raises(ValueError, match=f"`{next(iter(wrong))}` should be a positive integer"):
            sensitivity(model, X, weight_bits=(8,), **wrong)
    with pytest.raises(ValueError, match="has no labels, which `loss` needs"):
        sensitivity(model, X, weight_bits=(8,), loss="mse")
    with pytest.raises(TypeError, match="expects a Keras model"):
        sensitivity("model.keras", X)
    two = [layers.Input((3,), name="left"), layers.Input((3,), name="right")]
    both = keras.Model(two, layers.Dense(2)(layers.Add()(two)))
    with pytest.raises(TypeError, match=r"The model takes 2 inputs: \['left', 'right'\]"):
        sensitivity(both, np.ones((4, 3)))


@pytest.mark.backend_independent
def test_changes_are_those_of_the_techniques():
    kernel = RNG.normal(size=(6, 4, 5)).astype("float32")
    axes = WeightAxes((-2,), (-1,))
    transform = FakeQuantize(8)
    transform.axes = axes.normalized(3)
    transform.build(kernel.shape)
    np.testing.assert_allclose(quantized(kernel, 8, axes), ops.convert_to_numpy(transform(kernel)), rtol=1e-5)
    zeros = pruned(kernel, 0.75)
    assert (zeros == 0).sum() == 90
    assert np.abs(kernel[zeros == 0]).max() <= np.abs(zeros[zeros != 0]).min()
    few = clustered(kernel, 3)
    assert len(np.unique(few)) == 3
    centers = np.unique(few)
    np.testing.assert_allclose(few, centers[np.abs(kernel[..., None] - centers).argmin(-1)])


@pytest.mark.backend_independent
def test_measures_of_arrays():
    one, other = np.array([[0.25, 0.75], [0.5, 0.5]]), np.array([[0.5, 0.5], [0.5, 0.5]])
    name, divergence = make_measure([one], None, None)
    assert name == "KL divergence"
    assert divergence([other]) == pytest.approx((0.25 * np.log(0.5) + 0.75 * np.log(1.5)) / 2)
    assert divergence([one]) == 0
    yes = np.array([[0.2], [0.9]])
    _, binary = make_measure([yes], None, None)
    expected = 0.1 * np.log(0.1 / 0.2) + 0.9 * np.log(0.9 / 0.8)
    assert binary([np.array([[0.2], [0.8]])]) == pytest.approx(expected / 2)
    assert make_measure([one * 3], None, None)[0] == "relative error"
    logits = np.random.default_rng(1).normal(scale=3.0, size=(64, 10))
    sure = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    steps = np.round(sure * 256) / 256
    assert (steps == 0).any()
    assert np.abs(steps.sum(-1) - 1).max() > 1e-3
    _, rounded = make_measure([sure], None, None)
    assert rounded([steps]) < 5e-3  # a zero of 8 bits is anything up to half a step
    assert rounded([np.eye(10)[np.zeros(64, int)]]) > 1


@pytest.mark.parametrize("name", ["sparse_categorical_crossentropy", "SparseCategoricalCrossentropy"])
def test_the_name_of_a_loss_on_logits(name):
    """Taken for probabilities, logits below 0 would all be one."""
    labels, logits = np.array([0, 1, 1]), np.array([[2.0, -1.0], [-3.0, -1.0], [4.0, 5.0]])
    wanted = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    _, increase = make_measure([logits], name, labels)
    worse = logits[:, ::-1].copy()
    assert increase([worse]) == pytest.approx(float(wanted(labels, worse)) - float(wanted(labels, logits)), rel=1e-5)
    odds = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    _, of_odds = make_measure([odds], name, labels)
    assert of_odds([odds[:, ::-1].copy()]) == pytest.approx(increase([worse]), rel=1e-4)


def test_several_yes_or_no_are_no_logits():
    labels, outputs = np.array([[1.0, 0, 1]]), np.array([[0.9, 0.2, 0.7]])
    other = np.array([[0.6, 0.2, 0.1]])
    _, increase = make_measure([outputs], "bce", labels)
    wanted = keras.losses.BinaryCrossentropy()
    assert increase([other]) == pytest.approx(float(wanted(labels, other)) - float(wanted(labels, outputs)), rel=1e-4)
    _, of_logits = make_measure([10 * outputs - 5], "bce", labels)
    wanted = keras.losses.BinaryCrossentropy(from_logits=True)
    expected = float(wanted(labels, 10 * other - 5)) - float(wanted(labels, 10 * outputs - 5))
    assert of_logits([10 * other - 5]) == pytest.approx(expected, rel=1e-4)


def test_measures_without_noise():
    one = np.array([[0.25, 0.75], [0.5, 0.5]])
    assert relative_noise(np.array([[0.0], [2.0]]), np.array([[1.0], [2.0]])) == 0.5
    assert decibels([one], [one]) is None


def test_rows_are_plain_values(found):
    for row in found:
        assert all(isinstance(value, str | int | float | None) for value in dataclasses.astuple(row))
