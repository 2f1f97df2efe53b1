"""One-dimensional k-means by dynamic programming: the optimum, not the local one of Lloyd's iterations.

In one dimension, clusters are intervals of the sorted values, and the best partition of the first values into k
intervals follows from that into k - 1 (Wang and Song, 2011, "Ckmeans.1d.dp", The R Journal 3/2). Up to
512 different values (16 for each cluster, if that is more, and 2048 at most) the result is the optimum. More values are
first gathered in that many cells, whose borders alone may be borders of clusters. Smaller cells around the borders
that were found then refine them, and Lloyd's iterations over the values themselves come last. Half of the cells hold
equal shares of the cube root of the density, as the optimal quantizer of many levels would (Panter and Dite, 1951); the
others hold equally many different values. Above 128 clusters Lloyd's iterations start from cells by density alone.
"""

import numpy as np

MAX_CELLS = 2048
MAX_OPTIMAL = 128
_LLOYD_ITERATIONS = 100


def kmeans_1d(values, clusters, entropy_weight=0.0):
    """The centroids with the least sum of squared distances between values and nearest centroid.

    Args:
        values: float array of any shape, not empty, finite.
        clusters: how many centroids to find, at least 1.
        entropy_weight: squared error, in variances of the values, that a bit per value is worth. Above 0,
            the sum of squared distances and entropy is minimised (entropy-constrained quantization: Chou, Lookabaugh
            and Gray, 1989), and there may be fewer centroids.

    Returns:
        float64 array, sorted, of `clusters` centroids, or fewer if there are fewer different values.
    """
    values = np.sort(np.asarray(values, "float32").reshape(-1))
    starts = np.append(0, np.flatnonzero(values[1:] != values[:-1]) + 1)  # of different values
    if len(starts) <= clusters and not entropy_weight:
        return values[starts].astype("float64")
    # Around the middle, so that differences of sums keep their digits.
    middle = float(values[len(values) // 2])
    sums = _Sums(values, middle)
    if clusters > MAX_OPTIMAL and not entropy_weight:
        borders = np.append(_density_cells(values, starts, clusters), len(values))
        return middle + _lloyd(values, middle, sums, sums.means(borders[:-1], borders[1:]))
    cells = min(MAX_CELLS, max(512, 16 * clusters))
    exact = len(starts) <= cells
    positions = np.append(starts if exact else _cells(values, starts, cells), len(values))
    bit_price = entropy_weight * float(np.var(values, dtype="float64"))
    borders = _best_borders(sums, positions, clusters, bit_price)
    if not exact:
        borders = _best_borders(sums, _around(values, positions, borders, cells), clusters, bit_price)
    centroids = sums.means(borders[:-1], borders[1:])
    if not exact and not bit_price:
        centroids = _lloyd(values, middle, sums, centroids)
    return middle + centroids


class _Sums:
    """Sums of sorted values, less `middle`, and of their squares, over any interval of positions."""

    def __init__(self, values, middle):
        self.first = np.zeros(len(values) + 1)
        np.subtract(values, middle, out=self.first[1:], dtype="float64")
        self.first[1:].cumsum(out=self.first[1:])
        self._values, self._middle = values, middle

    def means(self, starts, ends):
        return (self.first[ends] - self.first[starts]) / (ends - starts)

    def second_at(self, positions):
        """Sums of squares up to `positions`, which are sorted and begin with 0."""
        result = np.zeros(len(positions))
        for index in range(1, len(positions)):
            part = self._values[positions[index - 1] : positions[index]].astype("float64") - self._middle
            result[index] = result[index - 1] + np.dot(part, part)
        return result


def _cells(values, starts, cells):
    """Positions where cells begin: half of them by density, half with equally many different values."""
    even = starts[np.linspace(0, len(starts) - 1, cells // 2).astype(int)]
    return np.unique(np.concatenate([even, _density_cells(values, starts, cells // 2)]))


def _density_cells(values, starts, cells):
    """Positions of sorted `values` where cells begin that hold equal shares of the cube root of the density.

    The density is that of a histogram with as many different values in each of its bins. A value that is there many
    times, such as zero, counts once: it needs no more than a cell of its own.
    """
    chosen = np.linspace(0, len(starts) - 1, min(8 * cells, len(starts))).astype(int)
    points = values[starts[chosen]].astype("float64")
    widths = np.diff(points)
    shares = np.cumsum(np.cbrt(np.diff(chosen) * widths**2))
    targets = shares[-1] * np.arange(1, cells) / cells
    bins = np.searchsorted(shares, targets)
    before = np.where(bins > 0, shares[bins - 1], 0)
    inside = (targets - before) / np.maximum(shares[bins] - before, np.finfo(float).tiny)
    borders = (points[bins] + inside * widths[bins]).astype("float32")
    # A border falls on the first of equal values, and empty cells go.
    return np.unique(np.append(0, np.searchsorted(values, borders)))


def _around(values, positions, borders, cells):
    """Positions of smaller cells: those next to each border, divided."""
    inner = borders[1:-1]
    where = np.searchsorted(positions, inner)
    parts = max(2, cells // max(len(inner), 1))
    finer = np.linspace(positions[where - 1], positions[np.minimum(where + 1, len(positions) - 1)], parts + 1)
    finer = np.minimum(finer.astype(int).reshape(-1), len(values) - 1)
    finer = np.searchsorted(values, values[finer])  # on the first of equal values
    return np.unique(np.concatenate([[0], finer, borders]))


def _best_borders(sums, positions, clusters, bit_price):
    """Positions of the borders of the best clusters, whose borders may lie at `positions` only.

    Each bit of entropy counts as `bit_price`; if that is not 0, there may be fewer clusters.
    """
    first, second = sums.first[positions], sums.second_at(positions)
    counts = positions.astype("float64")
    with np.errstate(divide="ignore", invalid="ignore"):
        # cost[j, i]: squared distances of the values between positions i and j to their mean
        lengths = counts[:, None] - counts
        cost = second[:, None] - second - (first[:, None] - first) ** 2 / lengths
        if bit_price:
            cost -= bit_price * lengths * np.log2(lengths / counts[-1])
    cost[np.triu_indices(len(positions))] = np.inf
    best, choices = cost[:, 0].copy(), []
    best[0] = np.inf
    totals = [best[-1]]
    for _ in range(min(clusters, len(positions) - 1) - 1):
        total = cost + best
        choice = total.argmin(axis=1)
        best = total[np.arange(len(positions)), choice]
        choices.append(choice)
        totals.append(best[-1])
        if bit_price and len(totals) - int(np.argmin(totals)) > MAX_OPTIMAL:
            break  # so many more clusters have only cost bits
    fewer = int(np.argmin(totals)) if bit_price else len(choices)
    borders = [len(positions) - 1]
    for choice in reversed(choices[:fewer]):
        borders.append(int(choice[borders[-1]]))
    return positions[np.array([0, *borders[::-1]])]


def _lloyd(values, middle, sums, centroids):
    """Lloyd's iterations over the sorted values, from centroids less `middle`, until no border moves."""
    previous = None
    for _ in range(_LLOYD_ITERATIONS):
        inner = (centroids[:-1] + centroids[1:]) / 2 + middle
        borders = np.concatenate([[0], np.searchsorted(values, inner.astype("float32")), [len(values)]])
        borders = np.unique(borders)  # an empty cluster goes
        if previous is not None and np.array_equal(borders, previous):
            break
        centroids, previous = sums.means(borders[:-1], borders[1:]), borders
    return centroids
