"""Settings beyond reason cost no more memory or time than reasonable ones; zeros are not lost without a word."""

import time
import warnings

import keras
import numpy as np
import pytest

from keras_mot.clustering import (
    CentroidInitialization,
    ClusteringConfig,
    DifferentiableKMeans,
    ExactKMeans,
    KMeansPlusPlus,
    Random,
    cluster_weights,
    clustering_report,
    strip_clustering,
)
from keras_mot.layers import transformed_weights
from keras_mot.sparsity import ConstantSparsity, prune_low_magnitude, strip_pruning, update_pruning_step
from tests.sparsity.models import batches, classifier, compiled, zeros

ABSURD = 10**9


@pytest.mark.parametrize("per_channel", [False, True])
@pytest.mark.parametrize("name", ["KMEANS", "LINEAR", "RANDOM", "DENSITY_BASED", "KMEANS_PLUS_PLUS"])
def test_more_clusters_than_weights(name, per_channel, tmp_path):
    model = classifier()
    settings = ClusteringConfig(ABSURD, getattr(CentroidInitialization, name), per_channel, frequency=ABSURD)
    clustered = compiled(cluster_weights(model, settings))
    sizes = [12, 20, 16] if per_channel else [240, 320, 48]
    assert [row.number_of_clusters for row in clustering_report(clustered).clustered] == sizes
    if name in ("KMEANS", "KMEANS_PLUS_PLUS"):  # each value is a centroid
        x = batches(1)[0]
        np.testing.assert_allclose(clustered.predict(x, verbose=0), model.predict(x, verbose=0), atol=1e-6)
    clustered.fit(*batches(1), batch_size=16, verbose=0)
    clustered.save(tmp_path / "m.keras")
    loaded = keras.models.load_model(tmp_path / "m.keras")
    assert clustering_report(loaded) == clustering_report(clustered)
    strip_clustering(loaded)


def test_more_clusters_than_weights_of_a_layer_that_is_built_later():
    layer = cluster_weights(keras.layers.Dense(3), ABSURD)
    layer.build((None, 2))
    assert transformed_weights(layer)[0].transforms[0].centroids.shape == (1, 6)


def test_a_weight_of_one_value():
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    stripped = strip_clustering(cluster_weights(model, ABSURD))
    np.testing.assert_array_equal(stripped.layers[0].kernel, model.layers[0].kernel)


def test_soft_codebooks_have_few_values():
    with pytest.raises(ValueError, match="up to 256 clusters; received 1000000000"):
        ClusteringConfig(ABSURD, method=DifferentiableKMeans())


@pytest.mark.parametrize("kind", [Random, KMeansPlusPlus])
@pytest.mark.parametrize("seed", [-1, 0.5, True, None])
def test_seeds(kind, seed):
    with pytest.raises(ValueError, match="`seed` should be an integer >= 0"):
        kind(seed)


@pytest.mark.parametrize("name", ["KMEANS", "LINEAR", "RANDOM", "DENSITY_BASED", "KMEANS_PLUS_PLUS"])
def test_many_clusters_take_seconds(name):
    """Some took minutes for as many: time grew with values x clusters."""
    values = np.random.default_rng(0).standard_normal(200_000).astype("float32")
    start = time.perf_counter()
    centroids = getattr(CentroidInitialization, name).centroids(values, 150_000)
    assert time.perf_counter() - start < 20
    assert 100_000 < len(centroids) <= 150_000
    assert np.abs(centroids).max() <= np.abs(values).max() + 1e-6


def test_entropy_stops_the_search_for_more_clusters():
    values = np.random.default_rng(0).standard_normal(1_000).astype("float32")
    few, many = (ExactKMeans(0.05).centroids(values, count) for count in (60, 900))
    np.testing.assert_allclose(few, many, atol=0.05)


def test_seeds_of_many_clusters_are_spread():
    """As many draws at once as there are seeds keep what k-means++ is for: values far out are drawn first."""
    values = np.append(np.random.default_rng(0).standard_normal(50_000), [100.0, -100.0, 300.0]).astype("float32")
    centroids = KMeansPlusPlus().centroids(values, 5_000)
    assert len(np.unique(centroids)) == 5_000
    assert {100.0, -100.0, 300.0} <= set(centroids)


def sparse_model(sparsity):
    pruned = prune_low_magnitude(classifier(), ConstantSparsity(sparsity))
    update_pruning_step(pruned, 0)
    return pruned


def warned_of_zeros(target, **settings):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        result = cluster_weights(target, 8, **settings)
    texts = [str(item.message) for item in caught if "preserve_sparsity=True" in str(item.message)]
    assert all(item.filename == __file__ for item in caught if "preserve_sparsity=True" in str(item.message))
    return texts, result


def test_zeros_that_would_be_lost_are_warned_of():
    pruned = sparse_model(0.7)
    stripped = strip_pruning(pruned)
    texts, lost = warned_of_zeros(stripped)
    assert len(texts) == 1
    assert texts[0].startswith("70% of 'first/kernel' is zero (and 2 more such weights)")
    compiled(lost).fit(*batches(2), batch_size=16, verbose=0)
    assert zeros(strip_clustering(lost)) == [0, 0, 0]
    texts, kept = warned_of_zeros(stripped, preserve_sparsity=True)  # the way out
    assert not texts
    compiled(kept).fit(*batches(2), batch_size=16, verbose=0)
    assert zeros(strip_clustering(kept)) == zeros(stripped)
    assert not warned_of_zeros(pruned)[0]
    texts, _ = warned_of_zeros(stripped, overrides={"first|second": None})
    assert texts[0].startswith("71% of 'head/kernel' is zero, ")


@pytest.mark.parametrize(("sparsity", "warned"), [(0.05, False), (0.15, True)])
def test_a_few_zeros_are_no_pruning(sparsity, warned):
    stripped = strip_pruning(sparse_model(sparsity))
    assert bool(warned_of_zeros(stripped)[0]) == warned
    assert bool(warned_of_zeros(list(stripped.layers))[0]) == warned
    assert bool(warned_of_zeros(stripped.layers[0])[0]) == warned
