"""Units of pruning against plain NumPy statements of them."""

import numpy as np
import pytest

from keras_mot.layers import WeightAxes
from keras_mot.sparsity import Block, Channel, Element, NofM
from keras_mot.sparsity.granularity import from_matrices, to_matrices

pytestmark = pytest.mark.backend_independent

DENSE = WeightAxes((0,), (1,))
CONV = WeightAxes((2,), (3,))
TRANSPOSED_CONV = WeightAxes((3,), (2,))
DEPTHWISE = WeightAxes((0, 1), (2, 3))


@pytest.mark.parametrize(
    ("shape", "axes"),
    [
        ((6, 8), DENSE),
        ((3, 2, 4, 8), CONV),
        ((3, 2, 4, 8), TRANSPOSED_CONV),
        ((3, 3, 4, 2), DEPTHWISE),
        ((5,), WeightAxes((), (0,))),
    ],
)
def test_the_matrix_view_is_undone(shape, axes, rng):
    weight = rng.random(shape)
    matrices = to_matrices(weight, axes)
    np.testing.assert_array_equal(from_matrices(matrices, shape, axes), weight)


def test_the_matrix_view_of_a_convolution_has_one_matrix_per_position(rng):
    kernel = rng.random((3, 2, 4, 8))
    np.testing.assert_array_equal(to_matrices(kernel, CONV)[5], kernel[2, 1])


@pytest.mark.parametrize(("pooling", "reduce"), [("AVG", np.mean), ("MAX", np.max)])
@pytest.mark.parametrize("size", [(1, 2), (2, 2), (4, 1), (2, 3)])
def test_block_scores_pool_each_block(size, pooling, reduce, rng):
    scores = rng.random((6, 7)).astype("float32")
    units = Block(size, pooling).unit_scores(scores, DENSE)
    for row in range(units.shape[1]):
        for column in range(units.shape[2]):
            block = scores[row * size[0] : (row + 1) * size[0], column * size[1] : (column + 1) * size[1]]
            assert units[0, row, column] == pytest.approx(reduce(block), rel=1e-6)


def test_whole_blocks_of_a_convolution_kernel_are_zero(rng):
    scores = rng.random((3, 3, 4, 8)).astype("float32")
    block = Block((1, 2))
    mask = block.expand(block.select(block.unit_scores(scores, CONV), 0.75), scores.shape, CONV)
    pairs = mask.reshape(3, 3, 4, 4, 2)
    assert (pairs[..., 0] == pairs[..., 1]).all()
    assert np.count_nonzero(~mask) == 0.75 * mask.size


@pytest.mark.parametrize(("shape", "axes"), [((8, 6), DENSE), ((3, 3, 8, 6), CONV), ((3, 3, 6, 8), TRANSPOSED_CONV)])
def test_n_of_m_keeps_the_largest_of_each_group_of_inputs(shape, axes, rng):
    scores = rng.random(shape).astype("float32")
    pattern = NofM(2, 4)
    mask = pattern.expand(pattern.select(pattern.unit_scores(scores, axes), 0.9), shape, axes)
    groups = to_matrices(mask, axes).reshape(-1, 2, 4, 6)
    values = to_matrices(scores, axes).reshape(-1, 2, 4, 6)
    assert (groups.sum(axis=2) == 2).all()
    assert (np.where(groups, values, np.inf).min(axis=2) > np.where(groups, -np.inf, values).max(axis=2)).all()


def test_n_of_m_breaks_ties_by_position():
    pattern = NofM(3, 4)
    mask = pattern.select(pattern.unit_scores(np.ones((8, 1), "float32"), DENSE), 0)
    assert mask.reshape(-1).tolist() == [True, False, False, False] * 2


def test_channels_are_ranked_by_their_root_mean_square():
    scores = np.stack([np.full((3, 3, 2), s) for s in (3.0, 1.0, 4.0, 2.0)], axis=-1).astype("float32")
    scores[0, 0, 0, 1] = 40  # one large weight does outweigh seventeen small ones
    channel = Channel()
    units = channel.unit_scores(scores, CONV)
    np.testing.assert_allclose(units, np.sqrt((scores**2).mean(axis=(0, 1, 2))), rtol=1e-6)
    mask = channel.expand(channel.select(units, 0.5), scores.shape, CONV)
    assert mask.all(axis=(0, 1, 2)).tolist() == [False, True, True, False]
    assert np.count_nonzero(mask) == 36


def test_depthwise_channels_are_channels_of_the_output(rng):
    scores = rng.random((3, 3, 4, 2)).astype("float32")
    assert Channel().unit_scores(scores, DEPTHWISE).shape == (8,)


@pytest.mark.parametrize(
    ("granularity", "shape", "axes", "message"),
    [
        (Block((1, 16)), (4, 8), DENSE, "larger than weight 'layer/kernel'"),
        (Block((4, 1)), (3, 3, 2, 8), CONV, "larger than weight"),
        (NofM(2, 4), (6, 8), DENSE, "multiple of 4 inputs"),
        (NofM(2, 4), (3, 3, 1, 8), CONV, "multiple of 4 inputs"),
        (Channel(), (3, 1), DENSE, "nothing to choose"),
    ],
)
def test_weights_that_do_not_fit_are_named(granularity, shape, axes, message):
    with pytest.raises(ValueError, match=message):
        granularity.check(shape, axes, "layer/kernel")


@pytest.mark.parametrize("size", [(0, 1), (1,), (1, 2, 3), 3, (1.5, 2)])
def test_block_sizes_are_validated(size):
    with pytest.raises(ValueError, match="two positive integers"):
        Block(size)


def test_pooling_is_validated():
    with pytest.raises(ValueError, match="Unsupported pooling type 'SUM'"):
        Block((1, 2), "SUM")


@pytest.mark.parametrize("pattern", [(0, 4), (4, 4), (5, 4), (2.0, 4), (-1, 4)])
def test_patterns_are_validated(pattern):
    with pytest.raises(ValueError, match="0 < zeros < group"):
        NofM(*pattern)


def test_elements_are_themselves(rng):
    scores = rng.random((4, 5)).astype("float32")
    assert Element().unit_scores(scores, DENSE) is scores
