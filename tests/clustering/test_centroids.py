"""The other initialisations against plain statements of what they are."""

import dataclasses

import keras
import numpy as np
import pytest

import keras_mot
from keras_mot.clustering import CentroidInitialization, ClusteringConfig, cluster_weights, clustering_report
from keras_mot.layers import transformed_weights

VALUES = np.random.default_rng(0).standard_normal(5000).astype("float32")


def test_linear_is_evenly_spaced_over_the_range():
    centroids = CentroidInitialization.LINEAR.centroids(VALUES, 5)
    np.testing.assert_allclose(np.diff(centroids), np.ptp(VALUES) / 4, rtol=1e-5)
    np.testing.assert_allclose(centroids[[0, -1]], [VALUES.min(), VALUES.max()])


def test_density_based_fills_clusters_evenly():
    centroids = CentroidInitialization.DENSITY_BASED.centroids(VALUES, 4)
    assert [int((centroid > VALUES).sum()) for centroid in centroids] == [625, 1875, 3125, 4375]


def test_random_lies_within_the_range_and_repeats():
    first, second = (CentroidInitialization.RANDOM.centroids(VALUES, 8) for _ in range(2))
    np.testing.assert_array_equal(first, second)
    assert VALUES.min() <= first.min() < first.max() <= VALUES.max()
    assert len(np.unique(first)) == 8


def test_kmeans_plus_plus_draws_distant_values():
    heaps = np.repeat([-50.0, 0.0, 1.0, 80.0], 1000).astype("float32")
    np.testing.assert_array_equal(np.sort(CentroidInitialization.KMEANS_PLUS_PLUS.centroids(heaps, 4)), [-50, 0, 1, 80])
    assert len(CentroidInitialization.KMEANS_PLUS_PLUS.centroids(heaps, 9)) == 4  # there are no more values


@keras.saving.register_keras_serializable("test_centroids")
@dataclasses.dataclass(frozen=True)
class Corners(keras_mot.Config, CentroidInitialization):
    """A user's own."""

    fraction: float = 1.0

    def centroids(self, values, count):
        return np.array([values.min(), values.max()]) * self.fraction


@pytest.mark.parametrize("name", ["KMEANS", "LINEAR", "RANDOM", "DENSITY_BASED", "KMEANS_PLUS_PLUS"])
def test_every_initialisation_in_a_model_survives_saving(name, tmp_path):
    model = keras.Sequential([keras.layers.Input((6,)), keras.layers.Dense(40)])
    clustered = cluster_weights(model, 5, cluster_centroids_init=getattr(CentroidInitialization, name))
    assert clustering_report(clustered).clustered[0].unique_values <= 5
    clustered.save(tmp_path / "m.keras")
    loaded = keras.models.load_model(tmp_path / "m.keras")
    assert (
        transformed_weights(loaded)[0].transforms[0].updater == transformed_weights(clustered)[0].transforms[0].updater
    )


def test_a_users_own_initialisation():
    model = keras.Sequential([keras.layers.Input((6,)), keras.layers.Dense(40)])
    kernel = keras.ops.convert_to_numpy(model.layers[0].kernel)
    clustered = cluster_weights(model, ClusteringConfig(4, initialization=Corners(0.5)))
    used = keras.ops.convert_to_numpy(transformed_weights(clustered)[0].effective_value())
    np.testing.assert_allclose(np.unique(used), [kernel.min() / 2, kernel.max() / 2], rtol=1e-6)


@pytest.mark.parametrize("inplace", [False, True])
def test_a_broken_initialisation_is_named_and_changes_nothing(inplace):
    model = keras.Sequential([keras.layers.Input((6,)), keras.layers.Dense(40)])
    with pytest.raises(ValueError, match=r"Corners\(fraction=nan\) should return 1 to 4 finite centroids"):
        cluster_weights(model, ClusteringConfig(4, initialization=Corners(float("nan"))), inplace=inplace)
    assert transformed_weights(model) == []
    assert type(model.layers[0]) is keras.layers.Dense
