"""Roundings by their names, in stages and in YAML."""

import dataclasses

import pytest

import keras_mot
from keras_mot.quantization import GPTQ, AdaRound, Nearest, Rounding
from keras_mot.recipes import PostTraining, QuantizeAware, Recipe
from keras_mot.recipes.rounding_names import plain_rounding, rounding_named

pytestmark = pytest.mark.backend_independent


@dataclasses.dataclass(frozen=True)
class Own(keras_mot.Config, Rounding):
    """Without a name."""

    def integers(self, weight, scale, grid, axes):
        return grid.integers(weight / scale)


@pytest.mark.parametrize("rounding", [Nearest(), GPTQ(), GPTQ(damping=0.1), AdaRound(iterations=50)])
def test_what_is_written_is_read(rounding):
    assert rounding_named(plain_rounding(rounding)) == rounding


def test_stages_take_names_and_settings():
    stage = PostTraining(weight_bits=4, rounding={"gptq": {"damping": 0.1}})
    assert stage.scheme().rounding == GPTQ(damping=0.1)
    assert PostTraining(weight_bits=4).scheme().rounding is None
    assert QuantizeAware(rounding="nearest", learned_scales=True).scheme().rounding == Nearest()
    recipe = Recipe([stage])
    assert Recipe.from_yaml(recipe.to_yaml()) == recipe
    assert "damping: 0.1" in recipe.to_yaml()


def test_what_is_none_is_refused():
    with pytest.raises(ValueError, match="Did you mean 'gptq'"):
        PostTraining(rounding="gtpq")
    with pytest.raises(ValueError, match="'gptq' does not take"):
        PostTraining(rounding={"gptq": {"dampening": 0.1}})
    with pytest.raises(TypeError, match="should be a `Rounding` or the name"):
        PostTraining(rounding=4)
    with pytest.raises(ValueError, match="has no name in YAML"):
        plain_rounding(Own())
