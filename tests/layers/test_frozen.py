"""Transforms learn only while the weight that they work on is trained."""

import keras
import numpy as np
import pytest
from keras import layers, ops

import keras_mot
from keras_mot.clustering import cluster_weights, clustering_report, strip_clustering
from keras_mot.layers import copy_model, transformed_weights
from keras_mot.layers.activation_quantizer import activation_quantizers
from keras_mot.quantization import QuantizationScheme, quantize_model
from keras_mot.sparsity import ConstantSparsity, prune_low_magnitude, pruning_report, strip_pruning

X = np.random.default_rng(0).normal(size=(32, 6)).astype("float32")
Y = np.random.default_rng(1).normal(size=(32, 3)).astype("float32")


def network():
    base = keras.Sequential([layers.Input((6,)), layers.Dense(8, activation="relu", name="inner")], name="base")
    return keras.Sequential([layers.Input((6,)), base, layers.Dense(3, name="head")])


def values(model):
    return [ops.convert_to_numpy(variable).copy() for variable in model.variables]


def learned(model, name):
    """The variables that the transforms of a layer's weights learn."""
    weights = [weight for weight in transformed_weights(model) if weight.owner.name == name]
    return [v for w in weights for t in w.transforms for v in t.variables if v.name in ("centroids", "reach")]


def change(model):
    """Which variables a training step changes, by path; the largest rate, and decay, which needs no gradient."""
    before = values(model)
    model.compile(keras.optimizers.AdamW(0.1, weight_decay=0.1), "mse")
    model.train_on_batch(X, Y)
    return {v.path for v, old in zip(model.variables, before, strict=True) if (ops.convert_to_numpy(v) != old).any()}


def freeze_layer(model):
    model.get_layer("base").layers[0].trainable = False


def freeze_parent(model):
    model.get_layer("base").trainable = False


def freeze_variable(model):
    model.get_layer("base").layers[0].kernel.trainable = False


def frozen_model(model):
    model.trainable = False


FREEZES = [freeze_layer, freeze_parent, freeze_variable]


@pytest.mark.parametrize("freeze", FREEZES)
@pytest.mark.parametrize("when", ["before", "after", "and loaded"])
def test_centroids_of_frozen_weights_stay(freeze, when, tmp_path):
    model = network()
    if when == "before":
        freeze(model)
        with pytest.warns(UserWarning, match="1 of 2 weights to be clustered are frozen, such as '.*inner/kernel'"):
            clustered = cluster_weights(model, 4)
    else:
        clustered = cluster_weights(model, 4)
        freeze(clustered)
    if when == "and loaded":
        clustered.save(tmp_path / "m.keras")
        if freeze is freeze_variable:
            clustered = copy_model(clustered)  # Keras's files say nothing of single variables
        else:
            clustered = keras.models.load_model(tmp_path / "m.keras")
    ((centroids,), (others,)) = learned(clustered, "inner"), learned(clustered, "head")
    assert not centroids.trainable
    assert others.trainable
    changed = change(clustered)
    assert centroids.path not in changed
    assert others.path in changed
    assert [row.frozen for row in clustering_report(clustered).clustered] == [True, False]
    assert "frozen" in str(clustering_report(clustered))
    before = np.unique(ops.convert_to_numpy(clustered.get_layer("base").layers[0].kernel))
    clustered.fit(X, Y, batch_size=2, verbose=0)
    kernel = strip_clustering(clustered).get_layer("base").layers[0].kernel
    assert len(np.unique(ops.convert_to_numpy(kernel))) == 4
    assert len(before) == 48


def test_what_is_trained_again_learns_again():
    model = network()
    model.trainable = False
    with pytest.warns(UserWarning, match="2 of 2 weights"):
        clustered = cluster_weights(model, 4)
    assert clustered.trainable_variables == []
    clustered.trainable = True
    assert {v.path for v in learned(clustered, "inner") + learned(clustered, "head")} <= change(clustered)
    frozen_model(clustered)
    assert clustered.trainable_variables == []
    copy = copy_model(clustered)
    assert copy.trainable_variables == []
    copy.trainable = True
    assert len(copy.trainable_variables) == 6


def test_a_cell_is_frozen_within_its_layer():
    model = keras.Sequential([layers.Input((4, 3)), layers.GRU(5, name="gru"), layers.Dense(3)])
    clustered = cluster_weights(model, 4)
    clustered.get_layer("gru").cell.trainable = False
    assert [variable.trainable for variable in learned(clustered, "gru")] == [False, False]
    clustered.get_layer("gru").cell.trainable = True
    assert [variable.trainable for variable in learned(clustered, "gru")] == [True, True]


def test_frozen_weights_are_pruned_and_said_to_be():
    model = network()
    freeze_parent(model)
    with pytest.warns(UserWarning, match="1 of 2 weights to be pruned are frozen.*do not train to make up for it"):
        pruned = prune_low_magnitude(model, ConstantSparsity(0.5))
    pruned.compile("sgd", "mse")
    pruned.fit(X, Y, verbose=0)
    report = pruning_report(pruned)
    assert [(row.zeros, row.frozen) for row in report.pruned] == [(24, True), (12, False)]
    assert "frozen" in str(report)
    kernel = ops.convert_to_numpy(strip_pruning(pruned).get_layer("base").layers[0].kernel)
    original = ops.convert_to_numpy(model.get_layer("base").layers[0].kernel)
    np.testing.assert_array_equal(kernel[kernel != 0], original[kernel != 0])


@pytest.mark.parametrize("when", ["before", "after", "copied", "loaded"])
def test_learned_scales_and_ranges_follow_their_layer(when, tmp_path):
    model = keras.Sequential([layers.Input((6,)), layers.Dense(8, name="first"), layers.Dense(3, name="head")])
    scheme = QuantizationScheme(learned_scales=True)
    if when == "before":
        model.get_layer("first").trainable = False
    quantized = quantize_model(model, scheme, calibration_data=X)
    if when != "before":
        quantized.get_layer("first").trainable = False
    if when == "copied":
        quantized = copy_model(quantized)
    if when == "loaded":
        quantized.save(tmp_path / "m.keras")
        quantized = keras.models.load_model(tmp_path / "m.keras")
    quantizers = {quantizer.name: quantizer for quantizer in activation_quantizers(quantized)}
    ranges = {name: {quantizers[f"{name}_quantizer"]._high.path} for name in ("first", "head")}
    scales = {name: {variable.path for variable in learned(quantized, name)} for name in ("first", "head")}
    trainable = {variable.path for variable in quantized.trainable_variables}
    assert not (ranges["first"] | scales["first"]) & trainable
    assert ranges["head"] | scales["head"] <= trainable
    changed = change(quantized)
    assert not (ranges["first"] | scales["first"]) & changed
    assert ranges["head"] | scales["head"] <= changed
    quantized.get_layer("first").trainable = True
    assert ranges["first"] | scales["first"] <= change(quantized)


def test_a_layer_that_is_built_later_is_frozen_too():
    layer = keras_mot.clustering.cluster_weights(layers.Dense(3, trainable=False, name="late"), 4)
    model = keras.Sequential([layers.Input((6,)), layer])
    assert model.trainable_variables == []
    layer.trainable = True
    assert len(model.trainable_variables) == 3


def test_native_gradients_go_by_what_is_trained(backend):
    if backend != "torch":
        pytest.skip("only PyTorch has flags of its own")
    model = network()
    freeze_parent(model)
    with pytest.warns(UserWarning, match="frozen"):
        clustered = cluster_weights(model, 4)
    (centroids,) = learned(clustered, "inner")
    assert not centroids.value.requires_grad
    clustered.trainable = True
    assert centroids.value.requires_grad
