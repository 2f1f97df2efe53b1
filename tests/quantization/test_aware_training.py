"""Quantization-aware training: from a calibrated start or the first batches, saved and loaded, exported as trained."""

import keras
import numpy as np
import pytest
from keras import layers, ops

from keras_mot import update_step
from keras_mot.clustering import cluster_weights, strip_clustering
from keras_mot.export import LiteRTRunner, export_litert
from keras_mot.layers.activation_quantizer import ActivationQuantizer, activation_quantizers
from keras_mot.layers.clipping_ranges import typical_extremes
from keras_mot.quantization import (
    INT8,
    INT16X8,
    MinMax,
    quantize_annotate_layer,
    quantize_annotate_model,
    quantize_apply,
    quantize_model,
    quantize_post_training,
    quantize_scope,
    strip_quantization,
)
from keras_mot.quantization.simulation.bias_rounding import round_biases
from keras_mot.sparsity import ConstantSparsity, prune_low_magnitude, strip_pruning
from keras_mot.transforms import FakeQuantize
from tests.quantization.models import compiled, images, small_network

LABELS = np.random.default_rng(8).integers(0, 4, 48)


def test_a_calibrated_model_starts_as_its_post_training_twin():
    """TFMOT's ranges start from -6 to 6, and the accuracy from that of a guess."""
    model, x = small_network(), images()
    quantized = quantize_model(model, calibration_data=x)
    twin = quantize_post_training(model, INT8, x)
    np.testing.assert_allclose(quantized.predict(x, verbose=0), twin.predict(x, verbose=0), atol=0.005)


@pytest.mark.parametrize("scheme", [INT8, INT16X8])
def test_training_saving_and_exporting(scheme, tmp_path):
    x = images()
    quantized = compiled(quantize_model(small_network(), scheme, calibration_data=x))
    history = quantized.fit(x, LABELS, batch_size=16, epochs=3, verbose=0).history["loss"]
    assert history[-1] < history[0]
    quantized.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    simulated = loaded.predict(x, verbose=0)
    np.testing.assert_allclose(simulated, quantized.predict(x, verbose=0), atol=1e-6)
    export_litert(loaded, tmp_path / "model.tflite", strict=True)
    (received,) = LiteRTRunner(tmp_path / "model.tflite").run(x).values()
    assert np.abs(received - simulated).max() < 2.5 / 256
    loaded.fit(x, LABELS, batch_size=16, verbose=0)


def test_biases_are_those_of_the_file_after_each_epoch(tmp_path):
    """A file holds biases as integers: of a bias between two of them, a result near a tie would be another one."""
    x, labels = images(), np.arange(48) % 4
    model = compiled(quantize_model(small_network(), calibration_data=x), 1e-2)
    saved = keras.callbacks.ModelCheckpoint(tmp_path / "{epoch}.keras")
    model.fit(x, labels, epochs=2, batch_size=16, validation_data=(x, labels), callbacks=[saved], verbose=0)
    seen = [keras.models.load_model(tmp_path / "1.keras"), keras.models.load_model(tmp_path / "2.keras"), model]
    for trained in seen:
        before = [ops.convert_to_numpy(item) for item in trained.weights if item.name == "bias"]
        round_biases(trained)
        after = [ops.convert_to_numpy(item) for item in trained.weights if item.name == "bias"]
        for old, new in zip(before, after, strict=True):
            np.testing.assert_array_equal(old, new)
    assert any((one != other).any() for one, other in zip(seen[0].get_weights(), seen[1].get_weights(), strict=True))
    bias = next(item for item in model.weights if item.name == "bias")
    bias.assign(bias + 1e-9)
    changed = ops.convert_to_numpy(bias)
    model.evaluate(x, labels, verbose=0)
    np.testing.assert_array_equal(ops.convert_to_numpy(bias), changed)


def test_ranges_come_from_the_first_batches():
    """Without calibration data nothing is rounded before the first batch; then a constant is its own average."""
    x = np.ones((32, 6), "float32")
    model = keras.Sequential([keras.Input((6,)), layers.Dense(4, activation="softmax")])
    quantized = quantize_model(model)
    np.testing.assert_allclose(quantized.predict(x, verbose=0), model.predict(x, verbose=0), atol=0.01)
    quantizer = activation_quantizers(quantized)[0]
    assert not quantizer.has_range
    compiled(quantized).fit(x, LABELS[:32], batch_size=16, verbose=0)
    assert quantizer.has_range
    assert quantizer.parameters().range == pytest.approx((0.0, 1.0))


def test_the_range_is_a_moving_average():
    quantizer = ActivationQuantizer(decay=0.9)
    for value in range(1, 31):
        quantizer(np.array([-1.0, value], "float32"), training=True)
    expected = 0.0
    for value in range(1, 31):
        expected += max(1 / value, 0.1) * (value - expected)
    assert quantizer.parameters().range[1] == pytest.approx(expected, rel=0.01)
    quantizer(np.array([-100.0, 100.0], "float32"), training=False)
    assert quantizer.parameters().range[1] == pytest.approx(expected, rel=0.01)


def test_typical_extremes_against_their_definition(rng):
    samples = rng.uniform(-1.0, 1.0, (8, 500)).astype("float32")
    samples[0, :2], samples[3, 0] = -100.0, 60.0
    bright = (
        rng.uniform(0.0, 1.0, (8, 500)) * np.arange(1, 9)[:, None]
    )  # many values lie above the mean of the greatest
    little = rng.uniform(-1.0, 1.0, (8, 500))
    little[0, 0] = 1.2  # a fifth of the range is not worth it
    cases = [
        (samples, (samples.min(-1).mean(), samples.max(-1).mean())),
        (np.maximum(samples, 0.0), (0.0, np.maximum(samples, 0.0).max(-1).mean())),
        (bright, (bright.min(), bright.max())),
        (little, (little.min(), 1.2)),
    ]
    for given, expected in cases:
        received = typical_extremes(ops.convert_to_tensor(given.astype("float32")), ops)
        assert [float(end) for end in received] == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize(("scheme", "cut"), [(INT8, True), (INT16X8, False)])
def test_inputs_follow_samples_and_not_their_rare_values(scheme, cut):
    """As with calibration data, an input's range is the mean of the samples' extremes; all is kept with 16 bits."""
    x = np.random.default_rng(0).uniform(-1.0, 1.0, (64, 16, 16, 1)).astype("float32")
    x[::16, 0, 0] = -100.0
    model = keras.Sequential([keras.Input((16, 16, 1)), layers.Conv2D(2, 3), layers.GlobalMaxPooling2D()])
    labels = np.arange(64) % 2
    quantized = quantize_model(model, scheme)
    compiled(quantized).fit(x, labels, batch_size=16, verbose=0, shuffle=False)
    first = activation_quantizers(quantized)[0]
    expected = x.min((1, 2, 3)).mean() if cut else -100.0
    assert first.parameters().range[0] == pytest.approx(expected, rel=0.02)
    asked = quantize_model(model, scheme, calibration_data=x, estimator=MinMax())
    compiled(asked).fit(x, labels, batch_size=16, verbose=0, shuffle=False)
    assert activation_quantizers(asked)[0].parameters().range[0] == pytest.approx(-100.0, rel=0.02)


def test_ranges_do_not_follow_to_infinity():
    """The logarithm of a number that was rounded to 0 says nothing of the range; NaN says that training diverges."""
    quantizer = ActivationQuantizer()
    quantizer.build((4,))
    quantizer.set_range(-8.0, 2.0)
    quantizer(ops.convert_to_tensor([-np.inf, -1.0, 0.0, 1.0]), training=True)
    low, high = quantizer.clipping_range
    assert low == -8.0
    assert 1.9 < high < 2.0
    quantizer(ops.convert_to_tensor([np.nan, 0.0, 0.0, 1.0]), training=True)
    assert not np.isfinite(quantizer.clipping_range).all()


@pytest.mark.parametrize(("bits", "low", "high"), [(8, -1.0, 3.0), (8, 0.0, 6.0), (8, -2.0, -1.0), (4, -1.0, 1.0)])
def test_rounding_against_the_definition(bits, low, high, rng):
    quantizer = ActivationQuantizer(bits)
    quantizer.set_range(low, high)
    parameters = quantizer.parameters()
    x = rng.uniform(low - 1, high + 1, 500).astype("float32")
    least = -(2 ** (bits - 1))
    integers = np.clip(np.round(x / parameters.scale) + parameters.zero_point, least, -least - 1)
    expected = (integers - parameters.zero_point) * parameters.scale
    received = ops.convert_to_numpy(quantizer(x))
    close = np.abs(received - expected) < 1e-5
    assert close.mean() > 0.99  # a value half between two steps may go either way
    assert np.abs(received - expected).max() < parameters.scale * 1.01
    assert ops.convert_to_numpy(quantizer(np.zeros(1, "float32")))[0] == 0.0


def test_sixteen_bits_are_symmetric(rng):
    quantizer = ActivationQuantizer(16)
    quantizer.set_range(-1.0, 4.0)
    assert quantizer.parameters().zero_point == 0
    x = rng.uniform(-4, 4, 1000).astype("float32")
    error = np.abs(ops.convert_to_numpy(quantizer(x)) - x)
    assert error.max() <= 0.51 * quantizer.parameters().scale
    assert quantizer.parameters().scale == pytest.approx(4.0 / 32767)


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_mixed_precision(policy):
    """TFMOT: FakeQuantWithMinMaxVars has type float16 that does not match expected type of float32."""
    inputs = keras.Input((8, 8, 3))
    x = layers.Conv2D(4, 3, activation="relu", dtype=policy)(inputs)
    outputs = layers.Dense(4, activation="softmax", dtype="float32")(layers.Flatten(dtype=policy)(x))
    quantized = compiled(quantize_model(keras.Model(inputs, outputs), calibration_data=images()))
    assert np.isfinite(quantized.fit(images(), LABELS, verbose=0).history["loss"][0])


def test_only_marked_layers_are_quantized(tmp_path):
    """The neighbours stay in floats, with conversions at the borders."""
    model, x = small_network(), images()

    def annotate(layer):
        return quantize_annotate_layer(layer) if layer.name in ("depthwise", "head") else layer

    annotated = keras.models.clone_model(model, clone_function=annotate)
    quantized = quantize_apply(annotated, calibration_data=x)
    owners = [layer.name for layer in quantized.layers if any(v.name == "reach" for v in layer.variables)]
    assert owners == ["depthwise", "head"]
    np.testing.assert_allclose(quantized.predict(x, verbose=0), model.predict(x, verbose=0), atol=0.02)
    result = export_litert(quantized, tmp_path / "model.tflite")
    kinds = [name for name, _, _ in result.float_operators]
    assert "CONV_2D" in kinds
    assert kinds.count("DEPTHWISE_CONV_2D") == 1  # of the separable convolution
    assert "FULLY_CONNECTED" not in kinds
    (received,) = LiteRTRunner(tmp_path / "model.tflite").run(x).values()
    assert np.abs(received - quantized.predict(x, verbose=0)).max() < 1.5 / 256


def test_annotated_models_and_scope():
    model, x = small_network(), images()
    with quantize_scope():
        quantized = quantize_apply(quantize_annotate_model(model), calibration_data=x)
    whole = quantize_model(model, calibration_data=x)
    np.testing.assert_allclose(quantized.predict(x, verbose=0), whole.predict(x, verbose=0), atol=1e-6)


def test_nothing_marked():
    with pytest.raises(ValueError, match=r"No layer of .* is marked"):
        quantize_apply(small_network())
    with pytest.raises(TypeError, match="expects a layer"):
        quantize_annotate_layer(small_network())


def test_exporting_without_ranges(tmp_path):
    with pytest.raises(ValueError, match="have no range yet"):
        export_litert(quantize_model(small_network()), tmp_path / "model.tflite")
    assert not list(tmp_path.iterdir())


def test_export_options_that_do_not_go_together(tmp_path):
    quantized = quantize_model(small_network(), calibration_data=images())
    with pytest.raises(ValueError, match="integer weights"):
        export_litert(quantized, tmp_path / "model.tflite", weights="float16")
    with pytest.raises(ValueError, match="runtimes refuse sparse integer weights"):
        export_litert(quantized, tmp_path / "model.tflite", sparse_encoding=True)
    with pytest.raises(ValueError, match="are for quantized models"):
        export_litert(small_network(), tmp_path / "model.tflite", input_type="int8")


def test_fake_quantize_against_the_definition(rng):
    weight = rng.standard_normal((6, 5)).astype("float32")
    transform = FakeQuantize(bits=4, per_channel=False)
    transform.build(weight.shape)
    scale = np.abs(weight).max() / 7
    expected = np.round(weight / scale) * scale
    np.testing.assert_allclose(ops.convert_to_numpy(transform(weight)), expected, atol=1e-6)
    integers, scales = transform.integers(weight)
    np.testing.assert_array_equal(integers, np.round(weight / scale))
    assert scales == pytest.approx(scale)
    with pytest.raises(ValueError, match="from 2 to 16"):
        FakeQuantize(bits=1)


@pytest.mark.parametrize("technique", [prune_low_magnitude, lambda model: cluster_weights(model, 4)])
def test_a_quantized_model_is_neither_pruned_nor_clustered(technique):
    quantized = quantize_model(small_network(), calibration_data=images())
    with pytest.raises(ValueError, match="it is quantized, and any change would leave the integers"):
        technique(quantized)


def test_zeros_and_shared_values_survive_quantization():
    """Zero is on every symmetric grid, and equal weights of a channel stay equal."""
    model = keras.Sequential([keras.Input((30,)), layers.Dense(20, activation="relu"), layers.Dense(4)])
    pruned = prune_low_magnitude(model, ConstantSparsity(0.75, 0))
    update_step(pruned)
    clustered = strip_clustering(cluster_weights(strip_pruning(pruned), 8, preserve_sparsity=True))
    quantized = strip_quantization(quantize_model(clustered, calibration_data=np.ones((4, 30), "float32")))
    for before, after in zip(clustered.layers, quantized.layers[1:], strict=True):
        old, new = (ops.convert_to_numpy(layer.kernel) for layer in (before, after))
        np.testing.assert_array_equal(new[old == 0], 0.0)
        assert max(len(np.unique(channel)) for channel in new.T) <= 8


def test_training_keeps_ranges_that_calibration_has_cut():
    """Rare values that calibration has cut off come in every batch: the range must not follow them again."""
    generator = np.random.default_rng(0)
    x = generator.uniform(-1.0, 1.0, (256, 64)).astype("float32")
    x[::20, 0] = -100.0  # tells nothing: its weights are zero
    x[:, 1] = 1.0  # the greatest of each sample: nothing is cut off above
    model = keras.Sequential([keras.Input((64,)), layers.Dense(8, activation="relu"), layers.Dense(4)])
    kernel = generator.standard_normal((64, 8))
    kernel[0] = 0.0
    model.layers[0].kernel.assign(kernel)
    quantized = quantize_model(model, calibration_data=x)
    quantizer = activation_quantizers(quantized)[0]
    least, greatest = quantizer.parameters().range
    assert least > -25.0
    assert greatest > 0.9
    quantized.compile(keras.optimizers.SGD(1e-4), "mse")
    quantized.fit(x, np.zeros((256, 4)), batch_size=20, epochs=2, verbose=0)
    assert quantizer.parameters().range[0] == pytest.approx(least, rel=1e-2)
    copied = ActivationQuantizer.from_config(quantizer.get_config())
    assert copied.limits == quantizer.limits
    # The other side goes on following.
    quantized.fit(x + 3.0, np.zeros((256, 4)), batch_size=4, epochs=4, verbose=0)
    assert quantizer.parameters().range[1] > greatest + 2.0
    shades = (generator.integers(0, 256, (256, 64)) / 127.5 - 1).astype("float32")
    shades[:, :2] = -1.0, 1.0
    halfway = quantize_model(model, calibration_data=shades)
    before = activation_quantizers(halfway)[0].parameters()
    halfway.compile(keras.optimizers.SGD(1e-4), "mse")
    halfway.fit(shades, np.zeros((256, 4)), batch_size=4, verbose=0)
    assert activation_quantizers(halfway)[0].parameters() == before
