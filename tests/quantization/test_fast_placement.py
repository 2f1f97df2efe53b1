"""What is left in floats since the target computes it faster so."""

import dataclasses

import keras
import numpy as np
import pytest
from keras import layers, ops

from keras_mot import targets
from keras_mot.cli._fine_tuned import StageRun
from keras_mot.export import LiteRTRunner, export_litert
from keras_mot.graph.model_graph import Graph
from keras_mot.layers.activation_quantizer import ActivationQuantizer, activation_quantizers
from keras_mot.layers.float_boundary import ASKED, FASTER, FloatBoundary
from keras_mot.quantization import INT8, INT16X8, MinMax, quantize_apply, quantize_model, quantize_post_training
from keras_mot.quantization.aware_training import quantize_annotate_model
from keras_mot.quantization.simulation.minimum_cut import MinimumCut
from keras_mot.recipes import PostTraining, QuantizeAware
from keras_mot.recipes.training_data import TrainingData
from keras_mot.targets import LITERT, Cost, Costs
from tests.quantization.models import images, small_network

only_tensorflow = pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="the integer file is made in the same way on every backend"
)
SETTINGS = {"equalize": False, "correct_biases": False, "progress": False}
X = np.random.default_rng(0).standard_normal((16, 16, 16)).astype("float32")


def encoder():
    """A block of a transformer, and a classifier."""
    inputs = keras.Input((16, 16), name="inputs")
    x = layers.LayerNormalization(name="first_norm")(layers.Dense(16, name="first")(inputs))
    x = layers.LayerNormalization(name="norm")(x + layers.MultiHeadAttention(2, 8, name="attention")(x, x))
    x = layers.Dense(16, activation="gelu", name="wide")(x)
    x = layers.Dense(3, activation="softmax", name="head")(layers.Flatten(name="flat")(x))
    return keras.Model(inputs, x)


@pytest.fixture(scope="module")
def fast():
    keras.utils.set_random_seed(0)
    model = encoder()
    return model, quantize_post_training(model, INT8, X, **SETTINGS, estimator=MinMax())


def rounded(model):
    """Names of the operations whose results are rounded at once."""
    graph = Graph(model)
    calls = [call for call in graph.calls if isinstance(call.operation, ActivationQuantizer)]
    producers = [graph.producer(call.inputs[0]) for call in calls]
    return {call.operation.name for call in producers if call is not None}


def boundaries(model):
    return [call.operation for call in Graph(model).calls if isinstance(call.operation, FloatBoundary)]


def test_attention_and_normalization_are_in_floats(fast):
    _, model = fast
    names = rounded(model)
    assert {"attention_query", "attention_key", "attention_value", "attention_output", "head"} <= names
    assert not any("attention_softmax" in name for name in names)
    assert any("softmax" in name for name in names)  # the head's, an output of the model
    assert {boundary.reason for boundary in boundaries(model)} == {FASTER}
    assert model.get_layer("norm").__class__ is layers.LayerNormalization
    assert not isinstance(Graph(model).readers(model.get_layer("norm").output)[0].operation, FloatBoundary)


def test_a_sum_between_regions_in_floats_is_not_rounded(fast):
    _, model = fast
    graph = Graph(model)
    (norm,) = graph.calls_of(model.get_layer("norm"))
    total = graph.producer(norm.inputs[0]).operation
    assert not isinstance(total, ActivationQuantizer | FloatBoundary)


def test_it_is_as_near_to_floats_as_integers_are(fast):
    model, quantized = fast
    expected = ops.convert_to_numpy(model(X))
    assert np.abs(ops.convert_to_numpy(quantized(X)) - expected).max() < 0.03


def test_boundaries_are_saved_with_their_reasons(fast, tmp_path):
    _, model = fast
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert [boundary.reason for boundary in boundaries(loaded)] == [FASTER] * len(boundaries(model))


@only_tensorflow
def test_the_file_computes_what_the_model_does(fast, tmp_path):
    _, model = fast
    result = export_litert(model, tmp_path / "model.tflite", output_type="int8")
    kinds = {kind for kind, _, _ in result.float_operators}
    assert {"BATCH_MATMUL", "SOFTMAX", "RSQRT"} <= kinds
    assert not kinds & {"FULLY_CONNECTED", "GELU"}
    assert {reason for _, _, reason in result.float_operators} == {"it is faster in floats on litert"}
    export_litert(model, tmp_path / "model.tflite")
    (received,) = LiteRTRunner(tmp_path / "model.tflite").run(X).values()
    np.testing.assert_allclose(received, ops.convert_to_numpy(model(X)), atol=1.01 / 256)


def test_what_the_user_leaves_in_floats_stays_so():
    model = encoder()
    quantized = quantize_model(model, overrides={"first_norm": None, "wide": None})
    assert {boundary.reason for boundary in boundaries(quantized)} == {ASKED, FASTER}


def test_networks_without_such_parts_do_not_change():
    model = small_network()
    x = images(8)
    default, integer = (
        quantize_post_training(model, INT8, x, placement=each, **SETTINGS) for each in ("fast", "integer")
    )
    assert not boundaries(default)
    assert [call.operation.name for call in Graph(default).calls] == [
        call.operation.name for call in Graph(integer).calls
    ]


def test_what_is_saved_has_to_be_more_than_crossing_costs():
    model = encoder()
    dear = register("dear", Costs(LITERT.costs[8].kinds, crossing=100.0))
    cheap = register("cheap", Costs({"softmax": Cost(0.0, 1.0)}))
    assert not boundaries(quantize_model(model, target=dear))
    (boundary,) = boundaries(quantize_model(model, target=cheap))
    assert boundary.name.startswith("attention_matmul")


def register(name, costs):
    return targets.register(dataclasses.replace(LITERT, name=f"fast placement, {name}", costs={8: costs}))


def test_what_is_asked_of_placement():
    model = encoder()
    with pytest.raises(ValueError, match="'fast', 'integer' or None; received 'quick'"):
        quantize_model(model, placement="quick")
    with pytest.raises(ValueError, match="no `costs` for activations of 16 bits"):
        quantize_model(model, INT16X8, placement="fast")
    assert not boundaries(quantize_model(model, INT16X8))
    assert not boundaries(quantize_model(model, placement="integer"))
    annotated = quantize_annotate_model(model)
    assert boundaries(quantize_apply(annotated))
    assert not boundaries(quantize_apply(annotated, placement="integer"))


def test_stages_of_recipes_hand_it_on():
    keras.utils.set_random_seed(0)
    model, run = encoder(), StageRun(TrainingData((X, np.zeros(len(X), "int32")), None), 0)
    settings = {"calibration_samples": 8, "calibration": {"equalize": False, "correct_biases": False}}
    assert boundaries(PostTraining(**settings).apply(model, run))
    assert not boundaries(PostTraining(strict=True, **settings).apply(model, run))
    assert not boundaries(PostTraining(placement="integer", **settings).apply(model, run))
    with pytest.raises(ValueError, match="received 'quick'"):
        QuantizeAware(placement="quick")
    with pytest.raises(ValueError, match="no `costs` for activations of 16 bits"):
        PostTraining(placement="fast", activation_bits=16)


@only_tensorflow
def test_strict_says_how_to_have_all_in_integers(fast, tmp_path):
    with pytest.raises(ValueError, match="`placement='integer'`"):
        export_litert(fast[1], tmp_path / "model.tflite", strict=True)


def test_small_tensors_do_not_cross():
    inputs = keras.Input((6,))
    x = layers.Dense(4, activation="softmax")(inputs)
    assert not boundaries(quantize_model(keras.Model(inputs, layers.Dense(4)(x))))


def with_mish(size):
    inputs = keras.Input((size, size, 2))
    x = layers.Activation("mish", name="mish")(layers.Conv2D(8, 3)(inputs))
    return keras.Model(inputs, layers.Conv2D(2, 1)(x))


def test_functions_that_would_be_tables_are_in_floats_if_they_are_large():
    (boundary,) = boundaries(quantize_model(with_mish(16)))
    assert boundary.reason == FASTER
    assert not boundaries(quantize_model(with_mish(4)))
    assert not boundaries(quantize_model(with_mish(16), placement="integer"))


@only_tensorflow
def test_files_compute_them_as_the_model_does(tmp_path):
    x = np.random.default_rng(0).standard_normal((8, 16, 16, 2)).astype("float32")
    quantized = quantize_post_training(with_mish(16), INT8, x, **SETTINGS)
    result = export_litert(quantized, tmp_path / "model.tflite")
    assert {reason for _, _, reason in result.float_operators} == {"it is faster in floats on litert"}
    (received,) = LiteRTRunner(tmp_path / "model.tflite").run(x).values()
    step = activation_quantizers(quantized)[-1].parameters().scale
    np.testing.assert_allclose(received, ops.convert_to_numpy(quantized(x)), atol=1.01 * float(step))


def test_costs_are_checked():
    with pytest.raises(ValueError, match="`floats` should be a time"):
        Cost(-1.0, 1.0)
    with pytest.raises(TypeError, match="should be a `Cost`"):
        Costs({"softmax": 4.0})
    with pytest.raises(TypeError, match="`table` should be a `Cost`"):
        Costs({}, table=4.0)
    with pytest.raises(ValueError, match="`crossing`"):
        Costs({}, crossing=float("nan"))
    with pytest.raises(ValueError, match="`costs\\[4\\]`"):
        dataclasses.replace(LITERT, costs={4: Costs({})})
    assert Cost(0.5, 2.0).ratio == 4.0


def test_the_cheapest_cut_is_that_of_all_assignments():
    generator, size = np.random.default_rng(1), 6
    for _ in range(20):
        first, second = generator.integers(0, 9, (2, size)).astype(float)
        apart = generator.integers(0, 5, (size, size)) * (generator.random((size, size)) < 0.5)
        cut = MinimumCut()
        for key in range(size):
            cut.first_costs(key, first[key])
            cut.second_costs(key, second[key])
            for other in range(size):
                if other != key:
                    cut.apart_costs(key, other, float(apart[key, other]))

        def cost(on_second, first=first, second=second, apart=apart):
            own = sum(second[key] if key in on_second else first[key] for key in range(size))
            pairs = ((a, b) for a in range(size) for b in range(size) if a != b)
            return own + sum(apart[a, b] for a, b in pairs if a not in on_second and b in on_second)

        every = [{key for key in range(size) if number >> key & 1} for number in range(2**size)]
        least = min(map(cost, every))
        found = cut.second()
        assert cost(found) == least
        assert len(found) == min(len(each) for each in every if cost(each) == least)
