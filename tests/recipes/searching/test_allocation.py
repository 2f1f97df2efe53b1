import itertools

import numpy as np
import pytest

from keras_mot.recipes.searching.allocation import Option, allocate, undominated

pytestmark = pytest.mark.backend_independent


def _random_layers(seed, layers=5, options=4):
    generator = np.random.default_rng(seed)
    return [
        [Option(float(size), float(loss)) for size, loss in zip(*generator.uniform(1, 100, (2, options)), strict=True)]
        for _ in range(layers)
    ]


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("share", [0.3, 0.6, 2.0])
def test_no_other_choice_within_the_size_loses_less(seed, share):
    layers = _random_layers(seed)
    size = share * sum(max(option.size for option in options) for options in layers)
    every = [(sum(o.size for o in taken), sum(o.loss for o in taken)) for taken in itertools.product(*layers)]
    found = allocate(layers, size)
    least = min((loss for total, loss in every if total <= size), default=None)
    assert found.fits == (least is not None)
    if found.fits:
        assert found.size <= size * (1 + 1e-9)
        assert found.loss == pytest.approx(least, rel=1e-6)


def test_the_smallest_where_nothing_fits():
    found = allocate([[Option(10, 0.5), Option(40, 0.0)], [Option(80, 0.0), Option(20, 0.1)]], 29)
    assert (found.chosen, found.size, found.fits) == ((0, 1), 30.0, False)


def test_undominated():
    options = [Option(10, 0.5), Option(20, 0.6), Option(40, 0.0), Option(40, 0.1), Option(5, 0.9)]
    assert [(each.size, each.loss) for each in undominated(options)] == [(5, 0.9), (10, 0.5), (40, 0.0)]


@pytest.mark.parametrize("layers", [[], [[Option(1, 0)], []]])
def test_nothing_to_choose_from(layers):
    with pytest.raises(ValueError, match="at least one option"):
        allocate(layers, 10)
