"""Dynamic ranges: dense layers and embeddings with weights of few bits in models of floats."""

import dataclasses
import warnings

import keras
import numpy as np
import pytest
from keras import layers, ops

from keras_mot import analysis, quantization
from keras_mot._arrays import numpy_value
from keras_mot.clustering import CentroidInitialization, cluster_weights
from keras_mot.layers import transformed_weights
from keras_mot.layers.dynamic_quantizer import DynamicQuantizer, dynamic_parts, rounded_rows
from keras_mot.quantization import (
    DYNAMIC_INT4,
    DYNAMIC_INT8,
    GPTQ,
    INT8,
    MinMax,
    Nearest,
    QuantizationScheme,
    layer_io,
    quantize_model,
    quantize_post_training,
    reference_rounding,
    strip_quantization,
)
from keras_mot.sparsity import ConstantSparsity, prune_low_magnitude
from keras_mot.targets import LITERT, MICRO
from keras_mot.transforms import FakeQuantize
from keras_mot.transforms.grid import short_scale

BLOCKS = dataclasses.replace(DYNAMIC_INT4, block_size=32)
SCHEMES = {"int8": DYNAMIC_INT8, "int4": DYNAMIC_INT4, "blocks": BLOCKS}


def network():
    keras.utils.set_random_seed(3)
    inputs = keras.Input((64,), name="features")
    x = layers.Dense(96, activation="relu", name="wide")(inputs)
    x = layers.BatchNormalization(name="norm")(layers.Dense(32, name="narrow")(x))
    model = keras.Model(inputs, layers.Dense(5, activation="softmax", name="head")(x * 2.0), name="network")
    model.get_layer("norm").moving_mean.assign(np.linspace(-0.5, 0.5, 32))
    model.get_layer("norm").moving_variance.assign(np.linspace(0.5, 2.0, 32))
    return model


def test_floats_that_outweigh_the_integers_are_told():
    keras.utils.set_random_seed(0)
    inputs = keras.Input((8, 8, 4))
    x = layers.GlobalAveragePooling2D()(layers.Conv2D(32, 3, name="conv")(inputs))
    model = keras.Model(inputs, layers.Dense(64)(x), name="small")
    kept, all_of_them = 3 * 3 * 4 * 32, 3 * 3 * 4 * 32 + 32 * 64
    with pytest.warns(UserWarning, match=rf"'small' keeps {kept:,} of its {all_of_them:,} weights in floats.*`INT8`"):
        quantize_post_training(model, DYNAMIC_INT4)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*of its .* weights in floats")
        quantize_post_training(network(), DYNAMIC_INT4)


def features(count=40):
    return np.random.default_rng(1).standard_normal((count, 64)).astype("float32")


def outputs(model, inputs):
    return np.asarray(ops.convert_to_numpy(model(inputs, training=False)))


def transform_of(model, layer):
    (weight,) = [each for each in transformed_weights(model) if each.owner.name == layer]
    transform = weight.transform_of(FakeQuantize)
    return transform, numpy_value(weight.value_before(transform))


def row_as_xnnpack_rounds_it(row):
    """The formula of XNNPACK's `qd8` (quantization.h) for one row, in plain steps of float32."""
    low, high = np.float32(min(0.0, row.min())), np.float32(max(0.0, row.max()))
    scale = np.float32(1) if low == high else np.float32(255) / (high - low)
    from_min, from_max = np.float32(-128) + low * scale, np.float32(127) + high * scale
    zero = np.float32(-128) - low * scale if from_min + from_max > 0 else np.float32(127) - high * scale
    zero = np.rint(np.clip(zero, -128, 127))
    integers = np.clip(np.rint(row * scale) + zero, -128, 127)
    return (integers - zero) / scale, integers


def test_rows_are_rounded_as_by_the_runtime():
    rows = np.random.default_rng(0).standard_normal((6, 40)).astype("float32") * 3
    rows[1], rows[2], rows[3] = np.abs(rows[1]), -np.abs(rows[2]), 0.0  # of one sign, and zeros alone
    received = np.asarray(ops.convert_to_numpy(rounded_rows(ops.convert_to_tensor(rows))))
    for row, rounded in zip(rows, received, strict=True):
        expected, integers = row_as_xnnpack_rounds_it(row)
        np.testing.assert_allclose(rounded, expected, rtol=1e-6, atol=1e-6)
        assert row.any() == (len(np.unique(integers)) > 20)
    assert (received[3] == 0).all()
    np.testing.assert_allclose(rounded_rows(rows, np), received, rtol=1e-6)


def test_scales_of_blocks_are_numbers_of_both_halves():
    scales = short_scale(np.float32([3e-9, 1e-5, 0.0123456, 0.3, 7.7, 1e6]))
    assert (scales.astype("float16").astype("float32") == scales).all()
    assert (scales.view("uint32") & 0xFFFF == 0).all()  # bfloat16 is the upper half of float32
    np.testing.assert_allclose(scales[1:5], [1e-5, 0.0123456, 0.3, 7.7], rtol=2**-8)


@pytest.mark.parametrize(("shape", "axis"), [((64, 6), 0), ((6, 64), 1)])
def test_blocks_have_scales_of_their_own(shape, axis):
    weight = np.random.default_rng(2).standard_normal(shape).astype("float32")
    transform = FakeQuantize(4, block_size=32, channel_axis=1 - axis)
    transform.build(shape)
    transform.fit(weight)
    integers, scales = transform.integers(weight)
    assert np.abs(integers).max() == 7
    for block in range(2):
        part = np.take(scales, range(32 * block, 32 * block + 32), axis)
        assert (part == part.take([0], axis)).all()
    np.testing.assert_allclose(np.asarray(ops.convert_to_numpy(transform(weight))), integers * scales, rtol=1e-6)
    same = FakeQuantize.from_config(transform.get_config())
    assert (same.block_size, same.channel_axis) == (32, 1 - axis)


def test_blocks_of_transforms_are_checked():
    with pytest.raises(ValueError, match="do not divide the 48 weights"):
        FakeQuantize(4, block_size=32, channel_axis=1).build((48, 3))
    with pytest.raises(ValueError, match="for matrices"):
        FakeQuantize(4, block_size=32).build((3, 3, 32, 4))
    with pytest.raises(ValueError, match="neither learned nor"):
        FakeQuantize(4, learned=True, block_size=32)
    with pytest.raises(TypeError, match="`block_size` should be an integer"):
        FakeQuantize(4, block_size="32")


@pytest.mark.parametrize("scheme", SCHEMES)
def test_the_model_computes_products_of_integers(scheme):
    x, weights = features(), layers.Dense(7, name="head")
    model = keras.Sequential([keras.Input((64,)), weights])
    weights.bias.assign(np.arange(7.0))
    quantized = quantize_post_training(model, SCHEMES[scheme])
    integers, scales = transform_of(quantized, "head")[0].integers(numpy_value(weights.kernel))
    rows = np.stack([row_as_xnnpack_rounds_it(row)[0] for row in x])
    expected = rows @ (integers * scales) + np.arange(7.0)
    np.testing.assert_allclose(outputs(quantized, x), expected, rtol=1e-4, atol=1e-4)
    assert np.abs(integers).max() == (127 if scheme == "int8" else 7)
    assert len(np.unique(scales)) > 7 if scheme == "blocks" else np.shape(scales) == (1, 7)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_models_are_saved_and_stripped(scheme, tmp_path):
    model, x = network(), features()
    quantized = quantize_post_training(model, SCHEMES[scheme], x)
    assert sum(isinstance(part, DynamicQuantizer) for part in dynamic_parts(quantized)) == 3
    error = np.abs(outputs(quantized, x) - outputs(model, x)).max()
    assert 0 < error < (0.02 if scheme == "int8" else 0.2)
    quantized.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(outputs(loaded, x), outputs(quantized, x), atol=1e-6)
    stripped = strip_quantization(loaded)
    assert not transformed_weights(stripped)
    assert not dynamic_parts(stripped)
    np.testing.assert_allclose(outputs(stripped, x), outputs(quantized, x), atol=0.02)


def test_gptq_rounds_where_data_are_given():
    model, x = network(), features(200)
    x = x @ np.random.default_rng(5).standard_normal((64, 64)).astype("float32") * 0.1  # inputs that go together
    wanted, errors = outputs(model, x), {}
    for name, data, rounding in (("none", None, None), ("nearest", x, Nearest()), ("data", x, None)):
        quantized = quantize_post_training(model, DYNAMIC_INT4, data, rounding=rounding)
        errors[name] = float(((outputs(quantized, x) - wanted) ** 2).mean())
        expected = GPTQ if name == "data" else Nearest
        assert isinstance(transform_of(quantized, "wide")[0].rounding, expected)
    assert errors["data"] < 0.5 * errors["nearest"]
    assert errors["none"] == errors["nearest"]
    with_blocks = quantize_post_training(model, BLOCKS, x)
    assert float(((outputs(with_blocks, x) - wanted) ** 2).mean()) < 0.5 * errors["nearest"]


def test_tables_are_rounded_row_by_row():
    keras.utils.set_random_seed(0)
    inputs = keras.Input((3,), dtype="int32")
    table = layers.Embedding(9, 64, name="table")
    model = keras.Model(inputs, layers.Dense(2, name="head")(layers.Flatten()(table(inputs))))
    table.embeddings.assign(numpy_value(table.embeddings) * np.arange(1, 10)[:, None])
    numbers = np.arange(9).reshape(3, 3)
    for scheme in SCHEMES.values():
        quantized = quantize_post_training(model, scheme, numbers)
        transform, value = transform_of(quantized, "table")
        integers, scales = transform.integers(value)
        assert (np.abs(integers).max(axis=1) == transform.limit).all()
        assert scales.shape[0] == 9
        assert transform.rounding == Nearest()
        inner = keras.Model(quantized.input, quantized.get_layer("table").output)
        np.testing.assert_allclose(outputs(inner, numbers), (integers * scales)[numbers], rtol=1e-6)


def test_layers_within_others_are_found():
    keras.utils.set_random_seed(0)
    inputs = keras.Input((6, 32))
    x = layers.MultiHeadAttention(2, 16, name="attention")(inputs, inputs)
    x = layers.EinsumDense("abc,cde->abde", (6, 4, 8), name="einsum")(layers.LayerNormalization()(x))
    x = layers.GRU(32, name="gru")(layers.Reshape((6, 32))(x))
    model = keras.Model(inputs, layers.Dense(3, activation="gelu", name="head")(x))
    x = np.random.default_rng(0).standard_normal((8, 6, 32)).astype("float32")
    quantized = quantize_post_training(model, DYNAMIC_INT8)
    kernels = [each for each in transformed_weights(quantized) if each.transform_of(FakeQuantize)]
    assert len(kernels) == 4 + 1 + 2 + 1
    assert np.abs(outputs(quantized, x) - outputs(model, x)).max() < 0.03
    fewer = quantize_post_training(model, DYNAMIC_INT8, overrides={"attention": None, layers.GRU: None})
    assert len([each for each in transformed_weights(fewer) if each.transform_of(FakeQuantize)]) == 2


def test_masks_and_palettes_are_kept():
    model = keras.Sequential([keras.Input((64,)), layers.Dense(32, name="wide"), layers.Dense(4, name="head")])
    pruned = prune_low_magnitude(model, ConstantSparsity(0.5, 0, frequency=1))
    pruned.compile("sgd", "mse")
    pruned.fit(features(32), np.zeros((32, 4)), verbose=0)
    clustered = cluster_weights(pruned, 8, CentroidInitialization.LINEAR)
    for scheme in (DYNAMIC_INT8, BLOCKS):
        for given in (pruned, clustered):
            quantized = quantize_post_training(given, scheme, features(), overrides={"head": DYNAMIC_INT8})
            transform, value = transform_of(quantized, "wide")
            integers, scales = transform.integers(value)
            assert (integers == 0).mean() >= 0.5
            if given is clustered:
                assert len(np.unique(integers)) <= 8
                assert len(np.unique(scales)) == 1


def test_training_goes_on(tmp_path):
    x = features(64)
    y = (x[:, :5].argmax(axis=1)).astype("int32")
    quantized = quantize_model(network(), BLOCKS, overrides={"head": DYNAMIC_INT4})
    before = numpy_value(quantized.get_layer("wide").kernel).copy()
    quantized.compile(keras.optimizers.Adam(1e-2), "sparse_categorical_crossentropy")
    losses = quantized.fit(x, y, epochs=6, batch_size=32, verbose=0).history["loss"]
    assert losses[-1] < losses[0]
    assert np.abs(numpy_value(quantized.get_layer("wide").kernel) - before).max() > 1e-3
    with pytest.raises(ValueError, match="`batch_norm_steps=0`"):
        quantize_model(network(), DYNAMIC_INT8, batch_norm_steps=10)


def test_roundings_are_seen_in_one_layer():
    quantized = quantize_post_training(network(), DYNAMIC_INT4)
    (seen,) = layer_io(quantized, "wide", features())
    assert 0 < np.abs(seen.rounded_outputs[0] - seen.outputs[0]).max() < 1.0
    rows = analysis.sensitivity(quantized, features()).rows
    assert {row.layer for row in rows} == {"wide", "narrow", "head"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"activation_bits": "static"}, "8, 16 or 'dynamic'"),
        ({"block_size": 32}, "for kernels with dynamic ranges"),
        ({"activation_bits": "dynamic", "block_size": 0}, "at least 1"),
        ({"activation_bits": "dynamic", "block_size": 32, "per_channel": False}, "per_channel=True"),
        ({"activation_bits": "dynamic", "learned_scales": True}, "`learned_scales` are for activations of 8 bits"),
    ],
)
def test_schemes_are_checked(arguments, message):
    with pytest.raises(ValueError, match=message):
        QuantizationScheme(**arguments)


def test_what_has_no_kernel_is_refused():
    with pytest.raises(ValueError, match="weights of 8 bits in blocks of no size"):
        LITERT.check(dataclasses.replace(DYNAMIC_INT8, block_size=32))
    with pytest.raises(ValueError, match="in blocks of 32, 64, 128, 256 inputs; the scheme asks for 48"):
        quantize_post_training(network(), dataclasses.replace(DYNAMIC_INT4, block_size=48))
    with pytest.raises(ValueError, match="'micro' has kernels with dynamic ranges for none"):
        quantize_post_training(network(), DYNAMIC_INT8, target=MICRO)
    with pytest.raises(TypeError, match="`block_size` should be an integer"):
        QuantizationScheme(activation_bits="dynamic", block_size=32.0)
    model = keras.Sequential([keras.Input((8, 8, 3)), layers.Conv2D(4, 3), layers.GlobalAveragePooling2D()])
    with pytest.raises(ValueError, match="no dense layer and no embedding"):
        quantize_post_training(model, DYNAMIC_INT8)


def test_blocks_that_do_not_divide_are_named():
    model = keras.Sequential(
        [
            keras.Input((40,)),
            layers.Dense(64, name="first"),
            layers.Dense(48, name="even"),
            layers.Dense(2, name="last"),
        ]
    )
    with pytest.raises(ValueError, match="first': 40 inputs, in blocks of 32") as error:
        quantize_post_training(model, BLOCKS)
    assert "last': 48 inputs" in str(error.value)
    assert "even'" not in str(error.value)
    quantized = quantize_post_training(model, BLOCKS, overrides={"first|last": DYNAMIC_INT4})
    assert transform_of(quantized, "even")[0].block_size == 32
    assert transform_of(quantized, "first")[0].block_size is None


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"placement": "fast"}, "`placement='fast'` chooses between"),
        ({"estimator": MinMax()}, "`estimator` chooses ranges"),
        ({"equalize": True}, "for activations in integers"),
        ({"overrides": {"wide": INT8}}, "activations of 8 bits in a model with dynamic"),
    ],
)
def test_settings_about_ranges_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        quantize_post_training(network(), DYNAMIC_INT8, features(), **settings)


def test_functions_about_integers_refuse_dynamic_ranges(tmp_path):
    quantized = quantize_post_training(network(), DYNAMIC_INT8)
    with pytest.raises(ValueError, match="has dynamic ranges"):
        reference_rounding(quantized)
    with pytest.raises(ValueError, match="has dynamic ranges"):
        analysis.measure_drift(quantized, tmp_path / "model.tflite", features())
    with pytest.raises(ValueError, match="is quantized already"):
        quantize_post_training(quantized, DYNAMIC_INT8)


def test_useless_models_are_warned_of():
    model, x = network(), features()
    with pytest.warns(UserWarning, match="of little use"):
        quantize_post_training(model, dataclasses.replace(DYNAMIC_INT4, weight_bits=2), x, rounding=Nearest())


def test_quantizers_are_public():
    assert quantization.DynamicQuantizer is DynamicQuantizer


def test_whole_numbers_are_rounded_as_floats():
    inputs = keras.Input((16,), dtype="int32")
    model = keras.Model(inputs, layers.Dense(4)(inputs))
    x = np.random.default_rng(0).integers(-3, 400, (6, 16)).astype("int32")
    quantized = quantize_post_training(model, DYNAMIC_INT8)
    wanted = outputs(model, x)
    error = np.abs(outputs(quantized, x) - wanted).max()
    assert 0 < error < 0.02 * np.abs(wanted).max()


def test_targets_say_what_they_have():
    eight = dataclasses.replace(LITERT, name="eight", weight_bits=(8,))
    assert eight.stored_bits(4) == 8
    with pytest.raises(ValueError, match="weights of 8 bits in blocks of no size"):
        eight._check_dynamic(BLOCKS)
    eight._check_dynamic(DYNAMIC_INT4)
