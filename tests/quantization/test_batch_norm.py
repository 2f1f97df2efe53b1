"""Batch normalization that is trained behind rounded kernels, and is a part of scales and biases in the file."""

import warnings

import keras
import numpy as np
import pytest
from keras import layers, ops

from keras_mot import update_step
from keras_mot.analysis import measure_drift, tensor_stats
from keras_mot.clustering import cluster_weights
from keras_mot.export import LiteRTRunner, export_litert
from keras_mot.layers.trained_batch_norm import TrainedBatchNorm
from keras_mot.quantization import (
    INT4_WEIGHTS,
    INT8,
    INT16X8,
    MinMax,
    QuantizationScheme,
    freeze_batch_norm,
    quantize_annotate_model,
    quantize_apply,
    quantize_model,
    reference_rounding,
    strip_quantization,
)
from keras_mot.recipes import FineTune, QuantizeAware
from keras_mot.sparsity import ConstantSparsity, prune_low_magnitude
from tests.quantization.models import compiled, images

LABELS = np.arange(48) % 4
QUICK = {"estimator": MinMax(), "equalize": False, "correct_biases": False}


def network():
    """Batch normalization of each kind behind layers of each kind, with factors of both signs and one of 0."""
    model = keras.Sequential(
        [
            keras.Input((8, 8, 3)),
            layers.Conv2D(8, 3, name="conv"),
            layers.BatchNormalization(name="norm"),
            layers.ReLU(),
            layers.DepthwiseConv2D(3, use_bias=False, name="depthwise"),
            layers.BatchNormalization(scale=False, momentum=0.9),
            layers.ReLU(6.0),
            layers.Conv2DTranspose(4, 2, name="transpose"),
            layers.BatchNormalization(center=False),
            layers.Reshape((25, 4)),
            layers.SeparableConv1D(6, 3, name="separable"),
            layers.BatchNormalization(epsilon=1e-2),
            layers.GlobalAveragePooling1D(),
            layers.Dense(8, name="dense"),
            layers.BatchNormalization(),
            layers.Dense(4, activation="softmax", name="head"),
        ]
    )
    generator = np.random.default_rng(3)
    for layer in model.layers:
        if getattr(layer, "use_bias", False):
            layer.bias.assign(generator.normal(0, 0.3, layer.bias.shape))
        if isinstance(layer, layers.BatchNormalization):
            shape = layer.moving_mean.shape
            layer.moving_mean.assign(generator.normal(0, 0.3, shape))
            layer.moving_variance.assign(generator.uniform(0.2, 2.0, shape))
            if layer.scale:
                layer.gamma.assign(generator.normal(0, 1.0, shape))
            if layer.center:
                layer.beta.assign(generator.normal(0, 0.2, shape))
    gamma = ops.convert_to_numpy(model.get_layer("norm").gamma).copy()
    gamma[1] = 0.0
    model.get_layer("norm").gamma.assign(gamma)
    return model


def test_a_penalty_sees_kernels_without_the_factors_of_folded_batch_normalization():
    model = keras.Sequential(
        [keras.Input((4,)), layers.Dense(3, kernel_regularizer=keras.regularizers.L2(1.0)), layers.BatchNormalization()]
    )
    model.layers[1].moving_variance.assign([1e-4] * 3)  # the folded kernel is a hundred times as large
    x = np.random.default_rng(0).normal(size=(16, 4)).astype("float32")
    quantized = quantize_model(model, calibration_data=x, batch_norm_steps=0, **QUICK)
    (penalty,), (expected,) = quantized.losses, model.losses
    assert float(ops.convert_to_numpy(penalty)) == pytest.approx(float(ops.convert_to_numpy(expected)), rel=0.02)


def trained_norms(model):
    return [layer for layer in model._flatten_layers() if isinstance(layer, TrainedBatchNorm)]


def state(layer):
    return {name: ops.convert_to_numpy(getattr(layer, name)).copy() for name in ("gamma", "beta", "moving_mean")}


@pytest.mark.parametrize("scheme", [INT8, INT16X8, INT4_WEIGHTS, QuantizationScheme(learned_scales=True)])
def test_it_computes_what_the_folded_model_does(scheme):
    model, x = network(), images()
    expected = quantize_model(model, scheme, calibration_data=x, equalize=False).predict(x, verbose=0)
    live = quantize_model(model, scheme, calibration_data=x, batch_norm_steps=None)
    assert len(trained_norms(live)) == 5
    np.testing.assert_allclose(live.predict(x, verbose=0), expected, atol=1.1 / 256)
    assert np.mean(live.predict(x, verbose=0) == expected) > 0.95
    frozen = freeze_batch_norm(live)
    assert not trained_norms(frozen)
    np.testing.assert_allclose(frozen.predict(x, verbose=0), expected, atol=1.1 / 256)


def test_statistics_follow_the_batches_as_in_the_float_model():
    """Of the first layer, whose inputs are nearly the float model's."""
    model, x = network(), images()
    live = quantize_model(model, calibration_data=x, batch_norm_steps=None, **QUICK)
    before = state(live.get_layer("norm"))
    for each in (model, live):
        each.compile(keras.optimizers.SGD(0.0), "sparse_categorical_crossentropy")
        each.fit(x, LABELS, batch_size=48, verbose=0)
    norm, signs = model.get_layer("norm"), np.sign(ops.convert_to_numpy(model.get_layer("norm").gamma))
    expected = (ops.convert_to_numpy(norm.moving_mean) - ops.convert_to_numpy(model.get_layer("conv").bias)) * signs
    after = state(live.get_layer("norm"))
    used = signs != 0
    np.testing.assert_allclose(after["moving_mean"][used], expected[used], atol=1e-3)
    assert (after["moving_mean"][used] != before["moving_mean"][used]).all()
    variances = [ops.convert_to_numpy(each.get_layer("norm").moving_variance) for each in (live, model)]
    np.testing.assert_allclose(*(value[used] for value in variances), rtol=1e-2)


def test_training_saving_and_exporting(tmp_path):
    x = images()
    live = compiled(quantize_model(network(), calibration_data=x, batch_norm_steps=None, **QUICK), 1e-2)
    history = live.fit(x, LABELS, batch_size=16, epochs=4, verbose=0).history["loss"]
    assert history[-1] < history[0]
    expected = live.predict(x, verbose=0)
    np.testing.assert_array_equal(freeze_batch_norm(live).predict(x, verbose=0).argmax(-1), expected.argmax(-1))
    live.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(loaded.predict(x, verbose=0), expected, atol=1e-6)
    loaded.fit(x, LABELS, batch_size=16, verbose=0)
    export_litert(live, tmp_path / "model.tflite", strict=True)
    (received,) = LiteRTRunner(tmp_path / "model.tflite").run(x).values()
    assert np.mean(np.abs(received - expected) < 0.5 / 256) > 0.98
    report = measure_drift(live, tmp_path / "model.tflite", x)
    assert report.first_beyond(1) is None
    assert all(tensor.equal > 0.99 for tensor in report.tensors)
    plain = strip_quantization(live)
    assert not any(isinstance(layer, layers.BatchNormalization) for layer in plain.layers)


def test_statistics_freeze_after_some_steps(tmp_path):
    """Three steps an epoch: in the second epoch only gamma and beta move."""
    x = images()
    live = compiled(quantize_model(network(), calibration_data=x, batch_norm_steps=3, **QUICK))
    first, seen = trained_norms(live)[0], []
    for epoch in range(2):
        seen.append(state(first))
        assert first.has_frozen_statistics == (epoch > 0)
        live.fit(x, LABELS, batch_size=16, verbose=0)
    assert (seen[1]["moving_mean"] != seen[0]["moving_mean"]).any()
    after = state(first)
    np.testing.assert_array_equal(after["moving_mean"], seen[1]["moving_mean"])
    assert (after["gamma"] != seen[1]["gamma"]).any()
    assert (after["beta"] != seen[1]["beta"]).any()
    live.save(tmp_path / "model.keras")
    assert trained_norms(keras.models.load_model(tmp_path / "model.keras"))[0].has_frozen_statistics
    # With frozen statistics, training computes as inference does.
    x = ops.convert_to_tensor(np.random.default_rng(2).standard_normal((4, 6, 6, 8)).astype("float32"))
    np.testing.assert_allclose(
        *(ops.convert_to_numpy(first(x, training=training)) for training in (True, False)), atol=1e-5
    )


def test_what_is_frozen_stays_folded():
    """The bias of the layer before it is trained, as in the float model."""
    model, x = network(), images()
    model.get_layer("norm").trainable = False
    live = quantize_model(model, calibration_data=x, batch_norm_steps=None, **QUICK)
    assert len(trained_norms(live)) == 4
    assert live.get_layer("conv").bias.trainable


def test_sequences_and_axes():
    """Dense layers on sequences are computed on one batch of vectors, where a mask would be lost."""
    model = keras.Sequential(
        [
            keras.Input((10, 3)),
            layers.Dense(6, name="first"),
            layers.BatchNormalization(axis=2, name="of_sequences"),
            layers.Conv1D(4, 3, name="conv"),
            layers.BatchNormalization(axis=2, name="positive"),
            layers.Flatten(),
            layers.Dense(4, activation="softmax"),
        ]
    )
    x = np.random.default_rng(1).standard_normal((48, 10, 3)).astype("float32")
    live = compiled(quantize_model(model, calibration_data=x, batch_norm_steps=None, **QUICK))
    assert [norm.name for norm in trained_norms(live)] == ["positive"]
    live.fit(x, LABELS, batch_size=16, verbose=0)
    expected = live.predict(x, verbose=0)
    np.testing.assert_allclose(freeze_batch_norm(live).predict(x, verbose=0), expected, atol=1.1 / 256)


def test_two_quantized_models_in_one():
    x = images()
    inputs = keras.Input((8, 8, 3))
    twins = [quantize_model(network(), calibration_data=x, batch_norm_steps=None, **QUICK) for _ in range(2)]
    outer = keras.Model(inputs, layers.Average()([twin(inputs) for twin in twins]))
    frozen = freeze_batch_norm(outer)
    assert not trained_norms(frozen)
    np.testing.assert_allclose(frozen.predict(x, verbose=0), outer.predict(x, verbose=0), atol=2.2 / 256)


def test_factors_stay_positive():
    x = images()
    live = quantize_model(network(), calibration_data=x, batch_norm_steps=None, **QUICK)
    live.compile(keras.optimizers.SGD(20.0), "sparse_categorical_crossentropy")
    live.fit(x, LABELS, batch_size=16, epochs=2, verbose=0)
    assert all((state(norm)["gamma"] >= 0).all() for norm in trained_norms(live))


def test_masks_and_codebooks_are_kept_in_the_file(tmp_path):
    """Factors that training moves are a part of the scales, so that shared values stay shared."""
    x = images()
    pruned = prune_low_magnitude(network(), ConstantSparsity(0.5, 0), include_depthwise=True)
    update_step(pruned, 0)
    with warnings.catch_warnings():  # of batch normalization, which quantization takes care of
        warnings.simplefilter("ignore")
        both = cluster_weights(pruned, 6, preserve_sparsity=True, include_depthwise=True)
    live = compiled(quantize_model(both, calibration_data=x, batch_norm_steps=None, **QUICK), 1e-2)
    live.fit(x, LABELS, batch_size=16, epochs=2, verbose=0)
    file = export_litert(live, tmp_path / "model.tflite")
    kernels = [tensor for tensor in tensor_stats(file.path) if len(tensor.shape) > 1 and tensor.size > 20]
    assert len(kernels) == 6
    for tensor in kernels:
        assert tensor.unique_values <= 6
        assert tensor.sparsity >= 0.5


def test_ranges_may_come_from_the_first_batches():
    live = compiled(quantize_model(network(), batch_norm_steps=2))
    live.fit(images(), LABELS, batch_size=16, verbose=0)
    assert np.isfinite(live.predict(images(), verbose=0)).all()


def test_marked_models_and_models_around(tmp_path):
    x = images()
    live = quantize_apply(quantize_annotate_model(network()), calibration_data=x, batch_norm_steps=None, **QUICK)
    assert len(trained_norms(live)) == 5
    outer = keras.Sequential([keras.Input((8, 8, 3)), live])
    export_litert(outer, tmp_path / "model.tflite", strict=True)
    (received,) = LiteRTRunner(tmp_path / "model.tflite").run(x).values()
    np.testing.assert_allclose(received, live.predict(x, verbose=0), atol=1.1 / 256)


def test_half_precision():
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        model = network()
    finally:
        keras.config.set_dtype_policy("float32")
    live = compiled(quantize_model(model, calibration_data=images(), batch_norm_steps=1, **QUICK))
    loss = live.fit(images(), LABELS, batch_size=16, epochs=2, verbose=0).history["loss"]
    assert np.isfinite(loss).all()


def test_a_stage_hands_on_the_folded_model():
    x = images()

    class Run:
        progress = rehearsing = False

        def calibration(self, samples):
            return x[:samples]

    stage = QuantizeAware(batch_norm_steps=None, fine_tune=FineTune(1))
    live = stage.apply(network(), Run())
    assert trained_norms(live)
    folded = stage.trained(live)
    assert not trained_norms(folded)
    assert stage.trained(folded) is folded


def test_it_is_trained_unless_channels_share_a_scale_or_kernels_are_equalized():
    assert len(trained_norms(quantize_model(network()))) == 5
    assert len(trained_norms(quantize_apply(quantize_annotate_model(network())))) == 5
    assert not trained_norms(quantize_model(network(), QuantizationScheme(per_channel=False)))
    assert not trained_norms(quantize_model(network(), equalize=True))
    assert not trained_norms(quantize_model(network(), batch_norm_steps=0))


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"batch_norm_steps": True}, TypeError, "number of training steps"),
        ({"batch_norm_steps": 1.5}, TypeError, "number of training steps"),
        ({"batch_norm_steps": -1}, ValueError, "at least 0"),
        ({"batch_norm_steps": 5, "equalize": True}, ValueError, "equalize"),
        ({"batch_norm_steps": 5, "scheme": QuantizationScheme(per_channel=False)}, ValueError, "each channel"),
    ],
)
def test_bad_input(options, error, message):
    with pytest.raises(error, match=message):
        quantize_model(network(), **options)


def test_bad_input_of_other_functions():
    model = network()
    with pytest.raises(TypeError, match="expects a Keras 3 model"):
        freeze_batch_norm([model])
    with pytest.raises(ValueError, match="no batch normalization in training"):
        freeze_batch_norm(quantize_model(model, batch_norm_steps=0))
    live = quantize_model(model, calibration_data=images(), batch_norm_steps=None, **QUICK)
    with pytest.raises(ValueError, match="freeze_batch_norm"):
        reference_rounding(live)
    with pytest.raises(ValueError, match="each channel"):
        QuantizeAware(batch_norm_steps=5, per_channel=False)
    with pytest.raises(ValueError, match="batch_norm_steps"):
        QuantizeAware(batch_norm_steps=-1)
