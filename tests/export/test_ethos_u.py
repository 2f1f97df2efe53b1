"""Files for Ethos-U NPUs: what Vela makes of them, by the user's layers, and what is refused."""

import dataclasses
import json
import pathlib

import keras
import numpy as np
import pytest
from keras import layers

import keras_mot
from keras_mot._packages import is_installed
from keras_mot.analysis import ethos_u
from keras_mot.cli import main
from keras_mot.export import LiteRTRunner, compile_ethos_u, export_litert
from keras_mot.export.litert.ethos_u import vela
from keras_mot.export.litert.ethos_u.vela import ACCELERATORS, Settings
from keras_mot.export.litert.integers.operators import named_operators
from keras_mot.export.litert.litert_file import parse_model
from keras_mot.quantization import INT4_WEIGHTS, INT8, INT16X8, quantize_post_training
from keras_mot.recipes import Cluster, PostTraining, Prune, Recipe, StoreWeights
from keras_mot.sparsity import ConstantSparsity, prune_low_magnitude
from keras_mot.targets import ETHOS_U, MICRO, register
from tests.quantization.test_coverage import only_tensorflow

with_vela = pytest.mark.skipif(not is_installed("ethosu.vela"), reason="needs the extra 'ethos-u' (ethos-u-vela)")
X = np.random.default_rng(0).standard_normal((64, 8, 8, 3)).astype("float32")
Y = np.random.default_rng(1).integers(0, 5, 64)


def network(activation="relu"):
    keras.utils.set_random_seed(3)
    return keras.Sequential(
        [
            keras.Input((8, 8, 3)),
            layers.Conv2D(8, 3, activation="relu", name="first"),
            layers.Conv2D(8, 3, activation=activation, name="second"),
            layers.Flatten(name="flat"),
            layers.Dense(5, name="head"),
        ],
        name="network",
    )


def quantized(model=None, scheme=INT8, **options):
    return quantize_post_training(network() if model is None else model, scheme, X, **{"target": "ethos-u", **options})


def operators(path):
    return [name for _, name, _ in named_operators(parse_model(path))]


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    return export_litert(quantized(), tmp_path_factory.mktemp("ethos_u") / "network.tflite")


@with_vela
def test_an_export_writes_both_files(exported):
    assert (exported.target, exported.batch_size, exported.float_operators) == ("ethos-u", 1, ())
    assert {tensor.dtype for tensor in LiteRTRunner(exported.path).inputs} == {"int8"}
    compiled = exported.compiled
    assert compiled.path == exported.path.with_name("network_vela.tflite")
    assert operators(compiled.path) == ["ethos-u"]
    assert compiled.bytes == compiled.path.stat().st_size == compiled.estimate.compiled_bytes
    estimate = compiled.estimate
    assert estimate.accelerator == "ethos-u55-128"
    assert estimate.compiler.startswith("Vela ")
    assert estimate.operators == estimate.npu_operators == len(operators(exported.path))
    assert estimate.off_npu == ()
    assert estimate.milliseconds == pytest.approx(estimate.cycles / estimate.clock_mhz / 1e3)
    assert 0 < estimate.encoded_weight_bytes < estimate.flash_bytes < 2 * estimate.bytes
    assert [layer.layer for layer in estimate.layers] == ["first", "second", "head"]
    multiplications = {"first": 6 * 6 * 8 * 3 * 9, "second": 4 * 4 * 8 * 8 * 9, "head": 4 * 4 * 8 * 5}
    assert {layer.layer: layer.macs for layer in estimate.layers} == multiplications
    assert estimate.macs == sum(multiplications.values())
    assert "network_vela.tflite" in str(exported)
    json.dumps(compiled.to_dict())


@with_vela
def test_the_compiled_file_can_be_left_out(tmp_path):
    result = export_litert(quantized(), tmp_path / "a.tflite", compiled=False)
    assert result.compiled is None
    assert [path.name for path in tmp_path.iterdir()] == ["a.tflite"]


@with_vela
@pytest.mark.parametrize(
    ("activation", "options", "operator", "reason"),
    [
        ("relu", {"overrides": {"second": None}}, "CONV_2D", "unsupported DataType Float32 ('second')"),
        ("mish", {}, "GATHER", "Unsupported opType"),  # of a table
    ],
)
def test_what_keeps_an_operator_off_the_npu_is_said_by_layer(activation, options, operator, reason, tmp_path):
    result = export_litert(quantized(network(activation), **options), tmp_path / "a.tflite")
    off = {(each.layer, each.operator): each.reason for each in result.compiled.estimate.off_npu}
    assert reason in off["second", operator]
    assert {layer for layer, _ in off} <= {"first", "second"}  # a conversion belongs to the layer that it follows
    assert result.compiled.estimate.npu_operators == result.compiled.estimate.operators - len(off)
    for (layer, name), why in off.items():
        assert f"on the CPU: {name} ({layer}): {why}" in str(result)
    report = ethos_u(result.path)  # from the file alone, by the names in it
    assert any(each.operator == operator and each.layer.startswith("second") for each in report["a.tflite"].off_npu)
    assert not report.all_on_npu


@with_vela
@pytest.mark.parametrize("layer", [layers.LSTM, layers.GRU, layers.SimpleRNN])
@only_tensorflow
def test_recurrent_models_run_on_the_npu(layer, tmp_path):
    keras.utils.set_random_seed(4)
    model = keras.Sequential([keras.Input((6, 4)), layer(8, name="recurrent"), layers.Dense(3, name="head")])
    clips = np.random.default_rng(1).standard_normal((64, 6, 4)).astype("float32")
    result = export_litert(quantize_post_training(model, INT8, clips, target="ethos-u"), tmp_path / "recurrent.tflite")
    assert result.compiled.estimate.off_npu == ()
    assert {each.layer for each in result.compiled.estimate.layers} == {"recurrent", "head"}


@with_vela
@pytest.mark.parametrize(("activation", "operator"), [("gelu", "GELU"), ("elu", "ELU")])
@only_tensorflow
def test_kernels_of_the_npu_that_microcontrollers_lack_are_used(activation, operator, tmp_path):
    result = export_litert(quantized(network(activation)), tmp_path / "a.tflite")
    assert operator in operators(result.path)
    assert result.compiled.estimate.off_npu == ()


@with_vela
@only_tensorflow
def test_zeros_and_shared_values_are_smaller_side_by_side(tmp_path):
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((256,)), layers.Dense(256, name="wide"), layers.Dense(4, name="head")])
    x = np.random.default_rng(0).standard_normal((64, 256)).astype("float32")
    pruned = prune_low_magnitude(model, ConstantSparsity(0.8, 0))
    keras_mot.layers.update_step(pruned, 0)
    clustered = keras_mot.clustering.cluster_weights(model, keras_mot.clustering.ClusteringConfig(8))
    files = {}
    for name, each in {"dense": model, "pruned": pruned, "clustered": clustered}.items():
        result = export_litert(quantize_post_training(each, INT8, x, target="ethos-u"), tmp_path / f"{name}.tflite")
        files[name] = result
    report = ethos_u(files)
    assert list(report) == ["dense", "pruned", "clustered"]
    assert report.all_on_npu
    sizes = {name: report[name].encoded_weight_bytes for name in report}
    assert sizes["pruned"] < 0.5 * sizes["dense"]
    assert sizes["clustered"] < 0.7 * sizes["dense"]
    assert report["pruned"].cycles < report["dense"].cycles
    assert {name: report[name].to_dict() for name in report} == report.to_dict()["files"]
    for text in (str(report), report.to_markdown()):
        assert all(name in text for name in files)
        assert "not measured" in text
    json.dumps(report.to_dict())
    assert report["dense"] == files["dense"].compiled.estimate
    twice = ethos_u([files["dense"].path, str(files["dense"].path)], "ethos-u55-32")
    assert list(twice) == ["dense.tflite", "dense.tflite (2)"]
    assert {twice[name].accelerator for name in twice} == {"ethos-u55-32"}
    with pytest.raises(KeyError, match="dense"):
        report["other"]


@with_vela
@only_tensorflow
def test_two_of_four_zeros_are_faster_on_u85(tmp_path):
    keras.utils.set_random_seed(0)
    first, second = (layers.Conv2D(128, 1, activation="relu", name=name) for name in ("first", "pointwise"))
    model = keras.Sequential([keras.Input((16, 16, 8)), first, second, layers.Conv2D(8, 1, name="last")])
    x = np.random.default_rng(0).standard_normal((8, 16, 16, 8)).astype("float32")
    cycles = {}
    for name, granularity in {"anywhere": None, "2:4": keras_mot.sparsity.NofM(2, 4)}.items():
        options = {} if granularity is None else {"granularity": granularity}
        pruned = prune_low_magnitude(model, ConstantSparsity(0.5, 0), **options)
        keras_mot.layers.update_step(pruned, 0)
        result = export_litert(
            quantize_post_training(pruned, INT8, x, target="ethos-u85"), tmp_path / "a.tflite", verify=False
        )
        cycles[name] = {each.layer: each.cycles for each in result.compiled.estimate.layers}["pointwise"]
    assert cycles["2:4"] < cycles["anywhere"]


@with_vela
@only_tensorflow
def test_compress_compiles_the_last_file(tmp_path):
    recipe = Recipe([Prune(0.5, fine_tune=None), Cluster(8, fine_tune=None), PostTraining()])
    options = {"output_dir": tmp_path / "run", "latency_runs": 0, "progress": False}
    result = keras_mot.compress(network(), recipe, (X, Y), target="ethos-u", **options)
    assert result.compiled.path.name == "03-post_training_vela.tflite"
    assert operators(result.compiled.path) == ["ethos-u"]
    assert result.compiled.estimate == ethos_u(result.artifact)[result.artifact.name]
    assert result.to_dict()["compiled"]["bytes"] == result.compiled.bytes
    report = json.loads((tmp_path / "run" / "report.json").read_text())
    assert report["compiled"]["estimate"]["cycles"] == result.compiled.estimate.cycles
    assert "03-post_training_vela.tflite" in (tmp_path / "run" / "report.md").read_text()
    result.compiled.path.unlink()
    again = keras_mot.compress(network(), recipe, (X, Y), target="ethos-u", **options)
    assert again.compiled == result.compiled
    plain = keras_mot.compress(network(), recipe, (X, Y), resume=False, **options)
    assert plain.compiled is None
    assert not result.compiled.path.exists()


@with_vela
def test_compress_takes_targets_of_recipes_that_quantize(tmp_path):
    with pytest.raises(ValueError, match="no stage that quantizes"):
        keras_mot.compress(network(), Recipe([StoreWeights("float16")]), (X, Y), target="ethos-u")
    with pytest.raises(ValueError, match="no target 'ethos'"):
        keras_mot.compress(network(), "int8", (X, Y), target="ethos")
    assert Recipe([PostTraining()]).for_target(ETHOS_U).stages[0].target == "ethos-u"
    assert Recipe([PostTraining(target="micro")]).target is MICRO


@with_vela
@only_tensorflow
@pytest.mark.parametrize("command", ["quantize", "train-quantized"])
def test_commands_compile(command, tmp_path, capsys):
    network().save(tmp_path / "model.keras")
    np.savez(tmp_path / "data.npz", x_train=X, y_train=Y)
    output = tmp_path / "small.tflite"
    arguments = [str(tmp_path / "model.keras"), "--data", str(tmp_path / "data.npz"), "-o", str(output), "--json"]
    assert main([command, *arguments, "--target", "ethos-u"]) == 0
    (compiled,) = json.loads(capsys.readouterr().out)["compiled"]
    assert pathlib.Path(compiled["path"]) == tmp_path / "small_vela.tflite"
    assert (tmp_path / "small_vela.tflite").stat().st_size == compiled["bytes"]
    assert compiled["estimate"]["off_npu"] == []


@with_vela
def test_a_file_is_compiled_for_another_npu(exported, tmp_path):
    made = compile_ethos_u(exported.path, "ethos-u85-256", output=tmp_path / "u85.tflite")
    assert made.path == tmp_path / "u85.tflite"
    assert made.estimate.accelerator == "ethos-u85-256"
    assert (made.estimate.flash_bytes, made.estimate.dram_bytes > 0) == (0, True)  # so is Vela's default memory mode
    assert "DRAM" in str(made)
    other = compile_ethos_u(
        exported.path, output=tmp_path / "u55.tflite", system_config="Ethos_U55_Deep_Embedded", memory_mode="Sram_Only"
    )
    assert (other.estimate.system_config, other.estimate.memory_mode) == ("Ethos_U55_Deep_Embedded", "Sram_Only")
    assert other.estimate.clock_mhz == 200.0


@with_vela
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"accelerator": "ethos-u55-129"}, "Did you mean 'ethos-u55-128'"),
        ({"memory_mode": "Nowhere"}, "Memory_Mode.Nowhere not found"),
        ({"system_config": "Nothing"}, "System_Config.Nothing not found"),
        ({"config": "nowhere.ini"}, "there is no 'nowhere.ini'"),
    ],
)
def test_wrong_settings_are_refused(options, message, exported, tmp_path):
    with pytest.raises(ValueError, match=message):
        compile_ethos_u(exported.path, output=tmp_path / "a.tflite", **options)
    assert not list(tmp_path.iterdir())


@pytest.mark.backend_independent
def test_settings_are_checked():
    for wrong in ({"accelerator": 55}, {"accelerator": ACCELERATORS[0], "memory_mode": 1}):
        with pytest.raises(TypeError, match="should be a name"):
            Settings(**wrong)
    with pytest.raises(TypeError, match="should be a path"):
        Settings(ACCELERATORS[0], config=1)


@with_vela
def test_wrong_files_are_refused(exported, tmp_path):
    with pytest.raises(ValueError, match="is compiled for Ethos-U already"):
        ethos_u(exported.compiled.path)
    damaged = tmp_path / "damaged.tflite"
    damaged.write_bytes(exported.path.read_bytes()[:3000])
    for call in (ethos_u, compile_ethos_u):
        with pytest.raises(ValueError, match="damaged or truncated"):
            call(damaged)
        with pytest.raises(ValueError, match="not a file"):
            call(tmp_path / "nowhere.tflite")
    with pytest.raises(ValueError, match="is the file itself"):
        compile_ethos_u(exported.path, output=exported.path)
    assert [path.name for path in tmp_path.iterdir()] == ["damaged.tflite"]
    for wrong, kind in ((3, TypeError), ([3], TypeError), ([], ValueError), ({}, ValueError)):
        with pytest.raises(kind, match="path"):
            ethos_u(wrong)


@with_vela
@only_tensorflow
def test_floats_are_said_to_be_none_of_the_npu(tmp_path):
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3), keras.layers.Dense(2)])
    report = ethos_u(export_litert(model, tmp_path / "floats.tflite", batch_size=1, verify=False))
    text = " ".join(str(report).split())
    assert "floats.tflite: the NPU computes nothing of it, for it computes with integers alone: quantize" in text
    assert "on the CPU: FULLY_CONNECTED (dense" in text


@with_vela
@only_tensorflow
def test_a_failure_of_vela_leaves_no_file(tmp_path, monkeypatch):
    monkeypatch.setattr(vela.sys, "executable", "false")  # a program that only fails
    model, path = quantized(), tmp_path / "a.tflite"
    with pytest.raises(ValueError, match="Vela cannot compile"):
        export_litert(model, path)
    assert not list(tmp_path.iterdir())


@with_vela
@only_tensorflow
def test_the_end_of_vela_is_an_error(exported, monkeypatch):
    """As by a signal, with nothing said."""
    monkeypatch.setattr(vela, "_SECONDS", 0.01)
    with pytest.raises(ValueError, match="takes more than"):
        ethos_u(exported.path)


def test_what_the_npu_does_not_take_is_refused(tmp_path):
    with pytest.raises(ValueError, match="activations of \\[8\\] bits"):
        quantized(scheme=INT16X8)
    fixed = keras.Sequential([keras.Input((4,), batch_size=2), layers.Dense(3)])
    x = X.reshape(-1, 4)[:32]
    with pytest.raises(ValueError, match="one sample at a time"):
        export_litert(quantize_post_training(fixed, INT8, x, target="ethos-u"), tmp_path / "a.tflite")
    with pytest.raises(ValueError, match="one sample at a time"):
        export_litert(quantized(), tmp_path / "a.tflite", batch_size=4)
    with pytest.raises(ValueError, match="was quantized for the target 'ethos-u'"):
        export_litert(quantized(), tmp_path / "a.tflite", target="micro")
    with pytest.raises(TypeError, match="`compiled` must be True or False"):
        export_litert(quantized(), tmp_path / "a.tflite", compiled="yes")
    with pytest.raises(ValueError, match="`accelerator` should be a name"):
        register(dataclasses.replace(ETHOS_U, name="wrong", accelerator=128))
    assert not list(tmp_path.iterdir())


@with_vela
@only_tensorflow
def test_weights_of_four_bits_are_stored_in_eight(tmp_path):
    result = export_litert(quantized(scheme=INT4_WEIGHTS), tmp_path / "a.tflite")
    assert result.compiled.estimate.off_npu == ()


def test_the_missing_compiler_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr("keras_mot.export.dependencies.is_installed", lambda module: not module.startswith("ethosu"))
    model, path = quantized(), tmp_path / "a.tflite"
    with pytest.raises(ImportError, match=r"'ethos-u'.*pip install ethos-u-vela"):
        export_litert(model, path)
    with pytest.raises(ImportError, match="pip install ethos-u-vela"):
        keras_mot.compress(network(), "int8", (X, Y), target="ethos-u", progress=False)
    assert not list(tmp_path.iterdir())
    assert export_litert(model, path, compiled=False).compiled is None
    for call in (ethos_u, compile_ethos_u):
        with pytest.raises(ImportError, match="pip install ethos-u-vela"):
            call(path)
