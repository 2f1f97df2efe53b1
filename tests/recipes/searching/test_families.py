import re

import keras
import numpy as np
import pytest
from keras import layers

from keras_mot.layers.selecting import matches_layer
from keras_mot.quantization import AdaRound
from keras_mot.recipes import (
    Budget,
    Cluster,
    Factorize,
    FineTune,
    PostTraining,
    Prune,
    PruneChannels,
    QuantizeAware,
    RemoveChannels,
)
from keras_mot.recipes.searching.families import FAMILIES, Proposal, recipe_of, smallest, useful
from keras_mot.recipes.searching.layer_options import Choice, LayerChoices, choices_of, kernels_of, zipped_size

SHORT = FineTune(4)
LAYERS = (
    LayerChoices(
        "first",
        (
            Choice(0.0, None, 1000.0),
            Choice(0.5, None, 600.0, 0.1, 0.0),
            Choice(0.0, 16, 500.0, 0.0, 0.2),
            Choice(0.5, 16, 300.0, 0.1, 0.2),
        ),
    ),
    LayerChoices("block/second", (Choice(0.0, None, 100.0), Choice(0.9, None, 20.0, 5.0, 0.0))),
)


@pytest.mark.backend_independent
def test_sparsities_and_values_of_each_layer():
    recipe, predicted = recipe_of(Proposal("pruned-clustered", 450, 2e-3, 1.0, epochs=4), LAYERS, SHORT, "a")
    prune, cluster, last = recipe.stages
    assert predicted == 400  # the second layer is too sensitive
    assert (prune.sparsity, prune.overrides, prune.skip) == (0.5, None, ("block/second",))
    assert (cluster.number_of_clusters, cluster.skip) == (16, prune.skip)
    assert isinstance(last, QuantizeAware)
    assert prune.fine_tune.learning_rate == 2e-3
    assert prune.refit
    gradual = recipe_of(Proposal("pruned-clustered", 450, 2e-3, 1.0, gradual=True, epochs=4), LAYERS, SHORT, "a")[0]
    assert not gradual.stages[0].refit
    assert (last.fine_tune.learning_rate, last.fine_tune.epochs) == (2e-4, 2)


@pytest.mark.backend_independent
def test_layers_with_other_settings():
    prune, _ = recipe_of(Proposal("pruned", 630, epochs=4), LAYERS, SHORT, "a")[0].stages
    assert prune.overrides == {"block/second": 0.9} or prune.overrides == {"first": 0.5}
    assert not prune.skip


@pytest.mark.backend_independent
def test_what_zeros_cost_beside_values():
    """With zeros that count little, the first layer is pruned; with zeros that count much, it is clustered."""
    light, _ = recipe_of(Proposal("pruned-clustered", 700, balance=0.5, epochs=4), LAYERS, SHORT, "a")
    heavy, _ = recipe_of(Proposal("pruned-clustered", 700, balance=10.0, epochs=4), LAYERS, SHORT, "a")
    assert isinstance(light.stages[0], Prune)
    assert isinstance(heavy.stages[0], Cluster)


@pytest.mark.backend_independent
def test_without_training():
    prune, last = recipe_of(Proposal("pruned", 700), LAYERS, None, "a")[0].stages
    assert prune.refit
    assert prune.fine_tune is None
    assert isinstance(last, PostTraining)


@pytest.mark.backend_independent
def test_other_families():
    channels = recipe_of(Proposal("channels", 275, epochs=4), LAYERS, SHORT, "a")[0].stages
    assert [type(stage) for stage in channels] == [Prune, RemoveChannels, QuantizeAware]
    assert channels[0].sparsity == pytest.approx(0.5)  # a quarter of the kernels: half of inputs and outputs
    low_rank = recipe_of(Proposal("low-rank", 275, epochs=4), LAYERS, SHORT, "a")[0].stages
    assert [type(stage) for stage in low_rank] == [Factorize, QuantizeAware]
    assert low_rank[0].parameters == pytest.approx(0.25)
    assert [type(stage) for stage in recipe_of(Proposal("dense", 1, epochs=4), LAYERS, SHORT, "a")[0].stages] == [
        QuantizeAware
    ]


BITS = (
    LayerChoices(
        "first",
        (Choice(0.0, None, 1000.0), Choice(0.0, None, 480.0, 0.0, 0.3, 4), Choice(0.5, None, 300.0, 0.1, 0.3, 4)),
        "first",
    ),
    LayerChoices("block/second", (Choice(0.0, None, 400.0), Choice(0.0, None, 190.0, 0.0, 5.0, 4)), "block/second"),
)


@pytest.mark.backend_independent
def test_bits_of_each_layer():
    """The layer that suffers less gets 4 bits; both do where the size asks for it."""
    mixed, size = recipe_of(Proposal("bits", 900, epochs=4), BITS, SHORT, "a")
    assert size == 880
    (last,) = mixed.stages
    assert isinstance(last, QuantizeAware)
    assert (last.weight_bits, last.overrides) == (8, {"first": 4})
    assert recipe_of(Proposal("bits", 5000), BITS, SHORT, "a")[0].stages[0].overrides is None
    both, size = recipe_of(Proposal("bits", 700), BITS, SHORT, "a")
    assert size == 670
    assert isinstance(both.stages[0], PostTraining)  # which rounds by GPTQ below 8 bits
    assert both.stages[0].overrides == {"first": 4, "block/second": 4}
    pruned, size = recipe_of(Proposal("pruned-bits", 700), BITS, SHORT, "a")
    assert [type(stage) for stage in pruned.stages] == [Prune, PostTraining]
    assert size == 700
    assert smallest("bits", BITS) == 670
    assert smallest("clustered", BITS) == 1400


@pytest.mark.backend_independent
def test_structure_and_what_follows():
    """Layers get other names by low rank: one setting for all, the gentlest that fits into what structure leaves."""
    several = Proposal("low-rank-pruned-clustered", 176, epochs=4)
    recipe, size = recipe_of(several, LAYERS, SHORT, "a")
    factorize, prune, cluster, last = recipe.stages
    assert [type(stage) for stage in recipe.stages] == [Factorize, Prune, Cluster, QuantizeAware]
    assert factorize.parameters == pytest.approx(0.4)  # both go half of the way, in ratios: 0.4 * 0.4 * 1100 bytes
    assert size == pytest.approx(0.4 * 400)  # the first layer as small as it goes, the second as it is
    assert (prune.sparsity, cluster.number_of_clusters) == (0.5, 16)
    assert factorize.fine_tune is None
    assert (prune.fine_tune.epochs, cluster.fine_tune.epochs, last.fine_tune.epochs) == (4, 2, 2)
    thin = recipe_of(Proposal("channels-pruned-clustered", 69, cut=1.0), LAYERS, SHORT, "a")[0].stages
    assert [type(stage) for stage in thin] == [PruneChannels, Prune, Cluster, PostTraining]
    assert thin[0].sparsity == pytest.approx(0.75, rel=0.01)  # all by structure: a quarter of inputs and outputs
    assert thin[1].refit


@pytest.mark.backend_independent
def test_few_bits_of_what_structure_leaves():
    """The factors of a layer are called after it; others than those with a choice of bits keep 8."""
    recipe, size = recipe_of(Proposal("low-rank-bits", 335, epochs=4), BITS, SHORT, "a")
    factorize, last = recipe.stages
    assert [type(stage) for stage in recipe.stages] == [Factorize, PostTraining]  # what is trained is rounded by data
    assert factorize.fine_tune.epochs == 4
    assert size == 335
    assert factorize.parameters == pytest.approx(335 / 670)
    assert last.weight_bits == 8
    ((pattern, bits),) = last.overrides.items()
    assert bits == 4
    found = [name for name in ("first", "first_factor1", "m/second", "firsts", "third") if re.search(pattern, name)]
    assert found == ["first", "first_factor1", "m/second"]
    assert recipe_of(Proposal("low-rank-bits", 400), LAYERS, None, "a")[0].stages[-1].overrides is None


@pytest.mark.backend_independent
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("kernels", [1.0, 670.0, 1100.0, 5000.0])
def test_each_family_has_a_recipe_for_each_size(family, kernels):
    """Also where there is room for all weights, so that nothing is left for low rank or zeros to do."""
    for layers_of_model in (LAYERS, BITS):
        recipe, size = recipe_of(Proposal(family, kernels), layers_of_model, SHORT, "a")
        assert recipe.stages
        assert size >= 0


@pytest.mark.backend_independent
def test_smallest():
    assert smallest("pruned-clustered", LAYERS) == 320
    assert smallest("clustered", LAYERS) == 600
    assert set(FAMILIES) >= {"dense", "channels", "low-rank"}


@pytest.mark.backend_independent
def test_zipped_sizes():
    kernel = np.random.default_rng(0).standard_normal((64, 64)).astype("float32")
    dense = zipped_size(kernel)
    assert 0.85 * 64 * 64 < dense < 1.02 * 64 * 64  # the entropy of normal numbers on 255 levels is about 7 bits
    assert zipped_size(kernel, 0.9) < 0.25 * dense
    assert zipped_size(kernel, 0.0, 4) < 0.35 * dense
    assert zipped_size(kernel, 0.9, 4) < zipped_size(kernel, 0.9)
    assert 0.4 * 64 * 64 < zipped_size(kernel, bits=4) <= 0.51 * 64 * 64  # two weights in a byte
    assert zipped_size(kernel[:, :1], bits=4) < 0.6 * 64 + 20  # an odd number of them, too
    assert zipped_size(kernel, 0.8, bits=4) < 0.6 * zipped_size(kernel, bits=4)


@pytest.mark.backend_independent
def test_zipped_size_of_a_large_kernel_is_estimated():
    kernel = np.random.default_rng(0).standard_normal((4096, 64)).astype("float32")
    part = zipped_size(kernel[:1024])
    assert zipped_size(kernel) == pytest.approx(4 * part, rel=0.02)


def test_choices_of_a_model():
    inputs = keras.Input((6, 6, 4))
    x = layers.DepthwiseConv2D(3, name="depthwise")(inputs)
    x = layers.Conv2D(8, 1, name="pointwise")(x)
    outputs = layers.LSTM(4, name="recurrent")(layers.Reshape((16, 8))(x))
    model = keras.Model(inputs, outputs)
    assert [kernel.name for kernel in kernels_of(model)] == ["kernel", "cell/kernel", "cell/recurrent_kernel"]
    losses = {
        ("pointwise", "sparsity", 0.5): 0.1,
        ("recurrent", "sparsity", 0.5): 0.2,
        ("recurrent", "values", 16): 1.0,
        ("pointwise", "weight_bits", 4): 0.4,
    }
    pointwise, recurrent = choices_of(model, losses)
    settings = [(each.sparsity, each.values, each.bits) for each in pointwise.choices]
    assert settings == [(0.0, None, 8), (0.0, None, 4), (0.5, None, 8), (0.5, None, 4)]
    assert (pointwise.choices[-1].sparsity_loss, pointwise.choices[-1].values_loss) == (0.1, 0.4)
    assert len(recurrent.choices) == 4
    assert matches_layer(recurrent.selector, model.get_layer("recurrent"))
    assert not matches_layer(recurrent.selector, model.get_layer("pointwise"))
    both = recurrent.choices[-1]
    assert (both.sparsity_loss, both.values_loss) == (0.2, 1.0)
    assert both.size < recurrent.dense


@pytest.mark.backend_independent
def test_what_zeros_cannot_do():
    """Files as they are stored, and their latency, do not depend on zeros and shared values."""
    assert useful(list(FAMILIES), Budget(zipped=10, bytes=10)) == list(FAMILIES)
    assert useful(list(FAMILIES), Budget(drop=0.1)) == list(FAMILIES)
    assert useful(list(FAMILIES), Budget(latency_ms=1.0)) == ["dense", "channels", "low-rank"]
    assert useful(list(FAMILIES), Budget(bytes=10)) == ["dense", "bits", "low-rank-bits", "channels", "low-rank"]
    assert useful(["dense", "pruned"], Budget(bytes=10)) == ["dense", "pruned"]


@pytest.mark.backend_independent
def test_few_bits_by_learned_rounding():
    """Behind stages that train, it is in the place of training in integers; alone, training starts from it."""
    layers = (LayerChoices("first", (Choice(0.0, None, 1000.0), Choice(0.0, None, 500.0, bits=4))),)

    def last(family, **settings):
        return recipe_of(Proposal(family, 300, learned=True, **settings), layers, SHORT, "a")[0].stages[-1]

    assert isinstance(last("low-rank-bits", epochs=4), PostTraining)
    assert last("low-rank-bits", epochs=4).rounding == AdaRound()
    assert last("low-rank-bits").rounding == AdaRound()
    assert last("pruned-bits", epochs=4).rounding == AdaRound()
    assert isinstance(last("bits", epochs=4), QuantizeAware)
    assert last("bits", epochs=4).rounding == AdaRound()
    assert last("low-rank", epochs=4).rounding is None  # 8 bits
    assert isinstance(last("low-rank", epochs=4), QuantizeAware)
