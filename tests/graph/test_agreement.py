"""Whether a model still computes what another does, and the warning of pruned and factorized ones that do not."""

import contextlib
import warnings

import keras
import numpy as np
import pytest
from keras import layers, ops

from keras_mot.graph.agreement import Changed, changed_decisions, noise_and_ratio, unjudged
from keras_mot.low_rank import FixedRank, factorize
from keras_mot.sparsity import prune_at_once

X = np.random.default_rng(0).standard_normal((1024, 12)).astype("float32")


@contextlib.contextmanager
def silence():
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*is of little use")
        yield


@keras.saving.register_keras_serializable("tests")
class Noise(layers.Layer):
    def __init__(self):
        super().__init__()
        self.seeds = keras.random.SeedGenerator(0)

    def call(self, inputs):
        return inputs + 3 * keras.random.normal(ops.shape(inputs), seed=self.seeds)


def model_of(*last):
    keras.utils.set_random_seed(1)
    hidden = layers.Dense(24, "relu", kernel_initializer="orthogonal")
    return keras.Sequential([keras.Input((12,)), hidden, *last], name="small")


def classifier():
    return model_of(layers.Dense(5, "softmax", kernel_initializer="orthogonal"))


@pytest.mark.parametrize("activation", ["softmax", None])
def test_models_that_have_lost_their_outputs(activation):
    """Outputs that may be no decisions count as lost by the noise in them."""
    model = model_of(layers.Dense(5 if activation else 1, activation, kernel_initializer="orthogonal"))
    kinds = [
        lambda: prune_at_once(model, X, 0.97, rounds=1),
        lambda: factorize(model, FixedRank(1), calibration_data=X),
    ]
    for lose, subject in zip(kinds, ("'small' with 97% of zeros", "'small' with kernels of lower rank"), strict=True):
        with pytest.warns(UserWarning, match=f"{subject}.* is of little use as it is.*against the model") as caught:
            lose()
        (text,) = [str(each.message) for each in caught if "little use" in str(each.message)]
        assert ("of the decisions are others" in text) == bool(activation)
        assert "Train it from here" in text
        with silence(), unjudged():
            lose()


def test_silence_of_models_that_are_fine_or_not_looked_at():
    with silence():
        prune_at_once(classifier(), X, 0.3, rounds=1)
        factorize(classifier(), FixedRank(11), calibration_data=X)
        factorize(classifier(), FixedRank(1))  # without data there are no outputs


def test_silence_of_models_that_draw_random_numbers():
    with silence():
        prune_at_once(model_of(Noise(), layers.Dense(1)), X, 0.3, rounds=1)


@pytest.mark.parametrize(
    ("share", "samples", "above"),
    [(0.5, 100, True), (0.26, 100, False), (0.26, 10000, True), (1.0, 4, False), (0.0, 100, False)],
)
def test_few_samples_say_little(share, samples, above):
    """One-sided, at five per cent: 26 of 100 may be 25 by chance, all of 4 may be one."""
    assert Changed(share, samples, 0.9).above(0.25) == above


def test_signal_and_noise_by_hand():
    expected = np.full((10, 2), 100.0)
    expected[::2, 0] += 2.0  # around a mean of 101: ten times 1 squared
    received = expected + [[0.1, 0.0]]
    noise, ratio = noise_and_ratio([expected[:4], expected[4:]], [received[:4], received[4:]])
    assert noise == pytest.approx(0.1)
    assert ratio == pytest.approx(20.0)
    assert noise_and_ratio([expected], [expected * np.nan])[1] == -np.inf
    assert noise_and_ratio([expected], [expected])[1] > 1000
    few = noise_and_ratio([expected[:2]], [received[:2]])[1]  # of two samples, what they share counts
    assert few == pytest.approx(10 * np.log10((102**2 + 3 * 100**2) / 0.02))


@pytest.mark.parametrize(
    ("kind", "tensor", "share"),
    [
        ("softmax", keras.KerasTensor((None, 2)), 0.5),  # of four samples, two
        ("sigmoid", keras.KerasTensor((None, 2)), 0.75),  # of eight decisions, six
        ("dense", keras.KerasTensor((None, 2)), None),
        ("dense", keras.KerasTensor((None, 2), "int32"), 1.0),
    ],
)
def test_decisions_by_hand(kind, tensor, share):
    expected = np.array([[0.9, 0.1], [0.8, 0.2], [0.7, 0.3], [0.6, 0.4]])
    received = np.array([[0.4, 0.6], [0.3, 0.7], [0.45, 0.4], [0.4, 0.3]])
    found = changed_decisions(kind, tensor, [expected[:1], expected[1:]], [received[:1], received[1:]])
    assert (found and found.share) == share
