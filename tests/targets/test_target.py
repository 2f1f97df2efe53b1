"""Targets: what quantized models take from them, and remember."""

import dataclasses

import keras
import numpy as np
import pytest
from keras import layers

from keras_mot.export import export_litert
from keras_mot.export.dependencies import require
from keras_mot.export.litert.integers import rules
from keras_mot.export.litert.litert_file import parse_model
from keras_mot.layers import transformed_weights
from keras_mot.layers.activation_quantizer import ActivationQuantizer, activation_quantizers
from keras_mot.quantization import INT8, INT16X8, QuantizationScheme, quantize_post_training
from keras_mot.targets import LITERT, BiasForm, get, register, target_of
from keras_mot.transforms import FakeQuantize
from keras_mot.transforms.grid import Grid
from tests.quantization.test_coverage import only_tensorflow

X = np.random.default_rng(0).standard_normal((64, 8, 8, 3)).astype("float32")


def variant(name, **changes):
    return register(dataclasses.replace(LITERT, name=name, **changes))


def network():
    keras.utils.set_random_seed(3)
    inputs = keras.Input((8, 8, 3))
    x = layers.Conv2D(4, 3, padding="same", activation="relu", name="conv")(inputs)
    x = layers.Add(name="sum")([x, layers.DepthwiseConv2D(3, padding="same", name="depthwise")(x)])
    x = layers.GlobalAveragePooling2D(name="mean")(x)
    return keras.Model(inputs, layers.Dense(3, activation="softmax", name="head")(x))


def per_channel(model):
    weights = transformed_weights(model)
    return {weight.owner.name: weight.transform_of(FakeQuantize).per_channel for weight in weights}


def test_litert_is_the_default():
    assert get("litert") is LITERT
    assert target_of(quantize_post_training(network(), INT8, X)) is LITERT


def test_scales_of_weights_are_those_that_the_target_has():
    alone = variant("scales-1", per_channel={**LITERT.per_channel, 8: frozenset()})
    names = ["conv", "depthwise", "head"]
    assert per_channel(quantize_post_training(network(), INT8, X)) == dict.fromkeys(names, True)
    assert per_channel(quantize_post_training(network(), INT8, X, target=alone)) == dict.fromkeys(names, False)
    four = QuantizationScheme(weight_bits=4)
    assert per_channel(quantize_post_training(network(), four, X, target=alone)) == dict.fromkeys(names, True)
    five = QuantizationScheme(weight_bits=5)  # stored in 8 bits
    assert per_channel(quantize_post_training(network(), five, X, target=alone)) == dict.fromkeys(names, False)
    convolutions = variant("scales-2", per_channel={4: frozenset(), 8: frozenset({"conv", "depthwise_conv"})})
    expected = {"conv": True, "depthwise": True, "head": False}
    assert per_channel(quantize_post_training(network(), INT8, X, target=convolutions)) == expected


def test_what_has_no_kernel_stays_in_floats():
    inputs = keras.Input((8, 8, 3), name="image")
    ends = layers.Add(name="sum")([layers.Conv2D(3, 3, name="one")(inputs), layers.Conv2D(3, 3, name="other")(inputs)])
    kernels = {8: LITERT.kernels[8] - {"add"}, 16: LITERT.kernels[16]}
    target = variant("no-sums", kernels=kernels)

    def behind(target):
        quantized = quantize_post_training(keras.Model(inputs, ends), INT8, X, target=target)
        return {layer.name.removesuffix("_quantizer") for layer in activation_quantizers(quantized)} - {"image"}

    assert behind(LITERT) == {"one", "other", "sum"}
    assert behind(target) == {"one", "other"}


@pytest.mark.parametrize(
    ("missing", "reader"), [("concatenate", layers.Concatenate), ("max_pool", layers.MaxPooling2D)]
)
def test_what_a_reader_in_floats_gets_is_rounded(missing, reader):
    inputs = keras.Input((8, 8, 3), name="image")
    made = [layers.Conv2D(3, 3, name=name)(inputs) for name in ("one", "other")]
    end = reader(name="end")(made if reader is layers.Concatenate else made[0])
    target = variant(f"no-{missing}", kernels={**LITERT.kernels, 8: LITERT.kernels[8] - {missing}})
    quantized = quantize_post_training(keras.Model(inputs, end), INT8, X, target=target)
    expected = {"image", "one", "other"} if reader is layers.Concatenate else {"image", "one"}
    assert {layer.name.removesuffix("_quantizer") for layer in activation_quantizers(quantized)} == expected


def test_nothing_is_cut_off_for_a_gate_in_floats():
    inputs = keras.Input((6,))
    both = layers.Add(name="both")([layers.Dense(3)(inputs), layers.Dense(3)(inputs)])
    model = keras.Model(inputs, layers.Dense(2)(layers.Activation("sigmoid", name="gate")(both)))

    def limits(**settings):
        quantized = quantize_post_training(model, INT8, X.reshape(-1, 6), **settings)
        return {layer.name: layer.limits for layer in activation_quantizers(quantized)}["both_quantizer"]

    assert limits() == (-8.0, 8.0)
    assert limits(overrides={"gate$": None}) is None


def test_activations_have_the_form_of_the_target(tmp_path):
    forms = {8: Grid(8, symmetric=True, narrow=True), 16: Grid(16)}
    target = variant("symmetric", activations=forms)
    model = keras.Sequential([keras.Input((6,)), layers.Dense(3), layers.ReLU(name="relu"), layers.Dense(2)])
    x = X.reshape(-1, 6)
    quantized = quantize_post_training(model, INT8, x, target=target)
    quantized.save(tmp_path / "model.keras")
    for model in (quantized, keras.saving.load_model(tmp_path / "model.keras")):
        quantizers = activation_quantizers(model)
        assert {quantizer.parameters().zero_point for quantizer in quantizers} == {0}
        rounded = keras.ops.convert_to_numpy(quantizers[0](x[:16]))
        scale = quantizers[0].parameters().scale
        assert scale == pytest.approx(np.abs(x).max() / 127, rel=0.2)  # inputs may be cut off
        integers = rounded / scale
        np.testing.assert_allclose(integers, np.rint(integers), atol=1e-3)
        np.testing.assert_allclose(integers, np.clip(x[:16] / scale, -127, 127), atol=0.501)


def test_fixed_ranges_are_those_of_the_target():
    ranges = {8: {"softmax": (0.0, 0.5)}, 16: LITERT.fixed_ranges[16]}
    model = quantize_post_training(network(), INT8, X, target=variant("half-softmax", fixed_ranges=ranges))
    assert activation_quantizers(model)[-1].fixed == (0.0, 0.5)
    model = quantize_post_training(network(), INT8, X)
    assert activation_quantizers(model)[-1].fixed == (0.0, 255 / 256)


def test_biases_are_as_large_as_the_target_stores_them():
    model = network()
    model.get_layer("head").bias.assign([0.3, -40.0, 40.0])
    few = variant("short-biases", biases={8: BiasForm(16, 2**15 - 1), 16: BiasForm(64)})

    def bias(target):
        quantized = quantize_post_training(model, INT8, X, target=target, correct_biases=False)
        head = quantized.get_layer("head")
        (weight,) = transformed_weights(head)
        transform = weight.transform_of(FakeQuantize)
        scales = transform.scales(keras.ops.convert_to_numpy(weight.variable)).reshape(-1)
        source = next(item for item in activation_quantizers(quantized) if item.name == "mean_quantizer")
        return keras.ops.convert_to_numpy(head.bias) / (scales * source.parameters().scale)

    assert np.abs(bias(LITERT)).max() > 2**16
    np.testing.assert_allclose(np.abs(bias(few))[1:], 2**15 - 1, rtol=1e-4)


def test_a_saved_model_remembers_its_target(tmp_path):
    target = variant("remembered", biases={8: BiasForm(32, 2**20), 16: BiasForm(64)})
    quantized = quantize_post_training(network(), INT8, X, target=target)
    quantized.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert target_of(loaded) is target
    loaded.compile("sgd", "mse")
    loaded.fit(X[:8], np.zeros((8, 3), "float32"), verbose=0)  # rounds biases as the target stores them


@only_tensorflow
def test_files_store_weights_in_bits_that_the_target_has(tmp_path):
    model = keras.Sequential([keras.Input((6,)), layers.Dense(3)])
    four = QuantizationScheme(weight_bits=4)
    types = {}
    for target in (LITERT, variant("eight-alone", weight_bits=(8,))):
        export_litert(quantize_post_training(model, four, X.reshape(-1, 6), target=target), tmp_path / "model.tflite")
        file = parse_model((tmp_path / "model.tflite").read_bytes())
        types[target.name] = {tensor.type for tensor in file.subgraphs[0].tensors}
    kinds = require("ai_edge_litert.schema_py_generated").TensorType
    assert kinds.INT4 in types["litert"]
    assert kinds.INT4 not in types["eight-alone"]
    assert kinds.INT8 in types["eight-alone"]


@only_tensorflow
@pytest.mark.parametrize("missing", ["add", "transpose"])
def test_files_have_no_kernel_that_the_target_lacks(missing, tmp_path):
    inputs = keras.Input((8,))
    x = layers.Reshape((4, 2))(layers.Dense(8)(inputs))
    x = layers.Add()([x, layers.Reshape((4, 2))(layers.Dense(8)(inputs))]) if missing == "add" else x
    x = layers.Permute((2, 1))(x) if missing == "transpose" else x
    model = keras.Model(inputs, layers.Dense(3)(layers.Flatten()(x)))
    target = variant(f"none-{missing}", kernels={**LITERT.kernels, 8: LITERT.kernels[8] - {missing}})
    quantized = quantize_post_training(model, INT8, X.reshape(-1, 8), target=target)
    exported = export_litert(quantized, tmp_path / "model.tflite")
    assert [name for name, _, _ in exported.float_operators] == [missing.upper()]


@only_tensorflow
def test_files_have_the_batch_size_that_the_target_takes(tmp_path):
    model = keras.Sequential([keras.Input((6,)), layers.Dense(3)])
    x = X.reshape(-1, 6)
    fixed = variant("one-by-one", open_batch=False)
    exported = [
        export_litert(quantize_post_training(model, INT8, x, target=target), tmp_path / "model.tflite")
        for target in (LITERT, fixed)
    ]
    assert [file.batch_size for file in exported] == [None, 1]
    assert exported[1].batch_reason == "the target takes no open batch dimension"


def test_an_older_configuration_is_of_litert():
    model = quantize_post_training(network(), INT8, X)
    config = activation_quantizers(model)[0].get_config()
    del config["target"]
    assert ActivationQuantizer.from_config(config).target == "litert"


@pytest.mark.parametrize("bits", [8, 16])
def test_what_litert_prescribes_is_said_alike_of_models_and_of_files(bits):
    operators = {"sigmoid": "LOGISTIC", "softmax": "SOFTMAX", "tanh": "TANH"}
    operators |= {"log_softmax": "LOG_SOFTMAX"} if bits == 8 else {}
    assert set(LITERT.fixed_ranges[bits]) == set(operators)
    for kind, operator in operators.items():
        assert rules.has_result(operator, LITERT.activations[bits].parameters(*LITERT.fixed_ranges[bits][kind]))
    only_8_bits = {"sum": "SUM", "elu": "ELU", "gelu": "GELU", "prelu": "PRELU", "log": "LOG", "argmax": "ARG_MAX"}
    for kind, operator in only_8_bits.items():
        assert (kind in LITERT.kernels[bits]) == (rules.rule_for(operator, bits) is not None) == (bits == 8)


def test_names_and_their_targets():
    one = dataclasses.replace(LITERT, name="twice")
    assert register(one) is one
    assert register(dataclasses.replace(one)) == one
    with pytest.raises(ValueError, match="another target named 'twice'"):
        register(dataclasses.replace(one, fused=()))
    with pytest.raises(ValueError, match=r"no target 'tflite', only .*litert"):
        get("tflite")
    with pytest.raises(TypeError, match="`Target` or the name of one"):
        get(8)
    with pytest.raises(TypeError, match="expects a `Target`"):
        register("litert")


def test_what_a_target_cannot_do_is_refused_at_once():
    with pytest.raises(ValueError, match="'unknown' is not registered"):
        quantize_post_training(network(), INT8, X, target=dataclasses.replace(LITERT, name="unknown"))
    eight = variant("eight", kernels={8: LITERT.kernels[8]})
    with pytest.raises(ValueError, match=r"activations of \[8\] bits; the scheme asks for 16"):
        quantize_post_training(network(), INT16X8, X, target=eight)
    with pytest.raises(ValueError, match="no target 'tflite'"):
        quantize_post_training(network(), INT8, X, target="tflite")
    with pytest.raises(ValueError, match=r"kernels for activations of \[8, 16\] bits; `biases` says nothing of \[16\]"):
        dataclasses.replace(LITERT, name="wrong", biases={8: BiasForm()})
    with pytest.raises(ValueError, match=r"`activations\[8\]` should be a `Grid` of 8 bits; received Grid\(bits=7"):
        dataclasses.replace(LITERT, name="wrong", activations={**LITERT.activations, 8: Grid(7)})
    swapped = {**LITERT.fixed_ranges, 8: {"relu": (1.0, -1.0)}}
    with pytest.raises(ValueError, match=r"`fixed_ranges\[8\]\['relu'\]` should be the least and the greatest number"):
        dataclasses.replace(LITERT, name="wrong", fixed_ranges=swapped)
    with pytest.raises(ValueError, match=r"`saturation\[16\]\['tanh'\]` should be above 0; received -6"):
        dataclasses.replace(LITERT, name="wrong", saturation={**LITERT.saturation, 16: {"tanh": -6}})
    with pytest.raises(ValueError, match="`weight_bits` is empty"):
        dataclasses.replace(LITERT, name="wrong", weight_bits=())
    four = variant("four", weight_bits=(4,))
    with pytest.raises(ValueError, match="weights in at most 4 bits; the scheme asks for 8"):
        quantize_post_training(network(), INT8, X, target=four)


def test_runtimes_are_known():
    with pytest.raises(ValueError, match=r"`runtime` should be one of 'litert', 'micro'; received 'server'"):
        dataclasses.replace(LITERT, name="elsewhere", runtime="server")


@pytest.mark.parametrize(
    "wrong",
    [
        {"file_type": "int9"},
        {"open_batch": "no"},
        {"floats": 0},
        {"operators": "ADD CONV_2D"},
        {"operators": [1]},
        {"most_axes": {"ADD": "four"}},
        {"most_axes": {"ADD": True}},
    ],
    ids=str,
)
def test_what_files_may_be_is_checked(wrong):
    (field,) = wrong
    with pytest.raises(ValueError, match=f"Target 'elsewhere': `{field}` should"):
        dataclasses.replace(LITERT, name="elsewhere", **wrong)
