"""Files are judged by shares and by signal to noise, on data that suit the inputs; what is random is not compared."""

import dataclasses

import keras
import numpy as np
import pytest
from export_custom_layers import Sampling
from keras import layers, ops

from keras_mot.data.typical_samples import remember, remembered
from keras_mot.export import ExportVerificationError, LiteRTRunner, export_litert
from keras_mot.export.litert.judging import RULES, exactly, judge, log_odds
from keras_mot.export.litert.random_inputs import fitting_inputs
from keras_mot.export.litert.signature import read_signature
from keras_mot.export.litert.verification import Verifier
from keras_mot.graph.output_kinds import outputs_are_probabilities
from keras_mot.quantization import quantize_post_training
from tests.quantization.test_coverage import only_tensorflow

RNG = np.random.default_rng(0)


@pytest.mark.backend_independent
@pytest.mark.parametrize("kind", RULES)
def test_one_value_in_a_thousand_may_be_rounded_another_way(kind):
    expected = RNG.normal(size=(10, 1000))
    received = expected.copy()
    received[3, 7] += 1.0 if kind != "float32" else 0.3
    assert judge(received, expected, RULES[kind]).problem is None
    assert judge(received, expected, exactly(1e-2)).problem is not None


@pytest.mark.backend_independent
def test_small_probabilities_that_are_all_wrong_are_found():
    expected = RNG.dirichlet(np.full(1000, 0.01), size=4)
    received = RNG.dirichlet(np.full(1000, 0.01), size=4)
    for rule in RULES.values():
        assert judge(received, expected, rule).problem is not None
    # Most of either are next to zero, and so near to each other.
    lenient = dataclasses.replace(RULES["integer"], tolerance=0.1)
    assert judge(received, expected, lenient).share > 0.95
    assert "dB" in judge(received, expected, lenient).problem


@pytest.mark.backend_independent
def test_a_step_of_rounding_is_no_noise():
    step = 0.1
    expected = step * RNG.integers(-2, 3, (8, 10))
    received = expected + step * RNG.integers(-1, 2, (8, 10))
    assert judge(received, expected, RULES["integer"], step).problem is None
    assert judge(received, expected, RULES["integer"]).problem is not None
    assert judge(expected[:, ::-1], expected, RULES["integer"], step / 10).problem is not None


@pytest.mark.backend_independent
def test_classes_are_compared_by_how_many_are_the_same():
    expected = np.arange(100)
    assert judge(np.where(expected == 5, 90, expected), expected, RULES["integer"]).problem is None
    assert "whole numbers" in judge(expected[::-1], expected, RULES["integer"]).problem


@pytest.mark.backend_independent
@pytest.mark.parametrize("inputs", ["one", "nested"])
def test_random_ids_are_rows_of_the_embedding(inputs):
    ids = keras.Input((6,), dtype="int32")
    text = keras.Sequential([keras.Input((6,), dtype="int32"), layers.Embedding(50, 3), layers.Flatten()])
    hidden = text(ids) if inputs == "nested" else layers.Embedding(50, 3)(layers.Reshape((3, 2))(ids))
    model = keras.Model(ids, layers.Dense(2)(layers.Flatten()(hidden)))
    (array,) = fitting_inputs(model, read_signature(model), 20)
    assert array.min() >= 0
    assert 25 < array.max() < 50


@pytest.mark.backend_independent
def test_roots_and_logarithms_get_positive_numbers(tmp_path):
    inputs = keras.Input((4,))
    model = keras.Model(inputs, keras.ops.log(inputs) + keras.ops.sqrt(inputs))
    assert export_litert(model, tmp_path / "model.tflite").max_abs_error < 1e-5


@pytest.fixture(scope="module")
def quantized():
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((8,)), layers.Dense(16, "relu"), layers.Dense(4, name="scores")])
    data = RNG.normal(size=(40, 8)).astype("float32")
    return quantize_post_training(model, calibration_data=data, equalize=False, correct_biases=False), data


@pytest.mark.backend_independent
def test_quantized_models_are_verified_on_their_calibration_data(quantized, tmp_path):
    model, _ = quantized
    result = export_litert(model, tmp_path / "model.tflite")
    assert "on 16 samples of the calibration data" in result.verification
    assert "% agree" in str(result)
    given = export_litert(model, tmp_path / "model.tflite", verification_data=np.ones((2, 8), "float32"))
    assert "on 2 of your samples" in given.verification


@pytest.mark.backend_independent
def test_a_file_of_another_model_is_refused(quantized, tmp_path):
    model, data = quantized
    other = keras.models.clone_model(model)
    for place, weight in enumerate(model.weights):
        values = keras.ops.convert_to_numpy(weight)
        other.weights[place].assign(values[::-1] if weight.path.endswith("kernel") else values)
    content = export_litert(other, tmp_path / "other.tflite", verify=False).path.read_bytes()
    verifier = Verifier(model, read_signature(model), [data], RULES["integer"])
    with pytest.raises(ExportVerificationError, match="differs from the Keras model's"):
        verifier.named(model.output_names)(content)


@pytest.fixture(scope="module")
def autoencoder():
    keras.utils.set_random_seed(0)
    inputs = keras.Input((10,), name="x")
    mean, log_variance = layers.Dense(3, name="mean")(inputs), layers.Dense(3, name="log_variance")(inputs)
    decoded = layers.Dense(10, name="decoded")(Sampling()([mean, log_variance]))
    return keras.Model(inputs, [mean, decoded])


@pytest.mark.parametrize("integers", [False, True])
def test_random_outputs_are_not_compared_and_differ_in_each_run(autoencoder, tmp_path, integers):
    model, data = autoencoder, RNG.normal(size=(40, 10)).astype("float32")
    if integers:
        model = quantize_post_training(model, calibration_data=data, equalize=False, correct_biases=False)
    result = export_litert(model, tmp_path / "model.tflite")
    assert result.max_abs_error < 0.1
    assert "'decoded' cannot be compared: the model draws random numbers" in result.verification
    runner = LiteRTRunner(result.path)
    first, second = runner.run(data), runner.run(data)
    np.testing.assert_array_equal(first["mean"], second["mean"])
    assert np.abs(first["decoded"] - second["decoded"]).mean() > 0.1
    expected = autoencoder.predict(data, verbose=0)[1]
    assert 0.7 < first["decoded"].std() / expected.std() < 1.4


def test_recurrent_layers_with_dropout(tmp_path):
    model = keras.Sequential(
        [
            keras.Input((5, 4)),
            layers.Bidirectional(layers.GRU(3, dropout=0.3, return_sequences=True)),
            layers.LSTM(4, dropout=0.2, recurrent_dropout=0.2),
        ]
    )
    assert export_litert(model, tmp_path / "model.tflite", weights="float16").max_abs_error < 1e-2


def test_samples_that_are_remembered_do_not_hold_the_data_that_they_are_of():
    model, data = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)]), np.zeros((1000, 3), "float32")
    remember(model, data[:32])
    assert remembered(model).shape == (16, 3)
    assert not np.shares_memory(remembered(model), data)


@pytest.mark.backend_independent
def test_little_noise_everywhere_is_no_fault():
    expected = RNG.uniform(-1.0, 1.0, (10, 100))
    received = expected + RNG.normal(0.0, 0.06, (10, 100))
    assert judge(received, expected, RULES["integer"]).share < RULES["integer"].share
    assert judge(received, expected, RULES["integer"]).problem is None
    assert judge(received, expected, RULES["float16"]).problem is not None


def test_kernels_that_round_otherwise_are_told_from_files_that_are_wrong(quantized, tmp_path, monkeypatch):
    """Reference kernels decide where a model makes much of single steps, which its own kernels round otherwise."""
    model, data = quantized
    content = export_litert(model, tmp_path / "model.tflite", verify=False).path.read_bytes()
    verifier = Verifier(model, read_signature(model), [data], RULES["integer"])
    verify = verifier.named(model.output_names)
    others = [RNG.normal(size=each.shape).astype("float32") for each in verifier._keras_outputs()]
    monkeypatch.setattr(verifier, "_keras_outputs", lambda: others)
    with pytest.warns(UserWarning, match="On reference kernels, the file does what"):
        verify(content)
    monkeypatch.setattr(verifier, "_is_exact", lambda *arguments: False)
    with pytest.raises(ExportVerificationError, match="differs from the Keras model's"):
        verify(content)


@pytest.mark.backend_independent
def test_probabilities_are_compared_as_what_they_are_made_of():
    logits = np.array([[-14.7], [-15.2], [-13.9]])
    near, far = (1 / (1 + np.exp(-logits - shift)) for shift in (0.03, 3.0))
    expected = 1 / (1 + np.exp(-logits))
    assert judge(near, expected, RULES["float16"]).problem is not None
    assert judge(log_odds(near), log_odds(expected), RULES["float16"]).problem is None
    assert judge(log_odds(far), log_odds(expected), RULES["float16"]).problem is not None
    assert judge(log_odds(0 * expected), log_odds(expected), RULES["float16"]).problem is not None


@only_tensorflow
def test_a_saturated_sigmoid_is_no_fault_of_a_file(tmp_path):
    keras.utils.set_random_seed(1)
    inputs = keras.Input((8,))
    x = layers.Dense(64, activation="relu", name="hidden")(inputs)
    model = keras.Model(inputs, layers.Dense(1, activation="sigmoid", name="out")(x))
    model.get_layer("out").kernel.assign(-40.0 * np.abs(ops.convert_to_numpy(model.get_layer("out").kernel)))
    assert outputs_are_probabilities(model) == [True]
    data = RNG.normal(size=(3, 8)).astype("float32")
    assert model.predict(data, verbose=0).max() < 1e-6
    export = export_litert(model, tmp_path / "model.tflite", weights="float16", verification_data=data)
    np.testing.assert_allclose(export.run(data), model.predict(data, verbose=0), rtol=0.5)
    with pytest.raises(ExportVerificationError):  # one's own tolerance is kept to
        export_litert(model, tmp_path / "model.tflite", weights="float16", verification_data=data, tolerance=1e-5)


@pytest.mark.backend_independent
def test_which_outputs_are_probabilities():
    inputs = keras.Input((4,))
    inner = keras.Sequential([keras.Input((4,)), layers.Dense(3, activation="softmax")])
    classes, number = inner(inputs), layers.Dense(2, activation="relu")(inputs)
    mask = layers.Reshape((2, 1))(ops.sigmoid(number))
    model = keras.Model(inputs, [classes, number, mask, layers.Activation("sigmoid")(number), ops.exp(number)])
    assert outputs_are_probabilities(model) == [True, False, True, True, False]
