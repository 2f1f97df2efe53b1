"""Chains of kernels against what they stand for: the truncated singular value decomposition, of weights or outputs."""

import itertools

import numpy as np
import pytest

from keras_mot.low_rank.decompositions import (
    DECOMPOSITIONS,
    InputChannels,
    Option,
    OutputChannels,
    Spatial,
    Tucker,
    composed,
    relative_error,
)
from keras_mot.low_rank.ranks import EnergyShare, FixedRank, ParameterShare

pytestmark = pytest.mark.backend_independent
RNG = np.random.default_rng(0)
KERNEL = RNG.normal(size=(3, 5, 6, 7))
MATRIX = RNG.normal(size=(12, 9))


def moments(size, samples=200):
    """Second moments of inputs that are far from independent, and the inputs."""
    x = RNG.normal(size=(samples, size)) @ RNG.normal(size=(size, size)) * np.geomspace(1, 0.01, size)
    return x.T @ x / samples, x


@pytest.mark.parametrize("decomposition", DECOMPOSITIONS)
@pytest.mark.parametrize("weighted", [False, True])
def test_full_rank_is_exact(decomposition, weighted):
    ranks = {OutputChannels(): (7,), InputChannels(): (6,), Spatial(): (18,), Tucker(): (6, 7)}[decomposition]
    second = moments(90)[0] if weighted else None
    factors = decomposition.factors(KERNEL, ranks, second)
    np.testing.assert_allclose(composed(factors), KERNEL, atol=1e-7)


def test_a_matrix_is_truncated_as_by_numpy():
    left, values, right = np.linalg.svd(MATRIX, full_matrices=False)
    for option in OutputChannels().options(MATRIX):
        (rank,) = option.ranks
        nearest = left[:, :rank] * values[:rank] @ right[:rank]
        np.testing.assert_allclose(composed(OutputChannels().factors(MATRIX, (rank,))), nearest, atol=1e-10)
        assert option.error == pytest.approx(np.square(values[rank:]).sum() / np.square(values).sum())
        assert option.parameters == rank * (12 + 9)
    assert rank == 5  # 12 * 9 / (12 + 9) = 5.1


def test_with_moments_the_outputs_are_approximated():
    """No rank-r matrix has outputs nearer than the truncated SVD of the outputs themselves (Eckart and Young)."""
    second, x = moments(12)
    left, values, right = np.linalg.svd(x @ MATRIX, full_matrices=False)
    for rank in (1, 3, 5):
        received = x @ composed(OutputChannels().factors(MATRIX, (rank,), second))
        np.testing.assert_allclose(received, left[:, :rank] * values[:rank] @ right[:rank], atol=1e-8)


@pytest.mark.parametrize("decomposition", DECOMPOSITIONS)
def test_moments_lessen_the_error_of_outputs(decomposition):
    second, _ = moments(90)
    for ranks in [option.ranks for option in decomposition.options(KERNEL)][1::9]:
        plain = relative_error(KERNEL, decomposition.factors(KERNEL, ranks), second)
        aware = relative_error(KERNEL, decomposition.factors(KERNEL, ranks, second), second)
        assert aware < plain


@pytest.mark.parametrize("decomposition", DECOMPOSITIONS)
def test_options_say_what_factors_do(decomposition):
    options = decomposition.options(KERNEL)
    assert len(options) > 3
    for one, other in itertools.pairwise(options):
        assert one.parameters < other.parameters < KERNEL.size
        assert one.error > other.error
    for option in options[:: len(options) // 3]:
        factors = decomposition.factors(KERNEL, option.ranks)
        assert sum(factor.kernel.size for factor in factors) == option.parameters
        # Tucker's core is exact for the two bases, and the second is chosen anew for the first: no worse.
        assert relative_error(KERNEL, factors) == pytest.approx(option.error, abs=1e-9) or (
            decomposition == Tucker() and relative_error(KERNEL, factors) <= option.error
        )


def test_unseen_inputs_and_dead_channels():
    """Moments of rank 2 and an output of zeros: the outputs that are seen are exact."""
    x = RNG.normal(size=(50, 2)) @ RNG.normal(size=(2, 90))
    kernel = KERNEL.copy()
    kernel[..., 3] = 0
    second = x.T @ x / 50
    for decomposition, ranks in ((OutputChannels(), (2,)), (Tucker(), (6, 2))):
        factors = decomposition.factors(kernel, ranks, second)
        assert all(np.isfinite(factor.kernel).all() for factor in factors)
        assert relative_error(kernel, factors, second) < 1e-9


def test_channels_between_are_balanced():
    first, second = (factor.kernel for factor in OutputChannels().factors(KERNEL, (4,)))
    np.testing.assert_allclose(
        np.linalg.norm(first.reshape(-1, 4), axis=0), np.linalg.norm(second.reshape(4, -1), axis=1)
    )


def test_where_a_decomposition_does_not_apply():
    assert Spatial().options(KERNEL[:, :1]) == []
    assert Tucker().options(KERNEL[:1, :1]) == []


def options(*pairs):
    return [Option(OutputChannels(), (rank,), size, error) for rank, (size, error) in enumerate(pairs, 1)]


ONE = options((10, 0.5), (20, 0.2), (30, 0.05))
OTHER = options((100, 0.4), (200, 0.01))


def ranks_of(chosen):
    return [None if option is None else option.ranks[0] for option in chosen]


def test_rules():
    assert ranks_of(EnergyShare(0.8).choose([ONE, OTHER, []], [40, 300, 5])) == [2, 2, None]
    assert ranks_of(EnergyShare(0.99).choose([ONE, OTHER, []], [40, 300, 5])) == [None, 2, None]
    assert ranks_of(FixedRank(2).choose([ONE, OTHER, []], [40, 300, 5])) == [2, 2, None]
    assert ranks_of(FixedRank(3).choose([ONE, OTHER], [40, 300])) == [3, None]


def test_a_rank_that_is_more_than_the_kernel_has():
    exact = options((10, 0.5), (20, 1e-15))
    assert ranks_of(FixedRank(5).choose([exact], [90])) == [2]
    assert ranks_of(EnergyShare(1).choose([exact, ONE], [90, 40])) == [2, None]


@pytest.mark.parametrize("share", [0.4, 0.5, 0.65, 0.7, 0.95])
def test_a_budget_is_met_as_well_as_by_trying_all(share):
    sizes = [40, 300]
    choices = [
        [(each.parameters, each.error) for each in found] + [(size, 0.0)]
        for found, size in zip((ONE, OTHER), sizes, strict=True)
    ]
    best = min(
        sum(error for _, error in pair)
        for pair in itertools.product(*choices)
        if sum(size for size, _ in pair) <= share * 340
    )
    chosen = ParameterShare(share).choose([ONE, OTHER], sizes)
    assert sum(0.0 if option is None else option.error for option in chosen) == pytest.approx(best)
    used = sum(size if option is None else option.parameters for option, size in zip(chosen, sizes, strict=True))
    assert used <= share * 340


def test_rules_refuse_nonsense():
    for make in (lambda: EnergyShare(0), lambda: EnergyShare(True), lambda: FixedRank(0), lambda: ParameterShare(1)):
        with pytest.raises(ValueError, match="should be"):
            make()
    with pytest.raises(ValueError, match=r"`share` 0.1 is below what is possible: the kernels of rank 1 have 0.32"):
        ParameterShare(0.1).choose([ONE, OTHER], [40, 300])
