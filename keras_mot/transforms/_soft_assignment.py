"""Differentiable k-means of one weight: values, and gradients worked out by hand, tile by tile.

Automatic differentiation would keep arrays of weights x centroids. Here only one tile of weights at a time is set
against all centroids, forwards and backwards.
"""

import math

import keras
from keras import ops

_TILE = 2**16


def soft_values(weight, centroids, sharpness, skip_zeros=False):
    """The attention of each weight over centroids that follow the weights by one soft iteration of k-means.

    With a(w, c) = softmax over k of -sharpness * (w - c_k)^2, new centroids are c'_k = sum_i a(w_i, c)_k w_i /
    sum_i a(w_i, c)_k, and the result is sum_k a(w_i, c')_k c'_k. The gradient of `weight` is that of the whole
    expression; `centroids` are where the iteration starts from, and get none (Cho et al., 2022, "DKM: Differentiable
    K-Means Clustering Layer for Neural Network Compression", arXiv:2108.12659, with the last iteration alone
    differentiated).

    Args:
        weight: float tensor.
        centroids: float tensor of shape (count,).
        sharpness: float tensor of shape (): 1 / temperature.
        skip_zeros: whether weights that are 0 stay 0, and count for no centroid.

    Returns:
        A tensor of the shape and dtype of `weight`.
    """
    tiling = _Tiling(tuple(weight.shape))
    counts = ops.cast(ops.not_equal(weight, 0), "float32") if skip_zeros else ops.ones(tuple(weight.shape))
    counted = tiling.split(counts)

    @ops.custom_gradient
    def read(weight):
        tiles = tiling.split(weight)
        centers, per_mass = _moved(tiles, counted, centroids, sharpness)

        def mix(item):
            return item[1] * ops.sum(_attention(item[0], centers, sharpness) * centers, axis=-1)

        def gradients(*args, upstream=None):
            upstream = args[-1] if upstream is None else upstream
            above = tiling.split(upstream) * counted
            result = _gradient(tiles, above, counted, centers, centroids, per_mass, sharpness)
            return ops.cast(tiling.join(result), weight.dtype)

        return ops.cast(tiling.join(ops.map(mix, (tiles, counted))), weight.dtype), gradients

    return read(weight)


class _Tiling:
    """Cuts a tensor of `shape` into tiles of equal length, the last one filled up with zeros, and joins them again."""

    def __init__(self, shape):
        self._shape, self._size = shape, math.prod(shape)
        self._tile = min(self._size, _TILE)

    def split(self, value):
        value = ops.reshape(ops.cast(value, "float32"), (-1,))
        padding = -self._size % self._tile
        if padding:
            value = ops.pad(value, [[0, padding]])
        return ops.reshape(value, (-1, self._tile))

    def join(self, tiles):
        return ops.reshape(ops.reshape(tiles, (-1,))[: self._size], self._shape)


def _attention(values, centers, sharpness):
    return ops.softmax(-sharpness * ops.square(values[:, None] - centers), axis=-1)


def _moved(tiles, counted, centroids, sharpness):
    """The centroids after an iteration, and 1 / (how much weight each holds), or 0 for those that hold none."""

    def sums(item):
        share = _attention(item[0], centroids, sharpness) * item[1][:, None]
        return ops.stack([ops.sum(share, axis=0), ops.sum(share * item[0][:, None], axis=0)])

    mass, total = ops.unstack(ops.sum(ops.map(sums, (tiles, counted)), axis=0), 2)
    used = mass > keras.config.epsilon()
    per_mass = ops.where(used, 1.0 / ops.where(used, mass, 1.0), 0.0)
    return ops.where(used, total * per_mass, centroids), per_mass


def _gradient(tiles, above, counted, centers, centroids, per_mass, sharpness):
    """The gradient of the weights: through the mixtures, and through the centroids."""

    def of_centers(item):
        values, above = item
        share = _attention(values, centers, sharpness)
        mixed = ops.sum(share * centers, axis=-1, keepdims=True)
        slope = 1.0 + 2.0 * sharpness * (values[:, None] - centers) * (centers - mixed)
        return ops.sum(above[:, None] * share * slope, axis=0)

    into_centers = ops.sum(ops.map(of_centers, (tiles, above)), axis=0) * per_mass

    def of_weights(item):
        values, above, count = item
        share = _attention(values, centers, sharpness)
        mixed = ops.sum(share * centers, axis=-1)
        variance = ops.sum(share * ops.square(centers - mixed[:, None]), axis=-1)
        before = _attention(values, centroids, sharpness)
        mean = ops.sum(before * centroids, axis=-1, keepdims=True)
        slope = 1.0 + 2.0 * sharpness * (values[:, None] - centers) * (centroids - mean)
        through_centers = ops.sum(into_centers * before * slope, axis=-1)
        return 2.0 * sharpness * above * variance + count * through_centers

    return ops.map(of_weights, (tiles, above, counted))
