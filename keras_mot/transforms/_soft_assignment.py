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
    shape, size = tuple(weight.shape), math.prod(weight.shape)
    tile = min(size, _TILE)
    padding = -size % tile

    def tiles_of(value):
        value = ops.reshape(ops.cast(value, "float32"), (-1,))
        if padding:
            value = ops.pad(value, [[0, padding]])
        return ops.reshape(value, (-1, tile))

    def join(tiles):
        return ops.reshape(ops.reshape(tiles, (-1,))[:size], shape)

    counted = tiles_of(ops.ones(shape) if not skip_zeros else ops.cast(ops.not_equal(weight, 0), "float32"))

    def attention(values, centers):
        logits = -sharpness * ops.square(values[:, None] - centers)
        return ops.softmax(logits, axis=-1)

    def moved(tiles):
        """The centroids after an iteration, and how much weight each holds."""

        def sums(item):
            share = attention(item[0], centroids) * item[1][:, None]
            return ops.stack([ops.sum(share, axis=0), ops.sum(share * item[0][:, None], axis=0)])

        mass, total = ops.unstack(ops.sum(ops.map(sums, (tiles, counted)), axis=0), 2)
        used = mass > keras.config.epsilon()
        return ops.where(used, total / ops.where(used, mass, 1.0), centroids), mass, used

    @ops.custom_gradient
    def read(weight):
        tiles = tiles_of(weight)
        centers, mass, used = moved(tiles)

        def mix(item):
            return item[1] * ops.sum(attention(item[0], centers) * centers, axis=-1)

        def gradients(*args, upstream=None):
            upstream = args[-1] if upstream is None else upstream
            upstreams = tiles_of(upstream) * counted

            def of_centers(item):
                values, above = item
                share = attention(values, centers)
                mixed = ops.sum(share * centers, axis=-1, keepdims=True)
                slope = 1.0 + 2.0 * sharpness * (values[:, None] - centers) * (centers - mixed)
                return ops.sum(above[:, None] * share * slope, axis=0)

            total = ops.sum(ops.map(of_centers, (tiles, upstreams)), axis=0)
            per_mass = ops.where(used, total / ops.where(used, mass, 1.0), 0.0)

            def of_weights(item):
                values, above, count = item
                share = attention(values, centers)
                mixed = ops.sum(share * centers, axis=-1)
                variance = ops.sum(share * ops.square(centers - mixed[:, None]), axis=-1)
                before = attention(values, centroids)
                mean = ops.sum(before * centroids, axis=-1, keepdims=True)
                slope = 1.0 + 2.0 * sharpness * (values[:, None] - centers) * (centroids - mean)
                through_centers = ops.sum(per_mass * before * slope, axis=-1)
                return 2.0 * sharpness * above * variance + count * through_centers

            result = join(ops.map(of_weights, (tiles, upstreams, counted)))
            return ops.cast(result, weight.dtype)

        return ops.cast(join(ops.map(mix, (tiles, counted))), weight.dtype), gradients

    return read(weight)
