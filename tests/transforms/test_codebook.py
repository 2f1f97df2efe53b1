"""The codebook by itself: values, gradients, packing, storage."""

import keras
import numpy as np
import pytest
from keras import ops

from keras_mot.layers import WeightAxes
from keras_mot.transforms import Codebook, SoftCodebook
from keras_mot.transforms._lookup import digits_per_code
from keras_mot.transforms.palette import nearest, pack, unpack


def built(shape, entries, axes=None, **settings):
    codebook = Codebook(entries, **settings)
    codebook.axes = axes
    codebook.build(shape)
    return codebook


def gradients(codebook, weight, upstream, backend):
    """Gradients of sum(upstream * codebook(weight)) for the centroids and the weight."""
    if backend == "tensorflow":
        import tensorflow as tf

        weight = tf.Variable(weight)
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(upstream * codebook.call(tf.convert_to_tensor(weight)))
        return [np.array(g) for g in tape.gradient(loss, [codebook.centroids.value, weight])]
    if backend == "torch":
        import torch

        weight = torch.tensor(weight, requires_grad=True)
        codebook.centroids.value.grad = None
        (torch.tensor(upstream) * codebook.call(weight)).sum().backward()
        return [codebook.centroids.value.grad.numpy(), weight.grad.numpy()]
    import jax

    def loss(centroids, weight):
        with keras.StatelessScope([(codebook.centroids, centroids)]):
            return (upstream * codebook.call(weight)).sum()

    return [np.array(g) for g in jax.grad(loss, (0, 1))(codebook.centroids.value, jax.numpy.array(weight))]


# Shapes with and without a remainder, entries that give 1 to 8 assignments to a code.
@pytest.mark.parametrize("average", [True, False])
@pytest.mark.parametrize(
    ("shape", "entries"), [((3, 4), 2), ((40, 50), 2), ((7, 11, 13), 3), ((64, 129), 16), ((90, 91), 32), ((5, 7), 300)]
)
def test_values_and_gradients_against_numpy(shape, entries, average, rng, backend):
    codebook = built(shape, entries, average_gradient=average)
    palette = rng.standard_normal(entries).astype("float32")
    assignments = rng.integers(0, entries, shape)
    codebook.assign(palette, assignments)
    weight, upstream = (rng.standard_normal(shape).astype("float32") for _ in range(2))
    np.testing.assert_array_equal(
        ops.convert_to_numpy(codebook.call(ops.convert_to_tensor(weight))), palette[assignments]
    )
    np.testing.assert_array_equal(codebook.assignments(), assignments)

    members = np.bincount(assignments.reshape(-1), minlength=entries)
    sums = np.bincount(assignments.reshape(-1), upstream.reshape(-1), minlength=entries)
    expected = sums / np.maximum(members, 1) if average else sums
    of_centroids, of_weight = gradients(codebook, weight, upstream, backend)
    np.testing.assert_allclose(of_centroids, expected[None], rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(of_weight, upstream)


@pytest.mark.parametrize("channels_last", [True, False])
def test_channels_have_values_of_their_own(channels_last, rng, backend):
    shape = (4, 5, 3) if channels_last else (3, 4, 5)
    axes = WeightAxes((0, 1), (2,)) if channels_last else WeightAxes((1, 2), (0,))
    codebook = built(shape, 3, axes, per_channel=True)
    weight = rng.standard_normal(shape).astype("float32")
    palette = np.sort(rng.standard_normal((3, 3)).astype("float32"))
    codebook.assign(palette, np.zeros(shape, int))
    codebook.assign_nearest(weight)
    channels = np.moveaxis(weight, -1, 0) if channels_last else weight
    expected = np.stack(
        [p[np.abs(channel[..., None] - p).argmin(-1)] for channel, p in zip(channels, palette, strict=True)],
        axis=-1 if channels_last else 0,
    )
    np.testing.assert_array_equal(ops.convert_to_numpy(codebook.call(ops.convert_to_tensor(weight))), expected)
    assert codebook.unique_values() == len(np.unique(expected))
    of_centroids, _ = gradients(codebook, weight, np.ones(shape, "float32"), backend)
    used = np.array(
        [
            [np.any(channel == value) for value in p]
            for channel, p in zip(np.moveaxis(expected, -1 if channels_last else 0, 0), palette, strict=True)
        ]
    )
    np.testing.assert_allclose(of_centroids, used.astype(float))  # the mean of ones


def test_zeros_are_zero_and_nothing_else_is(rng, backend):
    codebook = built((30, 40), 4, preserve_zeros=True)
    weight = rng.standard_normal((30, 40)).astype("float32") * (rng.random((30, 40)) < 0.5)
    codebook.assign([0.0, -1.0, 1e-3, 1.0], np.zeros((30, 40), int))
    codebook.assign_nearest(weight)
    used = ops.convert_to_numpy(codebook.call(ops.convert_to_tensor(weight)))
    np.testing.assert_array_equal(used == 0, weight == 0)
    assert codebook.centroids.shape == (1, 3)  # zero is no parameter, so that no optimizer moves it
    with pytest.raises(ValueError, match="0 as the first entry"):
        codebook.assign([0.5, -1.0, 0.1, 1.0], np.zeros((30, 40), int))
    with pytest.raises(ValueError, match=r"shape \(1, 4\)"):
        codebook.assign(np.zeros((2, 4)), np.zeros((30, 40), int))


@pytest.mark.parametrize(("entries", "digits"), [(2, 8), (3, 5), (16, 4), (5, 1), (1000, 1), (256, 2)])
def test_packing_is_undone_by_unpacking(entries, digits, rng):
    assignments = rng.integers(0, entries, 1003)
    codes = pack(assignments, entries, digits)
    assert len(codes) == -(-1003 // digits)
    assert codes.max() < entries**digits
    np.testing.assert_array_equal(unpack(codes, entries, digits, 1003), assignments)


def test_codes_are_as_many_as_a_small_table_allows():
    assert digits_per_code(16, 3136 * 1024) == 4
    assert digits_per_code(32, 3136 * 1024) == 2  # 3 would leave a remainder
    assert digits_per_code(256, 3136 * 1024) == 2
    assert digits_per_code(1000, 3136 * 1024) == 1
    assert digits_per_code(16, 800) == 1  # a table of 256 rows for 400 codes is no saving
    assert digits_per_code(2, 1) == 1


def test_nearest_against_the_definition(rng):
    values, palette = rng.standard_normal(2000).astype("float32"), rng.standard_normal(7).astype("float32")
    np.testing.assert_array_equal(nearest(values, palette), np.abs(values[:, None] - palette).argmin(1))


@pytest.mark.parametrize("entries", [2, 16, 255, 1000])
def test_nearest_of_many_values(entries, rng):
    """Many values are looked up by half of their bits: as a search through the borders, ties and zeros included."""
    values = rng.standard_normal((600, 500)).astype("float32")
    palette = rng.choice(values.reshape(-1), entries, replace=False)
    borders = np.sort(palette.astype("float64"))
    borders = ((borders[1:] + borders[:-1]) / 2).astype("float32")
    values.reshape(-1)[: len(borders)] = borders
    values[-1, -4:] = [0.0, -0.0, 1e-42, -1e30]
    expected = np.argsort(palette, kind="stable")[np.searchsorted(borders, values)]
    np.testing.assert_array_equal(nearest(values, palette), expected)
    np.testing.assert_array_equal(nearest(values.T, palette), expected.T)


def test_state_is_half_a_byte_per_weight_for_16_values():
    codebook = built((1024, 512), 16)
    assert codebook.codes.dtype == "uint16"
    assert tuple(codebook.codes.shape) == (1024 * 512 // 4,)


@pytest.mark.parametrize("kind", [Codebook, SoftCodebook])
def test_a_wrong_number_of_clusters_is_refused(kind):
    for value in ("a", 1.5, True, None):
        with pytest.raises(TypeError, match="`number_of_clusters` should be an integer"):
            kind(value)
    for value in (0, -3):
        with pytest.raises(ValueError, match="at least 1"):
            kind(value)
