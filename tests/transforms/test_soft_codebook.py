"""Differentiable k-means against its formulas, with gradients by finite differences."""

import numpy as np
import pytest
from keras import ops

from keras_mot.transforms import SoftCodebook, _soft_assignment
from keras_mot.transforms._soft_assignment import soft_values


def statement(weight, centroids, sharpness, skip_zeros=False):
    """The formulas of the docstring, in float64."""

    def attention(values, centers):
        logits = -sharpness * (values[:, None] - centers) ** 2
        share = np.exp(logits - logits.max(1, keepdims=True))
        return share / share.sum(1, keepdims=True)

    values = weight.reshape(-1).astype("float64")
    counted = values != 0 if skip_zeros else np.ones(values.shape, bool)
    share = attention(values, centroids) * counted[:, None]
    centers = (share * values[:, None]).sum(0) / share.sum(0)
    return (counted * (attention(values, centers) @ centers)).reshape(weight.shape)


def gradient(weight, upstream, centroids, sharpness, skip_zeros, backend):
    def loss(value):
        return ops.sum(upstream * soft_values(value, centroids, sharpness, skip_zeros))

    if backend == "tensorflow":
        import tensorflow as tf

        weight = tf.constant(weight)
        with tf.GradientTape() as tape:
            tape.watch(weight)
            result = loss(weight)
        return tape.gradient(result, weight).numpy()
    if backend == "jax":
        import jax

        return np.array(jax.grad(loss)(jax.numpy.array(weight)))
    import torch

    weight = torch.tensor(weight, requires_grad=True)
    loss(weight).backward()
    return weight.grad.numpy()


@pytest.mark.parametrize("skip_zeros", [False, True])
@pytest.mark.parametrize("tile", [2**16, 7])
def test_values_and_gradients(tile, skip_zeros, rng, backend, monkeypatch):
    monkeypatch.setattr(_soft_assignment, "_TILE", tile)
    weight, upstream = (rng.standard_normal((5, 6)).astype("float32") for _ in range(2))
    if skip_zeros:
        weight[rng.random((5, 6)) < 0.4] = 0
    centroids, sharpness = np.array([-0.8, 0.1, 1.0], "float32"), np.float32(2.5)
    used = ops.convert_to_numpy(
        soft_values(ops.convert_to_tensor(weight), ops.convert_to_tensor(centroids), sharpness, skip_zeros)
    )
    np.testing.assert_allclose(used, statement(weight, centroids, 2.5, skip_zeros), rtol=1e-4, atol=1e-5)
    found = gradient(
        weight,
        ops.convert_to_tensor(upstream),
        ops.convert_to_tensor(centroids),
        ops.convert_to_tensor(sharpness),
        skip_zeros,
        backend,
    )
    expected = np.zeros(weight.shape)
    for place in np.ndindex(weight.shape):
        if skip_zeros and weight[place] == 0:
            continue
        values = []
        for sign in (1, -1):
            moved = weight.astype("float64")
            moved[place] += sign * 1e-5
            values.append((upstream * statement(moved, centroids, 2.5, skip_zeros)).sum())
        expected[place] = (values[0] - values[1]) / 2e-5
    np.testing.assert_allclose(found, expected, rtol=2e-3, atol=2e-4)


def test_a_centroid_without_weights_stays():
    weight = ops.convert_to_tensor(np.array([0.0, 0.1, 0.2], "float32"))
    values = soft_values(weight, ops.convert_to_tensor(np.array([0.1, 50.0], "float32")), np.float32(10.0))
    np.testing.assert_allclose(ops.convert_to_numpy(values), [0.1] * 3, rtol=1e-5)


def test_freezing_snaps_to_the_nearest():
    codebook = SoftCodebook(3, preserve_zeros=True)
    codebook.build((6,))
    codebook.assign([0.0, -1.0, 1.0])
    weight = np.array([0.0, -1.2, -0.8, 0.9, 1.1, 0.0], "float32")
    codebook.assign_nearest(weight)
    frozen = ops.convert_to_numpy(codebook.freeze(ops.convert_to_tensor(weight)))
    np.testing.assert_allclose(frozen, [0, -1, -1, 1, 1, 0], rtol=1e-6)
    assert codebook.unique_values() == 3
    with pytest.raises(ValueError, match="0 as the first entry"):
        codebook.assign([0.5, -1.0, 1.0])
