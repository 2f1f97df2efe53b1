"""The exact one-dimensional k-means against brute force, and against scikit-learn's."""

import itertools

import numpy as np
import pytest
from sklearn.cluster import KMeans

from keras_mot.clustering._kmeans import kmeans_1d

pytestmark = pytest.mark.backend_independent


def squared_error(values, centroids):
    return ((values.reshape(-1, 1).astype("float64") - centroids) ** 2).min(axis=1).sum()


def best_error(values, clusters):
    """Over all partitions of the sorted values into intervals."""
    values = np.sort(values.astype("float64"))
    inner = range(1, len(values))
    cuts = itertools.chain.from_iterable(itertools.combinations(inner, n) for n in range(min(clusters, len(values))))
    return min(sum(((part - part.mean()) ** 2).sum() for part in np.split(values, cut)) for cut in cuts)


@pytest.mark.parametrize("seed", range(40))
def test_few_values_against_every_partition(seed):
    rng = np.random.default_rng(seed)
    values = np.round(rng.standard_normal(rng.integers(1, 10)), 1).astype("float32")
    clusters = int(rng.integers(1, 5))
    assert squared_error(values, kmeans_1d(values, clusters)) == pytest.approx(best_error(values, clusters), abs=1e-9)


DISTRIBUTIONS = {
    "normal": lambda rng, n: rng.standard_normal(n),
    "laplace": lambda rng, n: rng.laplace(size=n),
    "heavy tails": lambda rng, n: rng.standard_t(2, n),
    "two heaps far apart": lambda rng, n: rng.standard_normal(n) * 1e-3 + rng.choice([-100, 100], n),
    "nine in ten zero": lambda rng, n: rng.standard_normal(n) * (rng.random(n) < 0.1),
    "a grid": lambda rng, n: np.round(rng.standard_normal(n) * 40) / 40,
}


@pytest.mark.parametrize("clusters", [2, 16, 64])
@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_no_worse_than_scikit_learn(name, clusters):
    values = DISTRIBUTIONS[name](np.random.default_rng(0), 20_000).astype("float32")
    ours = kmeans_1d(values, clusters)
    assert len(ours) <= clusters
    theirs = KMeans(clusters, n_init=2, random_state=0).fit(values.reshape(-1, 1))
    # Rounding apart: both sum in their own order.
    assert squared_error(values, ours) <= squared_error(values, theirs.cluster_centers_.T) * (1 + 1e-6)


def test_fewer_different_values_than_clusters_are_found_exactly():
    values = np.array([[0.5, -1.0], [0.5, 3.0]], "float32")
    np.testing.assert_array_equal(kmeans_1d(values, 16), [-1.0, 0.5, 3.0])
    np.testing.assert_array_equal(kmeans_1d(np.full(5000, 0.25), 4), [0.25])


def test_hundreds_of_clusters_are_quick_and_good():
    values = np.random.default_rng(0).standard_normal(30_000).astype("float32")
    centroids = kmeans_1d(values, 300)
    assert 290 <= len(centroids) <= 300  # a few cells are empty
    theirs = KMeans(300, n_init=1, random_state=0).fit(values.reshape(-1, 1))
    assert squared_error(values, centroids) <= 1.01 * theirs.inertia_
    assert 2500 < len(kmeans_1d(values, 3000)) <= 3000


def test_values_beyond_the_cells_are_still_found():
    """One value makes up nearly all of the weight; the others are few, but more than there are cells."""
    rng = np.random.default_rng(1)
    values = np.zeros(400_000, "float32")
    values[:3000] = rng.standard_normal(3000) + 5
    centroids = kmeans_1d(values, 4)
    assert len(centroids) == 4
    theirs = KMeans(4, n_init=2, random_state=0).fit(values.reshape(-1, 1))
    assert squared_error(values, centroids) <= theirs.inertia_ * (1 + 1e-6)


@pytest.mark.parametrize("weight", [0.003, 0.05, 0.5])
@pytest.mark.parametrize("seed", range(10))
def test_entropy_against_every_partition(seed, weight):
    rng = np.random.default_rng(seed)
    values = np.round(rng.standard_normal(9), 1).astype("float32")
    ordered = np.sort(values.astype("float64"))

    def cost(parts):
        shares = np.array([len(part) for part in parts]) / len(values)
        bits = -(shares * np.log2(shares)).sum() * len(values)
        return sum(((part - part.mean()) ** 2).sum() for part in parts) + weight * ordered.var() * bits

    changes = np.flatnonzero(np.diff(ordered)) + 1  # equal values stay together
    cuts = itertools.chain.from_iterable(itertools.combinations(changes, n) for n in range(4))
    best = min((np.split(ordered, cut) for cut in cuts), key=cost)
    found = kmeans_1d(values, 4, weight)
    np.testing.assert_allclose(found, [part.mean() for part in best], rtol=1e-5, atol=1e-6)


def test_entropy_makes_better_use_of_many_values():
    """At the same entropy the error is less than that of k-means with fewer values."""
    values = np.random.default_rng(0).laplace(size=50_000).astype("float32")

    def error_and_entropy(centroids):
        nearest = np.abs(values[:, None] - centroids).argmin(1)
        shares = np.bincount(nearest) / len(values)
        shares = shares[shares > 0]
        return ((values - centroids[nearest]) ** 2).mean(), -(shares * np.log2(shares)).sum()

    plain = error_and_entropy(kmeans_1d(values, 16))
    constrained = error_and_entropy(kmeans_1d(values, 32, 0.015))
    assert constrained[1] < plain[1]
    assert constrained[0] < plain[0]
