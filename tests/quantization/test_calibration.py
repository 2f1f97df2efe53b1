"""`Calibration`: the settings that it takes, its short form, and the older one."""

import keras
import numpy as np
import pytest

from keras_mot.layers.activation_quantizer import activation_quantizers
from keras_mot.quantization import (
    INT8,
    Calibration,
    MeanMinMax,
    MinMax,
    Percentile,
    quantize_annotate_model,
    quantize_apply,
    quantize_model,
    quantize_post_training,
)
from keras_mot.recipes import PostTraining, Recipe
from keras_mot.recipes.training_data import TrainingData


@pytest.fixture
def model():
    keras.utils.set_random_seed(0)
    return keras.Sequential([keras.Input((6,)), keras.layers.Dense(5, "relu"), keras.layers.Dense(3)])


def _ranges(model):
    return [quantizer.clipping_range for quantizer in activation_quantizers(model)]


def test_the_forms_are_equal(model, rng):
    x = rng.standard_normal((40, 6)).astype("float32")
    settings = {"estimator": MeanMinMax(), "batch_size": 16, "correct_biases": False}
    expected = _ranges(quantize_post_training(model, INT8, x, **settings))
    # By the definition: the mean of the samples' least and greatest values.
    assert expected[0] == pytest.approx((x.min(axis=1).mean(), x.max(axis=1).mean()), rel=1e-5)
    calibration = Calibration(x, **settings)
    assert _ranges(quantize_post_training(model, INT8, calibration)) == expected
    assert _ranges(quantize_model(model, calibration_data=calibration)) == expected
    assert _ranges(quantize_apply(quantize_annotate_model(model), calibration_data=calibration)) == expected


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"estimater": MinMax()}, r"no argument 'estimater'. Did you mean 'estimator'\?"),
        ({"override": {}}, r"no argument 'override'. Did you mean 'overrides'\?"),
        ({"calibration_data": Calibration(np.ones((4, 6))), "batch_size": 3}, "beside it `batch_size`"),
        ({"calibration_data": Calibration(np.ones((4, 6))), "loss": None}, "beside it `loss`"),
    ],
)
def test_settings_that_nobody_reads(model, settings, message):
    with pytest.raises(TypeError, match=message):
        quantize_post_training(model, INT8, **settings)


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"estimator": "minmax"}, TypeError, "`estimator` should be a `RangeEstimator`"),
        ({"batch_size": 0}, ValueError, "`batch_size` should be a positive integer"),
        ({"equalize": 1}, TypeError, "`equalize` should be True, False, or None"),
        ({"loss": "mse", "estimator": MinMax()}, ValueError, "give one of"),
        ({"data": Calibration()}, TypeError, "received a `Calibration`"),
    ],
)
def test_settings_are_checked_where_they_are_written(settings, error, message):
    with pytest.raises(error, match=message):
        Calibration(**settings)


def test_data_are_needed(model):
    with pytest.raises(ValueError, match="needs `calibration_data`"):
        quantize_post_training(model, INT8, Calibration(estimator=MinMax()))
    with pytest.raises(ValueError, match="`correct_biases=True` needs `calibration_data`"):
        quantize_model(model, calibration_data=Calibration(correct_biases=True))


def test_it_prints_no_data():
    calibration = Calibration(np.ones((1000, 3), "float32"), Percentile(99.0))
    data = "an array of shape (1000, 3) and type float32"
    assert repr(calibration) == f"Calibration({data}, estimator=Percentile(percent=99.0))"


def test_stages_of_recipes_take_it():
    stage = PostTraining(calibration=Calibration(estimator=Percentile(99.5), correct_biases=False))
    text = Recipe([stage], "mine").to_yaml()
    assert "percent: 99.5" in text
    assert "correct_biases: false" in text
    assert list(Recipe.from_yaml(text).stages) == [stage]
    short = "stages:\n  - quantize_aware:\n      calibration: {estimator: mean_min_max, equalize: true}\n"
    expected = Calibration(estimator=MeanMinMax(), equalize=True)
    assert Recipe.from_yaml(short).stages[0].calibration == expected
    assert PostTraining().calibration is None


@pytest.mark.parametrize(
    ("calibration", "message"),
    [
        ("{estimator: mean_minmax}", "there is no estimator 'mean_minmax'. Did you mean 'mean_min_max'"),
        ("{estimator: {percentile: {percentage: 3}}}", "does not take"),
        ("{estimater: entropy}", "has no setting 'estimater'. Did you mean 'estimator'"),
        ("{loss: mse}", "has no setting 'loss'"),
        ("3", "should be a `Calibration`"),
    ],
)
def test_stages_refuse_other_settings(calibration, message):
    with pytest.raises((TypeError, ValueError), match=message):
        Recipe.from_yaml(f"stages:\n  - post_training:\n      calibration: {calibration}\n")


def test_a_recipe_calibrates_so(model, rng):
    x = rng.standard_normal((64, 6)).astype("float32")

    class Run:
        progress = rehearsing = False

        def calibration(self, samples):
            return x[:samples]

    stage = PostTraining(calibration_samples=48, calibration={"estimator": "mean_min_max"})
    low, high = _ranges(stage.apply(model, Run()))[0]
    assert (low, high) == pytest.approx((x[:48].min(axis=1).mean(), x[:48].max(axis=1).mean()), rel=1e-5)


def test_a_recipe_chooses_by_the_loss_on_labels_that_no_training_has_seen(model, rng):
    x, y = rng.standard_normal((64, 6)).astype("float32"), rng.integers(0, 3, 64)
    data, loss = TrainingData((x[:8], y[:8]), (x, y)), keras.losses.SparseCategoricalCrossentropy(from_logits=True)

    class Run:
        progress = rehearsing = False

        def labelled(self, samples):
            return data.unseen(samples, seed=0), loss

    unseen_x, unseen_y = data.unseen(48, seed=0)
    assert len(unseen_x) == len(unseen_y) == 48
    received = _ranges(PostTraining(calibration_samples=48).apply(model, Run()))
    assert received == _ranges(quantize_post_training(model, INT8, (unseen_x, unseen_y), loss=loss))
    assert TrainingData((x, y), None).unseen(48, seed=0) is None
