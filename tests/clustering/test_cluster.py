"""`cluster_weights` and `strip_clustering`: what is clustered, how, and what is refused."""

import re
import warnings

import keras
import numpy as np
import pytest
from keras import layers, ops
from sklearn.cluster import KMeans

import keras_mot
from keras_mot.clustering import (
    CentroidInitialization,
    ClusteringConfig,
    DifferentiableKMeans,
    cluster_weights,
    clustering_report,
    strip_clustering,
)
from keras_mot.layers import is_transformed, transformed_weights
from keras_mot.sparsity import ConstantSparsity, prune_low_magnitude, strip_pruning
from keras_mot.transforms import Codebook, Mask
from tests.clustering.models import distinct
from tests.layers.model_zoo import MODELS, sample_batch
from tests.sparsity.models import batches, classifier, compiled, zeros


def kernels(model):
    return [ops.convert_to_numpy(v).copy() for v in model.variables if v.name == "kernel"]


def test_weights_are_clustered_at_once_and_best():
    model = classifier()
    before = kernels(model)
    stripped = strip_clustering(cluster_weights(model, 8))
    assert distinct(stripped) == [8, 8, 8]
    for plain, clustered in zip(before, kernels(stripped), strict=True):
        theirs = KMeans(8, n_init=3, random_state=0).fit(plain.reshape(-1, 1)).inertia_
        assert ((plain - clustered) ** 2).sum() <= theirs * (1 + 1e-5)
    for plain, now in zip(before, kernels(model), strict=True):
        np.testing.assert_array_equal(plain, now)  # the given model is as it was


@pytest.mark.parametrize("name", MODELS)
def test_every_layer_of_the_table(name, rng):
    build, count = MODELS[name]
    model = build()
    x, _ = sample_batch(model, rng)
    clustered = cluster_weights(model, 4, include_depthwise=True)
    rows = clustering_report(clustered).clustered
    assert len(rows) == count
    assert all(row.unique_values <= 4 for row in rows)
    stripped = strip_clustering(clustered)
    assert not any(is_transformed(layer) for layer in stripped._flatten_layers())
    np.testing.assert_allclose(
        ops.convert_to_numpy(stripped(x)), ops.convert_to_numpy(clustered(x)), rtol=1e-4, atol=1e-5
    )


def test_settings_by_layer():
    model = classifier()
    settings = {
        "^head": None,
        lambda layer: layer.name == "second": ClusteringConfig(32),
        layers.Dense: ClusteringConfig(4, initialization=CentroidInitialization.LINEAR),
    }
    stripped = strip_clustering(cluster_weights(model, 16, overrides=settings))
    first, second, _ = kernels(stripped)
    assert distinct(stripped)[:2] == [4, 32]
    np.testing.assert_allclose(np.diff(np.unique(first)), np.ptp(kernels(model)[0]) / 3, rtol=1e-3)
    assert second.shape == (20, 16)
    np.testing.assert_array_equal(kernels(stripped)[2], kernels(model)[2])


def test_a_layer_a_list_and_in_place():
    model = classifier()
    clustered = cluster_weights(model.layers, 4)
    assert [layer.name for layer in clustered] == [layer.name for layer in model.layers]
    assert clustered[0] is not model.layers[0]
    layer = cluster_weights(model.get_layer("first"), 4)
    assert len(np.unique(kernels(strip_clustering(layer))[0])) == 4
    assert cluster_weights(model, 4, inplace=True) is model
    assert strip_clustering(model, inplace=True) is model
    assert distinct(model) == [4, 4, 4]


def test_layers_that_are_not_built_yet(backend):
    model = keras.Sequential([cluster_weights(layers.Dense(30), 4, input_shape=(12,)), layers.Dense(3)])
    model.build((None, 12))
    assert [row.unique_values for row in clustering_report(model).clustered] == [4]
    lazy = keras.Sequential([cluster_weights(layers.Dense(30), 4), layers.Dense(3)])
    if backend == "tensorflow":  # there alone, `fit` would build the model in the middle of its first step
        with pytest.raises(ValueError, match="build the model before `fit`"):
            compiled(lazy).fit((each for each in [batches(1)]), verbose=0)
    # Arrays, which can be read twice, build it before the first step.
    compiled(lazy).fit(*batches(2), batch_size=16, verbose=0)
    assert distinct(strip_clustering(lazy))[0] == 4


def test_channels_have_palettes_of_their_own():
    model = keras.Sequential([layers.Input((6, 6, 3)), layers.Conv2D(5, 3), layers.DepthwiseConv2D(3)])
    stripped = strip_clustering(cluster_weights(model, 4, cluster_per_channel=True, include_depthwise=True))
    kernel, depthwise = kernels(stripped)
    assert [len(np.unique(kernel[..., channel])) for channel in range(5)] == [4] * 5
    assert [len(np.unique(depthwise[:, :, channel])) for channel in range(5)] == [4] * 5
    assert len(np.unique(kernel)) == 20


def test_fewer_values_than_clusters_are_kept_and_noted():
    model = keras.Sequential([layers.Input((4,)), layers.Dense(4, name="small"), layers.Dense(4, name="constant")])
    model.get_layer("small").kernel.assign(np.arange(16).reshape(4, 4) % 3)
    model.get_layer("constant").kernel.assign(np.full((4, 4), 0.1))
    clustered = cluster_weights(model, 16)
    assert "only 3 different values in use" in str(clustering_report(clustered))
    for before, after in zip(kernels(model), kernels(strip_clustering(clustered)), strict=True):
        np.testing.assert_array_equal(before, after)


def test_a_mask_in_training_is_kept():
    pruned = prune_low_magnitude(classifier(), ConstantSparsity(0.75))
    keras_mot.update_step(pruned, 0)
    clustered = cluster_weights(pruned, 8)
    assert [type(t) for t in transformed_weights(clustered)[0].transforms] == [Mask, Codebook]
    stripped = strip_clustering(clustered)
    assert zeros(stripped) == [180, 240, 36]
    assert distinct(stripped) == [8, 8, 8]  # zero is one of them


@pytest.mark.parametrize("per_channel", [False, True])
def test_the_zeros_of_a_stripped_model_are_kept_in_training(per_channel):
    pruned = prune_low_magnitude(classifier(), ConstantSparsity(0.75))
    keras_mot.update_step(pruned, 0)
    sparse = strip_pruning(pruned)
    clustered = cluster_weights(
        sparse, ClusteringConfig(4, per_channel=per_channel, frequency=1), preserve_sparsity=True
    )
    compiled(clustered).fit(*batches(4), batch_size=16, verbose=0)
    stripped = strip_clustering(clustered)
    for before, after in zip(kernels(sparse), kernels(stripped), strict=True):
        np.testing.assert_array_equal(before == 0, after == 0)
        assert np.abs(before - after).max() > 0
    if not per_channel:
        assert max(distinct(stripped)) <= 4
    report = str(clustering_report(clustered))
    assert "one value is zero" in report


def test_weights_without_zeros_beside_sparse_ones_get_no_mask():
    model = classifier()
    kernel = kernels(model)[0]
    kernel[kernel > 0] = 0
    model.get_layer("first").kernel.assign(kernel)
    clustered = cluster_weights(model, 4, preserve_sparsity=True)
    assert [len(weight.transforms) for weight in transformed_weights(clustered)] == [2, 1, 1]


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: cluster_weights("model", 16), TypeError, "expects a Keras 3 model or layer"),
        (lambda: cluster_weights(None, 16), TypeError, "expects a Keras 3 model or layer"),
        (lambda: cluster_weights([], 16), ValueError, "empty list"),
        (lambda: cluster_weights(keras.Sequential([layers.ReLU()]), 16), ValueError, "nothing to cluster"),
        (lambda: cluster_weights(keras.Sequential([layers.Input((3,)), layers.ReLU()]), 2), ValueError, "to cluster"),
        (lambda: cluster_weights(classifier(), 1), ValueError, "number_of_clusters` should be at least 2"),
        (lambda: cluster_weights(classifier(), 2.5), TypeError, "number_of_clusters` should be an integer"),
        (lambda: cluster_weights(classifier(), True), TypeError, "should be an integer"),
        (lambda: cluster_weights(classifier(), "16"), TypeError, "should be an integer"),
        (lambda: cluster_weights(classifier(), 4, "kmeans++"), TypeError, "CentroidInitialization.KMEANS"),
        (lambda: cluster_weights(classifier(), 4, cluster_per_channel=1), TypeError, "per_channel"),
        (lambda: cluster_weights(classifier(), 4, preserve_sparsity=1), TypeError, "preserve_sparsity"),
        (lambda: cluster_weights(classifier(), 4, preserve_sparsity=True), ValueError, "no kernel of .* has a zero"),
        (lambda: cluster_weights(layers.Dense(3), 4, preserve_sparsity=True), ValueError, "not built"),
        (lambda: cluster_weights(classifier(), 4, overrides={"first": 8}), TypeError, "ClusteringConfig"),
        (lambda: cluster_weights(classifier(), 4, overrides={"third": None}), ValueError, "No layer .* 'third'"),
        (lambda: cluster_weights(classifier(), ClusteringConfig(4), cluster_per_channel=True), ValueError, "Give the"),
        (lambda: ClusteringConfig(4, method="dkm"), TypeError, "ClusteringMethod"),
        (lambda: ClusteringConfig(4, per_channel=True, method=DifferentiableKMeans()), ValueError, "per channel"),
        (lambda: DifferentiableKMeans(0), ValueError, "above 0"),
        (lambda: DifferentiableKMeans("cold"), TypeError, "should be a number"),
        (lambda: ClusteringConfig(4, frequency=0), ValueError, "frequency` should be at least 1"),
        (lambda: strip_clustering(classifier()), ValueError, "no clustered weights"),
        (lambda: strip_clustering(3), TypeError, "`strip_clustering` expects"),
        (lambda: clustering_report(3), TypeError, "clustering_report"),
    ],
)
def test_what_cannot_be_clustered_is_refused(make, error, message):
    with pytest.raises(error, match=message):
        make()


def test_clustering_twice_is_refused_and_after_stripping_it_is_not():
    clustered = cluster_weights(classifier(), 8)
    with pytest.raises(ValueError, match="not clustered yet"):
        cluster_weights(clustered, 4)
    assert distinct(strip_clustering(cluster_weights(strip_clustering(clustered), 4))) == [4, 4, 4]


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_broken_weights_are_named(bad):
    model = classifier()
    kernel = kernels(model)[1]
    kernel[3, 4] = bad
    model.get_layer("second").kernel.assign(kernel)
    with pytest.raises(ValueError, match=r"second/kernel' contains NaN or infinite"):
        cluster_weights(model, 4)


def test_divergence_in_training_is_named():
    clustered = cluster_weights(classifier(), 4)
    kernel = clustered.get_layer("second").kernel
    kernel.assign(ops.full(kernel.shape, np.nan))
    with pytest.raises(ValueError, match=r"second/kernel.*diverged"):
        keras_mot.update_step(clustered, 10)


def test_a_weight_without_channels_cannot_be_clustered_by_them():
    model = MODELS["protocol"][0]()
    with pytest.raises(ValueError, match=re.escape("one value for each channel")):
        cluster_weights(model, 4, cluster_per_channel=True)
    cluster_weights(model, 4)


def test_batch_norms_that_a_converter_would_fold_are_warned_of():
    model = keras.Sequential(
        [layers.Input((6, 6, 3)), layers.Conv2D(8, 3, name="conv"), layers.BatchNormalization(name="norm")]
    )
    with pytest.warns(UserWarning, match=r"'norm' follows 'conv'.*fold_batch_norm"):
        cluster_weights(model, 4)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        cluster_weights(model, 4, cluster_per_channel=True)
        cluster_weights(keras_mot.graph.fold_batch_norm(model), 4)
