"""The stage of low rank: where it may stand, what it takes, and that it composes with the others."""

import types

import keras
import numpy as np
import pytest
from keras import layers

from keras_mot.recipes import Cluster, Factorize, Prune, QuantizeAware, Recipe, RemoveChannels, Tune


def test_it_stands_where_nothing_is_attached():
    Recipe([Tune(), Factorize(0.5), Prune(0.5), Cluster(8), QuantizeAware()])
    Recipe([Prune(0.5, channels=True), RemoveChannels(), Factorize(energy=0.9), Factorize(fixed_rank=4), Cluster(8)])
    for earlier in (Prune(0.5), Cluster(8), QuantizeAware()):
        with pytest.raises(ValueError, match=f"'factorize' cannot follow '{earlier.key}'"):
            Recipe([earlier, Factorize()])
    recipe = Recipe([Factorize(0.25, decomposition="tucker", skip=["stem"], fine_tune=None)])
    assert Recipe.from_yaml(recipe.to_yaml()) == recipe


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"parameters": 1.0}, "`parameters` should be from above 0 to below 1; received 1.0"),
        ({"energy": 0}, "`energy` should be from above 0 to 1; received 0"),
        ({"fixed_rank": 0}, "`rank` should be a positive integer; received 0"),
        ({"energy": 0.5, "fixed_rank": 2}, "Give one of .*; received energy and fixed_rank"),
        ({"decomposition": "tuker"}, "one of output_channels, .*; received 'tuker'. Did you mean 'tucker'"),
        ({"calibration_samples": -1}, "`calibration_samples`"),
        ({"skip": ["("]}, "is no regular expression"),
    ],
)
def test_refusals(settings, message):
    with pytest.raises(ValueError, match=message):
        Factorize(**settings)


def test_it_asks_the_run_for_samples():
    model = keras.Sequential([keras.Input((16,)), layers.Dense(24, name="wide"), layers.Dense(12, name="narrow")])
    x, asked = np.random.default_rng(0).normal(size=(40, 16)).astype("float32"), []

    def calibration(samples):
        asked.append(samples)
        return x[:samples]

    run = types.SimpleNamespace(calibration=calibration, progress=False)
    small = Factorize(0.5, calibration_samples=32, skip=("narrow",)).apply(model, run)
    assert asked == [32]
    assert [layer.name for layer in small.layers][-3:] == ["wide_factor1", "wide", "narrow"]
    Factorize(0.5, calibration_samples=0).apply(model, run)
    assert asked == [32]
