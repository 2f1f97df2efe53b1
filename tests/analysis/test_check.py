"""Published rules of accelerators, applied to files: which layer, which operator, and why."""

import dataclasses
import json

import keras
import numpy as np
import pytest
from keras import layers, ops

from keras_mot._packages import is_installed
from keras_mot.analysis import check
from keras_mot.analysis._check import known_targets
from keras_mot.analysis._limits import LIMITS, violation
from keras_mot.analysis.check_report import Finding
from keras_mot.cli import check as check_command
from keras_mot.cli import main
from keras_mot.export import export_litert
from keras_mot.export.litert.operator_view import OperatorView, TensorView
from keras_mot.quantization import INT8, QuantizationScheme, quantize_post_training
from keras_mot.targets.rules import RULES

pytestmark = pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="reads files, which are the same on every backend"
)
LEVELS = ("since", "before")


def network():
    keras.utils.set_random_seed(3)
    inputs = keras.Input((8, 8, 4), name="images")
    x = layers.Conv2D(4, 3, activation="relu", name="first")(inputs)
    x = layers.Conv2D(4, 3, activation="gelu", name="second")(x)
    x = layers.GlobalAveragePooling2D(name="average")(x)
    return keras.Model(inputs, layers.Dense(5, name="head")(x))


def file_of(model, path, scheme=INT8, **options):
    x = np.random.default_rng(0).standard_normal((16, *model.input_shape[1:])).astype("float32")
    quantized = quantize_post_training(model, scheme, x, **options.pop("quantization", {}))
    return export_litert(quantized, path, verify=False, **options).path


@pytest.fixture(scope="module")
def integers(tmp_path_factory):
    """Int8 in and out, batch size 1."""
    options = {"input_type": "int8", "output_type": "int8", "batch_size": 1}
    return file_of(network(), tmp_path_factory.mktemp("check") / "integers.tflite", **options)


@pytest.fixture(scope="module")
def open_batch(tmp_path_factory):
    """Floats in and out, an open batch."""
    return file_of(network(), tmp_path_factory.mktemp("check") / "open.tflite")


def found(report):
    return {(each.layer, each.operator): each.reason for each in report.findings}


def test_the_edge_tpu(integers, open_batch):
    report = check(integers, "edgetpu")
    assert found(report) == {("second_gelu", "GELU"): "Coral Edge TPU has no such operator"}
    assert (report.maps, report.rules_only, report.operators, report.api_level) == (False, True, 5, None)
    assert "GELU ('second_gelu') runs on the CPU, too: 2 operators" in report.notes[0]
    assert "coral.ai" in report.source
    text = str(report)
    assert "5 operators, of which 4 map" in text
    assert "GELU (second_gelu): Coral Edge TPU has no such operator" in text
    assert "Checked by rules only: it was neither compiled nor run" in text
    reasons = found(check(open_batch, "edgetpu"))
    way = "? x 8 x 8 x 4; Coral Edge TPU wants all sizes fixed: export with `batch_size=1`"
    assert way in reasons["images", "input"]
    assert "FLOAT32" in reasons["images", "QUANTIZE"]
    assert ("head", "DEQUANTIZE") in reasons


def test_lines_are_of_layers_and_reasons(integers):
    findings = [
        *(Finding("memory/while/body", name, "floats") for name in ("ADD", "MUL", "ADD")),
        Finding("memory/gru_cell", "ADD", "floats"),
        Finding("head", "SPLIT", "none"),
        *(Finding(f"split_{number}", "SPLIT", "none") for number in range(8)),
        Finding("x", "input", "open"),
    ]
    report = dataclasses.replace(check(integers, "edgetpu"), findings=tuple(findings))
    shown = [line.strip() for line in str(report).splitlines() if line.startswith("  ")]
    assert shown == [
        "ADD, MUL (memory): floats (4 times)",
        "SPLIT (head, split_0, split_1, split_2, split_3, split_4 and 3 more): none",
        "input (x): open",
    ]
    assert len(report.to_dict()["findings"]) == len(findings)


def test_steps_are_called_after_their_layer(tmp_path):
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((3, 4)), layers.GRU(5, name="memory"), layers.Dense(2, name="head")])
    report = check(file_of(model, tmp_path / "recurrent.tflite"), "edgetpu")
    assert {each.operator for each in report.findings} >= {"SPLIT_V", "UNPACK"}
    for each in report.findings:
        if each.operator in ("SPLIT_V", "UNPACK"):
            assert each.layer.startswith("memory_")


def test_nnapi_by_api_level(integers):
    reasons = found(check(integers, "nnapi"))
    assert reasons["head", "FULLY_CONNECTED"].startswith("its weights have 5 scales")
    assert "`keras-mot quantize --per-tensor`" in reasons["head", "FULLY_CONNECTED"]
    assert "another scale or zero point" in reasons["average", "MEAN"]
    assert "no such operator" in reasons["second_gelu", "GELU"]
    assert ("first", "CONV_2D") not in reasons
    old = found(check(integers, "nnapi", api_level=28))
    assert old["first", "CONV_2D"].startswith("below the API level 29: its input is INT8")
    assert check(integers, "nnapi", api_level=28).api_level == 28
    assert check(integers, "nnapi").api_level == 30


def test_one_scale_for_a_kernel_maps_to_nnapi(tmp_path):
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((6,), name="x"), layers.Dense(4, name="head")])
    options = {"input_type": "int8", "output_type": "int8"}
    path = file_of(model, tmp_path / "a.tflite", QuantizationScheme(per_channel=False), **options)
    assert check(path, "nnapi").maps
    assert not check(file_of(model, tmp_path / "b.tflite", **options), "nnapi").maps


def test_microcontrollers(integers, open_batch, tmp_path):
    assert found(check(integers, "micro")) == {
        ("second_gelu", "GELU"): "LiteRT for Microcontrollers has no such operator"
    }
    assert "wants all sizes fixed" in found(check(open_batch, "micro"))["images", "input"]
    made = file_of(network(), tmp_path / "micro.tflite", quantization={"target": "micro"})
    assert check(made, "micro").maps
    two = file_of(network(), tmp_path / "two.tflite", batch_size=2, input_type="int8", output_type="int8")
    assert "takes batches of 1" in found(check(two, "micro"))["images", "input"]


@pytest.mark.parametrize("target", ["ethos-u55", "ethos-u85"])
@pytest.mark.parametrize("build", ["network", "strides", "pooling", "table", "functions"])
def test_rules_of_ethos_u_are_what_vela_does(target, build, tmp_path):
    """The operators that rules refuse are those that the compiler leaves to the CPU."""
    if not is_installed("ethosu.vela"):
        pytest.skip("needs the extra 'ethos-u' (ethos-u-vela)")
    path = file_of(BUILDS[build](), tmp_path / "a.tflite", batch_size=1, input_type="int8", output_type="int8")
    ruled, compiled = check(path, target, compiler=False), check(path, target)
    assert ruled.rules_only
    assert not compiled.rules_only
    assert compiled.source.startswith("Vela ")
    assert {key[1] for key in found(ruled)} == {key[1] for key in found(compiled)} == EXPECTED[build][target]
    assert set(found(ruled)) == set(found(compiled))


def strides():
    """A transposed convolution of stride 3, and a depthwise one of stride 4 with padding."""
    inputs = keras.Input((16, 16, 4))
    x = layers.Conv2DTranspose(4, 3, strides=3, name="up")(inputs)
    return keras.Model(inputs, layers.DepthwiseConv2D(5, strides=4, padding="same", name="down")(x))


def pooling():
    """Windows that are too large, with padding and without."""
    inputs = keras.Input((16, 16, 4))
    x = layers.AveragePooling2D(9, strides=1, padding="same", name="padded")(layers.Conv2D(4, 1)(inputs))
    return keras.Model(inputs, layers.AveragePooling2D(9, strides=1, name="unpadded")(x))


def table():
    """A function of each element that has no kernel: CAST, ADD and GATHER."""
    inputs = keras.Input((8, 8, 4))
    return keras.Model(inputs, layers.Activation("mish", name="mish")(layers.Conv2D(4, 1)(inputs)))


def functions():
    inputs = keras.Input((8, 8, 4))
    x = layers.Conv2D(4, 3, activation="elu", name="first")(inputs)
    x = layers.ReLU(6.0)(layers.Add()([x, layers.Conv2D(4, 1, name="side")(x)]))
    x = ops.maximum(x, layers.MaxPooling2D(2, strides=1, padding="same")(x))
    return keras.Model(inputs, layers.Softmax()(layers.Dense(3)(layers.Flatten()(x))))


BUILDS = {"network": network, "strides": strides, "pooling": pooling, "table": table, "functions": functions}
NOTHING = {"ethos-u55": set(), "ethos-u85": set()}
EXPECTED = {
    "network": NOTHING,
    "functions": NOTHING,
    "strides": {"ethos-u55": {"TRANSPOSE_CONV", "DEPTHWISE_CONV_2D"}, "ethos-u85": set()},
    "pooling": {"ethos-u55": {"AVERAGE_POOL_2D"}, "ethos-u85": {"AVERAGE_POOL_2D"}},
    "table": {"ethos-u55": {"CAST", "GATHER"}, "ethos-u85": set()},
}


def tensor(shape=(1, 8, 8, 4), kind="INT8", scales=(0.1,), points=(0,), values=None):
    values = None if values is None else np.asarray(values)
    shape = shape if values is None else values.shape
    return TensorView("tensor", kind, tuple(shape), scales, points, values is not None, lambda: values)


def operator(name, *inputs, output=None, version=1, **options):
    settings = type("Options", (), options)
    return OperatorView(name, "layer", version, settings, list(inputs), [tensor() if output is None else output])


X, PLAIN = tensor(), operator("ADD", tensor(), tensor())
KERNEL = tensor(values=np.ones((4, 1, 1, 4), "int8"), scales=(0.1,) * 4, points=(0,) * 4)
# Of each limit: its arguments, an operator that keeps it, and one that breaks it.
CASES = {
    "activation_types": (("INT8",), PLAIN, operator("ADD", tensor(kind="INT32"), X)),
    "along_batch_axes": ((), operator("GATHER", X, X, axis=1, batchDims=1), operator("GATHER", X, X, axis=1)),
    "along_last_axis": ((), operator("ARG_MAX", X, tensor(values=3)), operator("ARG_MAX", X, tensor(values=1))),
    "axes": ((2, 4), PLAIN, operator("SOFTMAX", tensor((1, 2, 3)))),
    "batch": ((1,), PLAIN, operator("MEAN", tensor((2, 8, 8, 4)))),
    "batch_unpadded": (
        (),
        operator("PAD", X, tensor(values=[[0, 0], [1, 1], [0, 0], [0, 0]])),
        operator("PAD", X, tensor(values=[[1, 0], [0, 0], [0, 0], [0, 0]])),
    ),
    "bias_types": (
        ("INT32",),
        operator("CONV_2D", X, KERNEL, tensor(kind="INT32")),
        operator("CONV_2D", X, KERNEL, tensor(kind="INT16")),
    ),
    "constant": ((1,), operator("PAD", X, KERNEL), operator("PAD", X, X)),
    "constant_bias": ((), operator("CONV_2D", X, KERNEL), operator("CONV_2D", X, KERNEL, X)),
    "constant_weights": ((), operator("CONV_2D", X, KERNEL), operator("CONV_2D", X, X)),
    "constants_are_zero": (
        (),
        operator("CONCATENATION", X, tensor(values=np.full((1, 2), 5), points=(5,))),
        operator("CONCATENATION", X, tensor(values=np.full((1, 2), 4), points=(5,))),
    ),
    "default_weights_format": ((), PLAIN, operator("FULLY_CONNECTED", X, KERNEL, weightsFormat=1)),
    "depth_multiple_if_reduced": (
        (4,),
        operator("MEAN", X, tensor(values=[3])),
        operator("MEAN", tensor((1, 8, 8, 5)), tensor(values=[-1])),
    ),
    "equal_dilation": (
        (),
        operator("CONV_2D", X, KERNEL, dilationHFactor=2, dilationWFactor=2),
        operator("CONV_2D", X, KERNEL, dilationHFactor=2, dilationWFactor=1),
    ),
    "equal_shapes": ((0, 1), PLAIN, operator("SELECT", X, tensor((1, 4)))),
    "from_float_or_byte": (
        (),
        operator("QUANTIZE", X),
        operator("QUANTIZE", tensor(kind="INT16")),
    ),
    "has_bias": ((2,), operator("CONV_2D", X, KERNEL, X), operator("CONV_2D", X, KERNEL)),
    "inner_axes": ((3,), PLAIN, operator("ADD", tensor((2, 8, 8, 4)), X)),
    "input_types": ((0, "INT8"), PLAIN, operator("ADD", tensor(kind="FLOAT32"), X)),
    "integer_window": (
        (256,),
        operator("AVERAGE_POOL_2D", tensor(kind="FLOAT32"), filterHeight=17, filterWidth=17),
        operator("AVERAGE_POOL_2D", X, filterHeight=17, filterWidth=17),
    ),
    "large_stride_unpadded": (
        (3,),
        operator("CONV_2D", X, KERNEL, strideH=4, strideW=4, padding=1),
        operator("CONV_2D", X, KERNEL, strideH=4, strideW=4, padding=0),
    ),
    "longest_reduced": (
        (8,),
        operator("MEAN", X, tensor(values=[1, 2])),
        operator("MEAN", tensor((1, 9)), tensor(values=[1])),
    ),
    "most_axes": ((4,), PLAIN, operator("SUB", tensor((1, 1, 1, 1, 2)), X)),
    "most_channels": ((4,), PLAIN, operator("ARG_MAX", tensor((1, 5)))),
    "most_elements": ((256,), PLAIN, operator("SOFTMAX", tensor((1, 257)))),
    "most_rows": ((64,), PLAIN, operator("SOFTMAX", tensor((1, 13, 5, 4)))),
    "no_activation": ((), PLAIN, operator("MAX_POOL_2D", X, fusedActivationFunction=1)),
    "no_crops": (
        (),
        operator("BATCH_TO_SPACE_ND", X, X, tensor(values=[[0, 0]])),
        operator("BATCH_TO_SPACE_ND", X, X, tensor(values=[[0, 1]])),
    ),
    "no_dilation": ((), PLAIN, operator("CONV_2D", X, KERNEL, dilationHFactor=2, dilationWFactor=2)),
    "no_ellipsis": ((), PLAIN, operator("STRIDED_SLICE", X, ellipsisMask=1)),
    "no_kept_axes": ((), PLAIN, operator("FULLY_CONNECTED", X, KERNEL, keepNumDims=True)),
    "no_new_axis": ((), PLAIN, operator("STRIDED_SLICE", X, newAxisMask=1)),
    "not_a_scalar": ((), PLAIN, operator("MEAN", X, output=tensor(()))),
    "not_along": ((0,), operator("PACK", X, X, axis=1), operator("PACK", X, X, axis=-4)),
    "not_over_batch": ((), operator("MEAN", X, tensor(values=[1, 2])), operator("MEAN", X, tensor(values=[0]))),
    "not_split_over_batch": ((), operator("SPLIT", tensor(values=3), X), operator("SPLIT", tensor(values=-4), X)),
    "one_scale": ((1,), PLAIN, operator("FULLY_CONNECTED", X, KERNEL)),
    "one_scale_of_activations": ((), operator("CONV_2D", X, KERNEL), operator("ADD", X, KERNEL)),
    "output_types": ((0, "INT8"), PLAIN, operator("ARG_MAX", X, output=tensor(kind="INT64"))),
    "plain_corners": ((), PLAIN, operator("RESIZE_BILINEAR", X, halfPixelCenters=True)),
    "positive_strides": (
        (),
        operator("STRIDED_SLICE", X, X, X, tensor(values=[1, 2])),
        operator("STRIDED_SLICE", X, X, X, tensor(values=[1, -1])),
    ),
    "quantized": ((), PLAIN, operator("ADD", tensor(scales=()), X)),
    "quantized_like_result": ((), operator("MAXIMUM", X, X), operator("MAXIMUM", X, tensor(scales=(0.2,)))),
    "rescaled_below_one": (
        (),
        operator("CONV_2D", tensor(kind="UINT8"), tensor(kind="UINT8"), output=tensor(scales=(0.02,))),
        operator("CONV_2D", tensor(kind="UINT8"), tensor(kind="UINT8"), output=tensor(scales=(0.01,))),
    ),
    "resized_by": (
        (2, 4, 8),
        operator("RESIZE_BILINEAR", X, output=tensor((1, 16, 16, 4))),
        operator("RESIZE_BILINEAR", X, output=tensor((1, 24, 24, 4))),
    ),
    "same_quantization": ((), operator("MEAN", X), operator("MEAN", X, output=tensor(points=(3,)))),
    "same_window": (
        (8,),
        operator("AVERAGE_POOL_2D", X, filterHeight=8, filterWidth=8, padding=0),
        operator("AVERAGE_POOL_2D", X, filterHeight=9, filterWidth=1, padding=0),
    ),
    "slope_of_last_axis": (
        (),
        operator("PRELU", X, tensor(values=np.ones((1, 1, 4)))),
        operator("PRELU", X, tensor(values=np.ones((8, 8, 4)))),
    ),
    "square": ((), PLAIN, operator("RESIZE_BILINEAR", X, output=tensor((1, 8, 4, 4)))),
    "stride": ((1, 3), PLAIN, operator("DEPTHWISE_CONV_2D", X, KERNEL, strideH=4, strideW=1)),
    "unit_strides": (
        (),
        operator("STRIDED_SLICE", X, X, X, tensor(values=[1, 1])),
        operator("STRIDED_SLICE", X, X, X, tensor(values=[1, 2])),
    ),
    "valid_window": (
        (65536, 256),
        operator("MAX_POOL_2D", X, filterHeight=256, filterWidth=256, padding=1),
        operator("MAX_POOL_2D", X, filterHeight=257, filterWidth=1, padding=1),
    ),
    "vector_input": ((), operator("SOFTMAX", tensor((1, 9))), operator("SOFTMAX", X)),
    "vector_result": ((), operator("FULLY_CONNECTED", X, output=tensor((1, 9))), operator("FULLY_CONNECTED", X)),
    "version": ((2,), operator("ADD", X, X, version=2), operator("ADD", X, X, version=3)),
    "weight_types": (("INT8",), operator("CONV_2D", X, KERNEL), operator("CONV_2D", X, tensor(kind="INT4"))),
    "weights_like_input": (
        (),
        operator("CONV_2D", X, KERNEL),
        operator("CONV_2D", tensor(kind="FLOAT32"), KERNEL),
    ),
}


@pytest.mark.parametrize("name", LIMITS)
def test_each_limit(name):
    arguments, kept, broken = CASES[name]
    assert violation((name, *arguments), kept) is None
    assert len(violation((name, *arguments), broken).split()) >= 3
    assert violation(("before", 29, name, *arguments), broken, 29) is None
    assert violation(("before", 29, name, *arguments), broken, 28).startswith("below the API level 29: ")


def test_levels():
    assert violation(("since", 29), PLAIN, 29) is None
    assert violation(("since", 29), PLAIN, 28) == "it needs the API level 29; checked for 28"


@pytest.mark.parametrize("rules", RULES.values(), ids=lambda rules: rules.name)
def test_tables_hold_what_there_is(rules):
    from ai_edge_litert import schema_py_generated as schema

    operators, types = vars(schema.BuiltinOperator), vars(schema.TensorType)
    assert set(rules.operators) <= set(operators)
    assert set(rules.types) <= set(types)
    assert rules.source
    limits = [limit for name in rules.operators for limit in rules.limits(name)]
    limits += [limit[2:] for limit in limits if limit[0] == "before"]
    assert {limit[0] for limit in limits} <= {*LIMITS, *LEVELS}
    asked = {each for limit in limits for each in limit[1:] if isinstance(each, str)}
    assert asked <= {*types, *LIMITS}
    assert (rules.levels is not None) == any(limit[0] in LEVELS for limit in limits)


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        (("edgetpuu",), {}, "Did you mean 'edgetpu'"),
        (("edgetpu",), {"api_level": 30}, "is for 'nnapi'"),
        (("nnapi",), {"api_level": 26}, "from 27 to 30"),
    ],
)
def test_wrong_values_are_refused(arguments, options, message, integers):
    with pytest.raises(ValueError, match=message):
        check(integers, *arguments, **options)


def test_wrong_types_and_files_are_refused(integers, tmp_path):
    for arguments, options in (
        ((integers, 5), {}),
        ((integers, "nnapi"), {"api_level": "30"}),
        ((integers, "nnapi"), {"compiler": 1}),
        ((5, "nnapi"), {}),
    ):
        with pytest.raises(TypeError, match=r"should be|Expected the path"):
            check(*arguments, **options)
    with pytest.raises(ValueError, match="not a file"):
        check(tmp_path / "nowhere.tflite", "nnapi")
    damaged = tmp_path / "damaged.tflite"
    damaged.write_bytes(integers.read_bytes()[:2000])
    with pytest.raises(ValueError, match="damaged or truncated"):
        check(damaged, "nnapi")


def test_an_operator_that_lacks_an_input_does_not_map(integers, tmp_path):
    from keras_mot.export.litert.litert_file import pack_model, parse_model

    file = parse_model(integers)
    for each in file.subgraphs[0].operators:
        each.inputs = each.inputs[:1]
    path = tmp_path / "short.tflite"
    path.write_bytes(pack_model(file))
    assert not check(path, "nnapi").maps
    for target in ("edgetpu", "ethos-u55", "ethos-u85"):
        report = check(path, target, compiler=False)
        assert any("lacks an input or a setting" in each.reason for each in report.findings), target


def test_the_command(integers, tmp_path, capsys):
    assert set(check_command.TARGETS) == set(known_targets())
    assert main(["check", str(integers), "--target", "edgetpu"]) == 1
    assert "GELU (second_gelu)" in capsys.readouterr().out
    assert main(["check", str(integers), "--target", "nnapi", "--api-level", "29", "--json"]) == 1
    values = json.loads(capsys.readouterr().out)
    assert (values["target"], values["api_level"], values["maps"], values["rules_only"]) == ("nnapi", 29, False, True)
    gelu = next(each for each in values["findings"] if each["operator"] == "GELU")
    assert gelu == {"layer": "second_gelu", "operator": "GELU", "reason": "Android NNAPI has no such operator"}
    assert main(["check", str(integers), "--target", "ethos-u", "--rules-only"]) == 0
    assert "all of which map" in capsys.readouterr().out
    assert main(["check", str(tmp_path / "nowhere.tflite"), "--target", "nnapi"]) == 2
    assert main(["check", str(integers), "--target", "edgetpu", "--api-level", "29"]) == 2
    assert "`--api-level` is for `--target nnapi`" in capsys.readouterr().err
    network().save(tmp_path / "a.keras")
    assert main(["check", str(tmp_path / "a.keras"), "--target", "nnapi"]) == 2
    assert "`keras-mot quantize` or `keras-mot export` makes one" in " ".join(capsys.readouterr().err.split())
    with pytest.raises(ValueError, match=r"is a saved Keras model. Export it first"):
        check(tmp_path / "a.keras", "nnapi")
    with pytest.raises(SystemExit):
        main(["check", str(integers), "--target", "phone"])
