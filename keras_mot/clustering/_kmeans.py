"""One-dimensional k-means by dynamic programming: the optimum, not the local one of Lloyd's iterations.

In one dimension, clusters are intervals of the sorted values, and the best partition of the first values into k
intervals follows from that into k - 1 (Wang and Song, 2011, "Ckmeans.1d.dp", The R Journal 3/2). Up to
`MAX_CELLS` different values the result is the optimum. More values are first gathered in cells, no cluster border may
lie within a cell, and Lloyd's iterations over the values themselves then move the borders. Cells hold equal
shares of the cube root of the density, as the optimal quantizer of many levels would (Panter and Dite, 1951).
"""

import numpy as np

MAX_CELLS = 2048
_LLOYD_ITERATIONS = 100


def kmeans_1d(values, clusters):
    """The centroids with the least sum of squared distances between values and nearest centroid.

    Args:
        values: float array of any shape, not empty, finite.
        clusters: how many centroids to find, at least 1.

    Returns:
        float64 array, sorted, of `clusters` centroids, or fewer if there are fewer different values.
    """
    values = np.sort(np.asarray(values, "float32").reshape(-1))
    cells = min(MAX_CELLS, max(512, 16 * clusters))
    starts = _cell_starts(values, cells)
    # Around the middle, so that differences of sums keep their digits.
    middle = float(values[len(values) // 2])
    sums = _Sums(values, middle)
    if len(starts) <= clusters:
        return middle + sums.means(starts, np.append(starts[1:], len(values)))
    borders = _best_borders(sums, np.append(starts, len(values)), clusters)
    centroids = sums.means(borders[:-1], borders[1:])
    if len(starts) == cells:
        centroids = _lloyd(values, middle, sums, centroids)
    return middle + centroids


class _Sums:
    """Sums of sorted values, less `middle`, and of their squares, over any interval of positions."""

    def __init__(self, values, middle):
        self.first = np.zeros(len(values) + 1)
        np.subtract(values, middle, out=self.first[1:], dtype="float64")
        self.scale = max(-self.first[1], self.first[-1]) or 1.0
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


def _cell_starts(values, cells):
    """Positions of sorted `values` where cells begin: at each different value, if they are few enough."""
    changes = np.flatnonzero(values[1:] != values[:-1]) + 1
    starts = np.concatenate([[0], changes])
    if len(starts) <= cells:
        return starts
    # The density is that of a histogram with as many different values in each of its bins.
    positions = starts[np.linspace(0, len(starts) - 1, 8 * cells).astype(int)]
    points = values[positions].astype("float64")
    widths = np.diff(points)
    shares = np.cumsum(np.cbrt(np.diff(positions) * widths**2))
    targets = shares[-1] * np.arange(1, cells) / cells
    bins = np.searchsorted(shares, targets)
    before = np.where(bins > 0, shares[bins - 1], 0)
    inside = (targets - before) / np.maximum(shares[bins] - before, np.finfo(float).tiny)
    borders = (points[bins] + inside * widths[bins]).astype("float32")
    # A border falls on the first of equal values, and empty cells go.
    return np.unique(np.concatenate([[0], np.searchsorted(values, borders)]))


def _best_borders(sums, positions, clusters):
    """Positions of the borders of the best clusters, whose borders may lie at `positions` only."""
    first, second = sums.first[positions], sums.second_at(positions)
    counts = positions.astype("float64")
    with np.errstate(divide="ignore", invalid="ignore"):
        # cost[j, i]: squared distances of the values between positions i and j to their mean
        cost = second[:, None] - second - (first[:, None] - first) ** 2 / (counts[:, None] - counts)
    cost[np.triu_indices(len(positions))] = np.inf
    best, choices = cost[:, 0].copy(), []
    best[0] = np.inf
    for _ in range(clusters - 1):
        total = cost + best
        choice = total.argmin(axis=1)
        best = total[np.arange(len(positions)), choice]
        choices.append(choice)
    borders = [len(positions) - 1]
    for choice in reversed(choices):
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
