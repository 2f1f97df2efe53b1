"""Depthwise kernels: few weights, costly to change. Left alone as in TFMOT, unless they are asked for."""

import keras
import numpy as np
import pytest
from keras import layers, ops

from keras_mot.clustering import ClusteringConfig, cluster_weights, clustering_report, strip_clustering
from keras_mot.layers import WeightAxes, WeightSpec, register_weights, transformed_weights
from keras_mot.sparsity import (
    Channel,
    ConstantSparsity,
    PruningConfig,
    prune_low_magnitude,
    pruning_report,
    strip_pruning,
    update_pruning_step,
)

HALF = ConstantSparsity(0.5)
TECHNIQUES = [
    (lambda target, **settings: prune_low_magnitude(target, HALF, **settings), pruning_report, PruningConfig(HALF)),
    (lambda target, **settings: cluster_weights(target, 4, **settings), clustering_report, ClusteringConfig(4)),
]


class Mine(layers.DepthwiseConv2D):
    """A user's subclass: the table follows inheritance."""


def network():
    return keras.Sequential(
        [
            layers.Input((8, 8, 3)),
            layers.Conv2D(4, 3, name="stem"),
            layers.DepthwiseConv2D(3, padding="same", name="depthwise"),
            Mine(3, name="subclass"),
            layers.SeparableConv2D(6, 3, name="separable"),
            layers.GlobalAveragePooling2D(),
            layers.Dense(3, name="head"),
        ]
    )


def touched(model):
    return {f"{weight.owner.name}/{weight.key}" for weight in transformed_weights(model)}


USUAL = {"stem/kernel", "separable/pointwise_kernel", "head/kernel"}
DEPTHWISE = {"depthwise/kernel", "subclass/kernel", "separable/depthwise_kernel"}


@pytest.mark.parametrize(("apply", "report", "config"), TECHNIQUES)
def test_left_alone_unless_asked_for(apply, report, config):
    model = network()
    result = apply(model)
    assert touched(result) == USUAL
    reasons = dict(report(result).left_alone)
    assert {"/".join(path.split("/")[-2:]) for path in reasons} == DEPTHWISE
    assert all(reason.startswith("depthwise:") and "`include_depthwise`" in reason for reason in reasons.values())
    assert touched(apply(model, include_depthwise=True)) == USUAL | DEPTHWISE
    assert touched(apply(model, include_depthwise=False)) == USUAL
    # A selector that points at a layer asks for its depthwise kernel, whatever kind of selector it is.
    for selector, kernels in (
        ("^depthwise$", {"depthwise/kernel"}),
        (layers.DepthwiseConv2D, {"depthwise/kernel", "subclass/kernel"}),
        (model.get_layer("subclass"), {"subclass/kernel"}),
        (lambda layer: layer.name == "separable", {"separable/depthwise_kernel"}),
    ):
        assert touched(apply(model, overrides={selector: config})) == USUAL | kernels
    # One that points at a model around it does not, and `None` still leaves alone.
    nested = keras.Sequential([layers.Input((8, 8, 3)), network()])
    assert touched(apply(nested, overrides={keras.Sequential: config})) == USUAL
    without = {"stem/kernel", "head/kernel", "depthwise/kernel", "subclass/kernel"}
    assert touched(apply(model, include_depthwise=True, overrides={"sep": None})) == without
    with pytest.raises(TypeError, match="`include_depthwise` should be True, False or None; received 1"):
        apply(model, include_depthwise=1)


@pytest.mark.parametrize(("apply", "report", "config"), TECHNIQUES)
@pytest.mark.parametrize("built", [True, False])
def test_a_layer_passed_by_itself_is_asked_for(apply, report, config, built):
    layer, dense = layers.DepthwiseConv2D(3, name="depthwise"), layers.Conv2D(3, 3, name="conv")
    if built:
        layer.build((None, 8, 8, 4))
        dense.build((None, 8, 8, 4))
    alone = apply(layer)
    # In a list, as in a model, it is not: the list is what is asked for.
    conv, left = apply([dense, layer])
    both = apply([dense, layer], include_depthwise=True)
    for each in (alone, conv, left, *both):
        if not each.built:
            each.build((None, 8, 8, 4))
    assert touched(alone) == {"depthwise/kernel"}
    assert (touched(conv), touched(left)) == ({"conv/kernel"}, set())
    assert [len(touched(each)) for each in both] == [1, 1]
    with pytest.raises(ValueError, match=r"nothing to|is not"):
        apply(layer, include_depthwise=False)
    with pytest.raises(ValueError, match="nothing to"):
        apply([layer])


@pytest.mark.parametrize(("apply", "report", "config"), TECHNIQUES)
def test_an_unbuilt_separable_layer_in_a_list(apply, report, config):
    (layer,) = apply([layers.SeparableConv2D(6, 3, name="separable")])
    layer.build((None, 8, 8, 4))
    assert touched(layer) == {"separable/pointwise_kernel"}
    alone = apply(layers.SeparableConv2D(6, 3, name="separable"))
    alone.build((None, 8, 8, 4))
    assert touched(alone) == {"separable/pointwise_kernel", "separable/depthwise_kernel"}


def test_a_users_own_layer_joins_by_a_field_of_its_registration():
    @keras.saving.register_keras_serializable("test_depthwise")
    class Scale(layers.Layer):
        def build(self, input_shape):
            self.filters = self.add_weight(shape=(2, input_shape[-1]), name="filters")

        def call(self, inputs):
            return inputs * ops.sum(self.filters, axis=0)

    register_weights(Scale, [WeightSpec("filters", WeightAxes((0,), (1,)), depthwise=True)])
    model = keras.Sequential([layers.Input((4,)), Scale(name="scale"), layers.Dense(3, name="head")])
    assert touched(prune_low_magnitude(model, HALF)) == {"head/kernel"}
    assert touched(prune_low_magnitude(model, HALF, include_depthwise=True)) == {"head/kernel", "scale/filters"}


def test_whole_channels_take_depthwise_kernels_along():
    """A depthwise channel whose kernel stays keeps the channel before it from being cut out."""
    model = network()
    assert touched(prune_low_magnitude(model, HALF, granularity=Channel())) == USUAL | DEPTHWISE
    assert touched(prune_low_magnitude(model, HALF, granularity=Channel(), include_depthwise=False)) == USUAL


def test_zeros_and_values_are_where_they_should_be():
    pruned = prune_low_magnitude(network(), HALF)
    update_pruning_step(pruned, 0)
    stripped = strip_pruning(pruned)
    kernels = {v.path.split("/", 1)[-1]: ops.convert_to_numpy(v) for v in stripped.weights if len(v.shape) > 1}
    assert {name for name, kernel in kernels.items() if (kernel == 0).any()} == USUAL
    clustered = strip_clustering(cluster_weights(network(), 4))
    kernels = {v.path.split("/", 1)[-1]: ops.convert_to_numpy(v) for v in clustered.weights if len(v.shape) > 1}
    assert {name for name, kernel in kernels.items() if len(np.unique(kernel)) <= 4} == USUAL


def test_a_model_of_nothing_else_says_how_to_ask():
    model = keras.Sequential([layers.Input((8, 8, 3)), layers.DepthwiseConv2D(3)])
    with pytest.raises(ValueError, match="depthwise kernels by `include_depthwise=True`"):
        prune_low_magnitude(model, HALF)


def test_an_unbuilt_layer_with_masks_to_come_is_saved(tmp_path):
    (layer,) = prune_low_magnitude([layers.SeparableConv2D(6, 3, name="separable")], HALF)
    again = keras.layers.deserialize(keras.layers.serialize(layer))
    again.build((None, 8, 8, 4))
    assert touched(again) == {"separable/pointwise_kernel"}
