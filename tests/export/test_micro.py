"""Files for microcontrollers: what is refused, what TFLM computes, and what a file needs there."""

import dataclasses

import keras
import numpy as np
import pytest
from keras import layers, ops

import keras_mot.export.dependencies
import keras_mot.export.litert.micro.verification
from keras_mot._keras import no_gradients
from keras_mot._packages import is_installed
from keras_mot.cli import main
from keras_mot.export import MicroRunner, export_litert
from keras_mot.export.litert.litert_file import parse_model
from keras_mot.export.litert.micro.differences import Difference, first_difference
from keras_mot.layers import transformed_weights
from keras_mot.quantization import INT8, INT16X8, quantize_model, quantize_post_training, reference_rounding
from keras_mot.quantization.simulation.reference_kernels import _Rescaling, half_away
from keras_mot.recipes import PostTraining, Recipe, compress
from keras_mot.targets import MICRO, register, target_of
from tests.quantization.test_coverage import only_tensorflow

in_tflm = pytest.mark.skipif(not is_installed("tflite_micro"), reason="needs the extra 'micro' (tflite-micro)")
X = np.random.default_rng(0).standard_normal((64, 8, 8, 3)).astype("float32")
CLIPS = np.random.default_rng(1).standard_normal((64, 6, 4)).astype("float32")


def network():
    keras.utils.set_random_seed(3)
    inputs = keras.Input((8, 8, 3))
    x = layers.Conv2D(6, 3, padding="same", name="conv")(inputs)
    x = layers.ReLU()(layers.BatchNormalization()(x))
    x = layers.Add(name="sum")([x, layers.DepthwiseConv2D(3, padding="same", name="depthwise")(x)])
    x = layers.GlobalAveragePooling2D(name="mean")(x)
    return keras.Model(inputs, layers.Dense(5, name="head")(x), name="network")


def recurrent(layer):
    keras.utils.set_random_seed(4)
    return keras.Sequential([keras.Input((6, 4)), layer, layers.Dense(3, name="head")])


def outputs(model, x):
    with reference_rounding(model), no_gradients():
        return ops.convert_to_numpy(model(x, training=False))


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """A quantized model, and its export."""
    quantized = quantize_post_training(network(), INT8, X, target="micro")
    return quantized, export_litert(quantized, tmp_path_factory.mktemp("micro") / "network.tflite")


@in_tflm
def test_tflm_computes_the_integers_of_the_model(done):
    quantized, exported = done
    assert (exported.target, exported.batch_size, exported.float_operators) == ("micro", 1, ())
    assert "100.00% equal in TFLM" in exported.verification
    runner = MicroRunner(exported.path)
    assert {tensor.dtype for tensor in (*runner.inputs, *runner.outputs)} == {"int8"}
    assert runner.operators == exported.operators
    assert set(runner.operators) == {"ADD", "CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "MEAN"}
    step = runner.outputs[0].quantization[0]
    (received,) = runner.run(X).values()
    np.testing.assert_array_equal(np.rint(received / step), np.rint(outputs(quantized, X) / step))
    np.testing.assert_array_equal(exported.run(X), received)


@in_tflm
def test_integers_can_be_given_and_taken(done):
    _, exported = done
    runner = MicroRunner(exported.path)
    scale, zero_point = runner.inputs[0].quantization
    integers = np.clip(np.floor(X / np.float32(scale) + 0.5) + zero_point, -128, 127).astype("int8")
    (received,) = runner.run_integers(integers).values()
    assert received.dtype == np.int8
    (known,) = runner.run(X).values()
    np.testing.assert_allclose(runner.outputs[0].in_floats(received), known)


@in_tflm
def test_the_arena_is_the_smallest_that_runs(done):
    _, exported = done
    assert 0 < exported.activation_bytes < exported.arena_bytes < 100_000
    (received,) = MicroRunner(exported.path, arena_bytes=exported.arena_bytes).run(X[:2]).values()
    np.testing.assert_array_equal(received, exported.run(X[:2]))
    with pytest.raises(ValueError, match=r"TFLM cannot load .*[Ff]ailed to"):
        MicroRunner(exported.path, arena_bytes=exported.arena_bytes - 64)
    assert f"arena: {exported.arena_bytes:,} bytes" in str(exported)


@in_tflm
@pytest.mark.parametrize("layer", [layers.GRU(5), layers.LSTM(5), layers.SimpleRNN(5)], ids=lambda layer: layer.name)
def test_recurrent_models(layer, tmp_path):
    quantized = quantize_post_training(recurrent(layer), INT8, CLIPS, target="micro")
    exported = export_litert(quantized, tmp_path / "recurrent.tflite", verification_data=CLIPS[:16])
    assert "100.00% equal in TFLM" in exported.verification
    assert "SHAPE" not in exported.operators


@in_tflm
def test_states_that_are_handed_on(tmp_path):
    keras.utils.set_random_seed(0)
    inputs = keras.Input((6, 4))
    _, *states = layers.LSTM(3, return_state=True)(inputs)
    x = layers.LSTM(3, return_sequences=True)(inputs, initial_state=states)
    model = keras.Model(inputs, layers.Dense(2)(layers.Flatten()(x)))
    quantized = quantize_post_training(model, INT8, CLIPS, target="micro")
    exported = export_litert(quantized, tmp_path / "states.tflite", verification_data=CLIPS[:16])
    assert "100.00% equal in TFLM" in exported.verification


@in_tflm
def test_the_tensor_that_differs_is_named(done):
    quantized, exported = done
    content = exported.path.read_bytes()

    def call(arrays):
        return quantized(arrays[0], training=False)

    assert first_difference(quantized, call, content, [X[:1]]) is None
    weight = next(each for each in transformed_weights(quantized) if each.owner.name == "depthwise")
    before = ops.convert_to_numpy(weight.variable)
    try:
        weight.variable.assign(-before)
        found = first_difference(quantized, call, content, [X[:1]])
    finally:
        weight.variable.assign(before)
    assert found.name.startswith("sum_quantizer") or found.name.startswith("depthwise_quantizer")
    assert found.share < 0.9
    assert str(found.steps) in str(found)


@in_tflm
def test_training_goes_on_for_the_target(tmp_path):
    quantized = quantize_model(network(), INT8, calibration_data=X, target="micro")
    assert target_of(quantized) is MICRO
    exported = export_litert(quantized, tmp_path / "aware.tflite", input_type="float32")
    assert "100.00% equal in TFLM" in exported.verification
    assert "QUANTIZE" in exported.operators


def test_what_has_no_kernel_is_named_before_anything_is_calibrated():
    inputs = keras.Input((8, 4))
    x = layers.Dense(4, name="first")(inputs)
    x = layers.Lambda(lambda x: ops.cumsum(x, axis=1), name="running")(x)
    model = keras.Model(inputs, layers.Dense(2)(x), name="sums")

    def data():
        raise AssertionError("the data were read")
        yield

    with pytest.raises(ValueError, match=r"'micro' computes in integers .*\n.*(cumsum|running)") as caught:
        quantize_post_training(model, INT8, data, target="micro")
    assert "overrides" in str(caught.value)


def test_activations_of_16_bits_are_refused():
    with pytest.raises(ValueError, match=r"'micro' has kernels for activations of \[8\] bits"):
        quantize_post_training(network(), INT16X8, X, target="micro")


def test_batches_and_other_targets_are_refused(tmp_path):
    path = tmp_path / "refused.tflite"
    quantized = quantize_post_training(network(), INT8, X, target="micro")
    with pytest.raises(ValueError, match="one sample at a time"):
        export_litert(quantized, path, batch_size=2, verify=False)
    with pytest.raises(ValueError, match=r"was quantized for the target 'micro'.*`target='litert'`"):
        export_litert(quantized, path, target="litert")
    with pytest.raises(ValueError, match="is not quantized, and cannot be exported for 'micro'"):
        export_litert(network(), path, target="micro")
    assert not path.exists()


def test_a_missing_package_is_named_and_not_needed_to_write(tmp_path, monkeypatch):
    quantized = quantize_post_training(network(), INT8, X, target="micro")
    known = keras_mot.export.dependencies.is_installed
    monkeypatch.setattr(
        keras_mot.export.dependencies, "is_installed", lambda name: name != "tflite_micro" and known(name)
    )
    with pytest.raises(ImportError, match="pip install tflite-micro"):
        export_litert(quantized, tmp_path / "model.tflite")
    with pytest.raises(ImportError, match="pip install tflite-micro"):
        MicroRunner(tmp_path / "model.tflite")
    exported = export_litert(quantized, tmp_path / "model.tflite", verify=False)
    assert exported.arena_bytes is None
    graph = parse_model(exported.path).subgraphs[0]
    assert list(graph.tensors[graph.inputs[0]].shape) == [1, 8, 8, 3]


def test_operators_that_the_runtime_lacks_are_named(tmp_path):
    poor = register(dataclasses.replace(MICRO, name="without-means", operators=MICRO.operators - {"MEAN"}))
    quantized = quantize_post_training(network(), INT8, X, target=poor)
    with pytest.raises(ValueError, match=r"no operator for .*'network'.*\n  MEAN \('mean'\)"):
        export_litert(quantized, tmp_path / "model.tflite", verify=False)


@only_tensorflow
def test_operators_in_loops_are_counted_and_named(tmp_path):
    """The body of a loop is a graph of its own, with tensors of its own numbers."""
    quantized = quantize_post_training(
        recurrent(layers.GRU(5, name="gru")), INT8, CLIPS, target="micro", overrides={"gru": None}
    )
    with pytest.raises(ValueError, match=r"no operator for .*\n(.*\n)*  WHILE \('gru'\)"):
        export_litert(quantized, tmp_path / "loop.tflite", input_type="float32", verify=False)
    known = register(dataclasses.replace(MICRO, name="with-loops", operators=None))
    quantized = quantize_post_training(
        recurrent(layers.GRU(5, name="gru")), INT8, CLIPS, target=known, overrides={"gru": None}
    )
    exported = export_litert(quantized, tmp_path / "loop.tflite", input_type="float32", verify=False)
    assert {"WHILE", "LESS"} <= set(exported.operators)


@in_tflm
def test_shares_are_rounded_down(done, tmp_path):
    quantized, _ = done
    assert "99.99% equal" in str(Difference("name", 0.999999, 1))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(keras_mot.export.litert.micro.verification, "_same", _all_but_one)
        patch.setattr(keras_mot.export.litert.micro.verification, "first_difference", _no_memory)
        exported = export_litert(quantized, tmp_path / "network.tflite", verification_data=X[np.arange(6400) % 64])
    assert exported.verification.endswith("99.99% equal in TFLM")


def _all_but_one(received, expected, step):
    same = np.ones(received.shape, bool)
    same[3, 0] = False
    return same


def _no_memory(*args):
    raise ValueError("there is not so much memory")


@in_tflm
@pytest.mark.parametrize("count", [3, 10, 11, 20, 27])
def test_what_is_repeated_is_joined(count, tmp_path):
    keras.utils.set_random_seed(5)
    inputs = keras.Input((6, 4))
    x = layers.Dense(3, name="first")(inputs)
    x = layers.Lambda(lambda x: ops.tile(x, (1, 2, count)), name="tiled")(x)
    quantized = quantize_post_training(keras.Model(inputs, layers.Dense(2)(x)), INT8, CLIPS, target="micro")
    exported = export_litert(quantized, tmp_path / "tiled.tflite", verification_data=CLIPS[:8])
    assert "100.00% equal in TFLM" in exported.verification
    assert "CONCATENATION" in exported.operators


@in_tflm
@pytest.mark.parametrize("function", [ops.relu6, ops.relu, ops.gelu, ops.exp], ids=lambda function: function.__name__)
def test_activations_by_themselves(function, tmp_path):
    inputs, dense = keras.Input((6, 4)), layers.Dense(6, name="first")
    x = function(dense(inputs))
    dense.kernel.assign(2.0 * np.random.default_rng(3).standard_normal((4, 6)))  # many are above 6
    quantized = quantize_post_training(keras.Model(inputs, x), INT8, CLIPS, target="micro")
    exported = export_litert(quantized, tmp_path / "activation.tflite", verification_data=CLIPS[:8])
    assert "100.00% equal in TFLM" in exported.verification


@in_tflm
def test_embeddings_take_numbers(tmp_path):
    keras.utils.set_random_seed(6)
    model = keras.Sequential([keras.Input((5,), dtype="int32"), layers.Embedding(10, 4), layers.Conv1D(3, 2)])
    numbers = np.random.default_rng(0).integers(0, 10, (64, 5)).astype("int32")
    quantized = quantize_post_training(model, INT8, numbers, target="micro")
    exported = export_litert(quantized, tmp_path / "embedding.tflite", verification_data=numbers[:8])
    assert "100.00% equal in TFLM" in exported.verification
    assert MicroRunner(exported.path).inputs[0].dtype == "int32"


@in_tflm
@pytest.mark.parametrize(("arena", "error"), [("much", TypeError), (True, TypeError), (0, ValueError)])
def test_arenas_that_are_no_sizes(arena, error, done):
    with pytest.raises(error, match="`arena_bytes` must be"):
        MicroRunner(done[1].path, arena_bytes=arena)


def test_halves_are_rounded_away_from_zero_and_nothing_below_them():
    below = np.nextafter(np.float32(0.5), np.float32(0))
    odd = np.float32(2**23 + 1)  # to which a half cannot be added in float32
    values = np.array([0.5, below, -0.5, -below, 1.5, 2.5, -2.5, odd, -odd], "float32")
    np.testing.assert_array_equal(half_away(values), [1, 0, -1, 0, 2, 3, -3, odd, -odd])


@pytest.mark.parametrize("factor", [2.0**-60, 1e-40, 0.0])
def test_a_factor_next_to_nothing_gives_zeros(factor):
    np.testing.assert_array_equal(_Rescaling(1.0, factor)(np.array([-3.0, 0.0, 5.0])), 0)


@in_tflm
def test_recipes_take_the_target(tmp_path, monkeypatch):
    model = network()
    model = keras.Sequential([model, layers.Softmax()])
    labels = (np.arange(64) % 5).astype("int32")
    recipe = Recipe([PostTraining(calibration_samples=32, target="micro")])
    assert Recipe.from_yaml(recipe.to_yaml()) == recipe
    options = {"latency_runs": 0, "progress": False}
    result = compress(model, recipe, (X, labels), output_dir=tmp_path / "run", **options)
    assert {tensor.dtype for tensor in MicroRunner(result.artifact).inputs} == {"int8"}
    known = keras_mot.export.dependencies.is_installed
    monkeypatch.setattr(
        keras_mot.export.dependencies, "is_installed", lambda name: name != "tflite_micro" and known(name)
    )
    with pytest.raises(ImportError, match="pip install tflite-micro"):
        compress(model, recipe, (X, labels), output_dir=tmp_path / "other", **options)


def test_stages_check_the_target():
    with pytest.raises(ValueError, match=r"'micro' has kernels for activations of \[8\] bits"):
        PostTraining(activation_bits=16, target="micro")
    with pytest.raises(ValueError, match="There is no target 'mikro'"):
        PostTraining(target="mikro")
    with pytest.raises(ValueError, match="`placement='fast'` needs to know"):
        PostTraining(placement="fast", target="micro")


@in_tflm
def test_the_command_line(tmp_path):
    model, data, path = tmp_path / "model.keras", tmp_path / "data.npz", tmp_path / "device.tflite"
    network().save(model)
    np.savez(data, x_train=X, y_train=(np.arange(64) % 5).astype("int32"))
    assert main(["quantize", str(model), "--data", str(data), "--target", "micro", "-o", str(path)]) == 0
    assert {tensor.dtype for tensor in MicroRunner(path).inputs} == {"int8"}
