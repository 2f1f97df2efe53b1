"""Range estimators: against the definitions, and with what they are told of an activation."""

import keras
import numpy as np
import pytest
from keras import layers

from keras_mot.quantization import INT8, Entropy, LeastSquares, RangeEstimator, SeenValues, quantize_post_training
from keras_mot.quantization.schemes import INT16X8
from tests.quantization.models import images


def seen_of(*batches, steps=255):
    seen = SeenValues(steps)
    for batch in batches:
        seen.add(np.asarray(batch, "float32"))
    return seen


def divergence(values, low, high, levels, bins=2000):
    """The divergence by its definition, from values: their histogram, cut off, beside the one of the rounded levels."""
    edges = np.linspace(low, high, bins + 1)
    inside = np.histogram(values, edges)[0].astype("float64")
    expected = inside.copy()
    expected[0] += (values < low).sum()
    expected[-1] += (values > high).sum()
    rounded = np.zeros(bins)
    for part in np.array_split(np.arange(bins), levels):
        filled = part[inside[part] > 0]
        rounded[filled] = inside[filled].mean() if len(filled) else 0.0
    expected, rounded = expected / expected.sum(), np.maximum(rounded / rounded.sum(), 1e-12)
    used = expected > 0
    return float((expected[used] * np.log(expected[used] / rounded[used])).sum())


def test_entropy_against_the_definition(rng):
    """No cut has a clearly smaller divergence, and few values far out are cut off."""
    values = np.concatenate([rng.standard_normal(100000), rng.uniform(30, 40, 20)])
    low, high = Entropy().range(seen_of(*np.array_split(values, 10), steps=31))
    assert -5 < low < -2
    assert 2 < high < 12
    chosen = divergence(values, low, high, 32)
    assert chosen < 0.5 * divergence(values, values.min(), values.max(), 32)


def test_entropy_keeps_what_is_evenly_spread(rng):
    values = rng.uniform(-1, 3, 100000)
    low, high = Entropy().range(seen_of(values))
    assert low == pytest.approx(-1, abs=0.05)
    assert high == pytest.approx(3, abs=0.1)


def test_zeros_are_no_reason_to_cut(rng):
    """Nine of ten values are 0, as behind a ReLU; the others decide."""
    values = rng.uniform(0, 2, 20000)
    with_zeros = np.concatenate([values, np.zeros(180000)])
    assert Entropy().range(seen_of(with_zeros))[1] == pytest.approx(Entropy().range(seen_of(values))[1], rel=0.05)


@pytest.mark.parametrize("estimator", [Entropy(), LeastSquares()])
def test_narrow_grids_are_cut_more(estimator, rng):
    values = rng.standard_normal(50000) ** 3
    narrow, wide, whole = (estimator.range(seen_of(values, steps=steps))[1] for steps in (15, 255, 65535))
    assert narrow < wide <= whole
    assert whole == pytest.approx(values.max(), rel=0.1)


@pytest.mark.parametrize("estimator", [Entropy(), LeastSquares()])
@pytest.mark.parametrize("values", [np.zeros(10), np.full(10, 5.0), np.full(10, -5.0), np.array([1e-30, 3e4])])
def test_odd_values(estimator, values):
    low, high = estimator.range(seen_of(values))
    assert np.isfinite([low, high]).all()
    assert low <= max(values.max(), 0) + 1e-6
    assert high >= min(values.min(), 0) - 1e-6


class Steps(RangeEstimator):
    """Notes how many steps it is told of."""

    def __init__(self):
        self.noted = []

    def range(self, seen):
        """The limits."""
        self.noted.append(seen.steps)
        return seen.limits


@pytest.mark.parametrize(("scheme", "steps"), [(INT8, 255), (INT16X8, 65534)])
def test_estimators_know_the_grid(scheme, steps):

    estimator = Steps()
    model = keras.Sequential([keras.Input((8, 8, 3)), layers.Conv2D(2, 3)])
    quantize_post_training(model, scheme, images(4), estimator=estimator)
    assert set(estimator.noted) == {steps}
