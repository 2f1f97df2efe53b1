"""The time of exact one-dimensional k-means, and its error beside scikit-learn's.

python benchmarks/kmeans.py
"""

import statistics
import sys
import time

import numpy as np
from _common import Table, environment, write_results
from _common import parser as common_parser


def squared_error(values, centroids):
    centroids = np.sort(centroids.reshape(-1))
    nearest = centroids[np.searchsorted((centroids[1:] + centroids[:-1]) / 2, values)]
    return float(((values.astype("float64") - nearest) ** 2).sum())


def main():
    parser = common_parser(__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, default=25_000_000)
    parser.add_argument("--clusters", type=int, nargs="+", default=[16, 64])
    parser.add_argument("--compared", type=int, default=200_000, help="weights of the comparison with scikit-learn")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.size, arguments.compared = 1_000_000, 20_000
    from sklearn.cluster import KMeans

    from keras_mot.clustering import CentroidInitialization

    generator = np.random.default_rng(0)
    large = generator.standard_normal(arguments.size).astype("float32")
    small = generator.laplace(size=arguments.compared).astype("float32")
    table = Table(
        f"Exact k-means of {arguments.size:,} weights, and of {arguments.compared:,} beside scikit-learn's KMeans",
        ("clusters", "seconds (median of 3)", "error / scikit-learn's", "scikit-learn, seconds"),
        notes=("Targets: at most 3 s at 64 clusters; error at most scikit-learn's (n_init=3).",),
    )
    rows = []
    for clusters in arguments.clusters:
        seconds = []
        for _ in range(3):
            started = time.perf_counter()
            CentroidInitialization.KMEANS.centroids(large, clusters)
            seconds.append(time.perf_counter() - started)
        ours = squared_error(small, CentroidInitialization.KMEANS.centroids(small, clusters))
        started = time.perf_counter()
        theirs = KMeans(clusters, n_init=3, random_state=0).fit(small.reshape(-1, 1))
        peer_seconds = time.perf_counter() - started
        ratio = ours / squared_error(small, theirs.cluster_centers_)
        rows.append({"clusters": clusters, "seconds": seconds, "error_ratio": ratio, "peer_seconds": peer_seconds})
        table.add(clusters, f"{statistics.median(seconds):.2f}", f"{ratio:.4f}", f"{peer_seconds:.2f}")
    write_results(arguments, "kmeans", {"environment": environment("none"), "rows": rows}, [table])


if __name__ == "__main__":
    sys.exit(main())
