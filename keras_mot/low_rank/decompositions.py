"""How a kernel is written as a chain of smaller ones: pure array logic, one class for each way.

A kernel is an array of axes (positions..., inputs, outputs): a convolution's positions are its height and width, a
matrix has none. Kernels of a chain that are applied one after another compute what the kernel does, as nearly as their
ranks allow; the lengths along positions that a kernel of the chain does not span are 1.

With the second moments H of the inputs, what is small is the error of the outputs, tr(E' H E) of the kernel's error E,
instead of the error of the kernel: an approximation in coordinates that a Cholesky factor of H whitens (Wang et al.,
2024, "SVD-LLM", arXiv:2403.07378), after which the last kernels are solved for by least squares.
"""

import abc
import dataclasses

import keras
import numpy as np

from keras_mot._config import Config

_DAMPING = 1e-6  # of the mean of H's diagonal: inputs that were never seen have some weight


@dataclasses.dataclass(frozen=True)
class Option:
    """One choice of ranks.

    Attributes:
        decomposition: the `Decomposition`.
        ranks: its ranks.
        parameters: how many numbers its kernels have.
        error: the share of the kernel's energy that is lost: of its squares, or, with second moments, of the mean
            squares of its outputs.
    """

    decomposition: "Decomposition"
    ranks: tuple[int, ...]
    parameters: int
    error: float


@dataclasses.dataclass(frozen=True)
class Factor:
    """A kernel of a chain.

    Attributes:
        kernel: array (positions..., inputs, outputs).
        spans: the axes of positions that it sums over; strides and dilation along them are its own.
    """

    kernel: np.ndarray
    spans: tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class Decomposition(Config, abc.ABC):
    """Writes a kernel as a chain of smaller ones.

    One of your own is a frozen dataclass that inherits this, with `options` and `factors`.
    """

    @abc.abstractmethod
    def options(self, kernel: np.ndarray, moments: np.ndarray | None = None) -> list[Option]:
        """The choices of ranks, among which none has both more parameters and a larger error than another.

        Args:
            kernel: array (positions..., inputs, outputs), float64.
            moments: H, the second moments of the patches that the kernel is multiplied with, (positions * inputs) by
                as many; `None`: as if all inputs were independent and of one size.

        Returns:
            List of `Option`, of fewer parameters than the kernel has; empty if it cannot be written so.
        """

    @abc.abstractmethod
    def factors(self, kernel: np.ndarray, ranks: tuple[int, ...], moments: np.ndarray | None = None) -> list[Factor]:
        """The chain of kernels, the first that is applied first; arguments as of `options`."""


@keras.saving.register_keras_serializable("keras_mot")
@dataclasses.dataclass(frozen=True)
class OutputChannels(Decomposition):
    """The kernel with fewer outputs, then a product of these: k x k to r channels, then 1 x 1.

    Of a matrix, the singular value decomposition. Of convolutions: Zhang et al., 2016, "Accelerating Very Deep
    Convolutional Networks" (arXiv:1505.06798).
    """

    def options(self, kernel, moments=None):
        """As of `Decomposition`."""
        values, _ = _output_directions(_matrix(kernel), moments)
        sizes = [rank * (kernel[..., 0].size + kernel.shape[-1]) for rank in range(1, len(values) + 1)]
        return _options(self, [(rank + 1,) for rank in range(len(values))], sizes, _lost(values), kernel.size)

    def factors(self, kernel, ranks, moments=None):
        """As of `Decomposition`."""
        matrix = _matrix(kernel)
        _, directions = _output_directions(matrix, moments)
        chosen = directions[:, : ranks[0]]
        first = (matrix @ chosen).reshape(*kernel.shape[:-1], ranks[0])
        return _balanced([Factor(first, _all(kernel)), Factor(_pointwise(kernel, chosen.T), ())])


@keras.saving.register_keras_serializable("keras_mot")
@dataclasses.dataclass(frozen=True)
class InputChannels(Decomposition):
    """A product that leaves fewer inputs, then the kernel on these: 1 x 1 to r channels, then k x k."""

    def options(self, kernel, moments=None):
        """As of `Decomposition`."""
        values = np.linalg.svd(_inputs_first(_whitened(kernel, moments)), compute_uv=False)
        sizes = [rank * (kernel.shape[-2] + kernel[..., 0, :].size) for rank in range(1, len(values) + 1)]
        return _options(self, [(rank + 1,) for rank in range(len(values))], sizes, _lost(values**2), kernel.size)

    def factors(self, kernel, ranks, moments=None):
        """As of `Decomposition`."""
        first = _input_basis(kernel, ranks[0], moments)
        second = _solved(_on_each_position(first, kernel), kernel, moments)
        shape = (*kernel.shape[:-2], ranks[0], kernel.shape[-1])
        return _balanced([Factor(_pointwise(kernel, first), ()), Factor(second.reshape(shape), _all(kernel))])


@keras.saving.register_keras_serializable("keras_mot")
@dataclasses.dataclass(frozen=True)
class Spatial(Decomposition):
    """One position axis after the other: k x 1 to r channels, then 1 x k.

    Jaderberg et al., 2014, "Speeding up Convolutional Neural Networks with Low Rank Expansions" (arXiv:1405.3866).
    """

    def options(self, kernel, moments=None):
        """As of `Decomposition`."""
        if sum(length > 1 for length in kernel.shape[:-2]) < 2:
            return []
        values = np.linalg.svd(_columns_and_rows(_whitened(kernel, moments)), compute_uv=False)
        columns, rows = kernel.shape[0] * kernel.shape[-2], kernel[0, ..., 0, :].size
        sizes = [rank * (columns + rows) for rank in range(1, len(values) + 1)]
        return _options(self, [(rank + 1,) for rank in range(len(values))], sizes, _lost(values**2), kernel.size)

    def factors(self, kernel, ranks, moments=None):
        """As of `Decomposition`."""
        (rank,), (height, *others), (inputs, outputs) = ranks, kernel.shape[:-2], kernel.shape[-2:]
        root = _channel_root(kernel, moments)
        root = None if root is None else np.kron(np.eye(height), root)
        first = _basis(_columns_and_rows(_whitened(kernel, moments)), rank, root).reshape(height, inputs, rank)
        width = int(np.prod(others))
        # The first kernel as a linear map from a patch to what the second reads of it: one column of it at each place.
        spread = np.einsum("hir,vw->hviwr", first, np.eye(width)).reshape(height * width * inputs, width * rank)
        second = _solved(spread, kernel, moments).reshape(1, *others, rank, outputs)
        first = first.reshape(height, *(1 for _ in others), inputs, rank)
        return _balanced([Factor(first, (0,)), Factor(second, _all(kernel)[1:])])


@keras.saving.register_keras_serializable("keras_mot")
@dataclasses.dataclass(frozen=True)
class Tucker(Decomposition):
    """Fewer inputs, then the kernel between few channels, then all outputs: 1 x 1, k x k, 1 x 1.

    Kim et al., 2016, "Compression of Deep Convolutional Neural Networks for Fast and Low Power Mobile Applications"
    (arXiv:1511.06530).
    """

    def options(self, kernel, moments=None):
        """As of `Decomposition`."""
        if int(np.prod(kernel.shape[:-2])) == 1:
            return []
        whitened = _whitened(kernel, moments)
        left, _, _ = np.linalg.svd(_inputs_first(whitened), full_matrices=False)
        _, right = _output_directions(_matrix(whitened), None)
        core = left.T @ whitened @ right
        kept = np.square(core).reshape(-1, *core.shape[-2:]).sum(axis=0).cumsum(axis=0).cumsum(axis=1)
        inputs, outputs = np.indices(kept.shape) + 1
        sizes = inputs * kernel.shape[-2] + int(np.prod(kernel.shape[:-2])) * inputs * outputs
        sizes = (sizes + outputs * kernel.shape[-1]).ravel()
        ranks = list(zip(inputs.ravel().tolist(), outputs.ravel().tolist(), strict=True))
        total = max(float(np.square(whitened).sum()), 1e-300)
        return _options(self, ranks, sizes, np.maximum(1 - kept.ravel() / total, 0), kernel.size)

    def factors(self, kernel, ranks, moments=None):
        """As of `Decomposition`."""
        first = _input_basis(kernel, ranks[0], moments)
        spread = _on_each_position(first, kernel)
        solved = _solved(spread, kernel, moments)
        inner = spread.T @ spread if moments is None else spread.T @ moments @ spread
        _, directions = _output_directions(solved, inner)
        last = directions[:, : ranks[1]]
        core = (solved @ last).reshape(*kernel.shape[:-2], *ranks)
        parts = [Factor(_pointwise(kernel, first), ()), Factor(core, _all(kernel))]
        return _balanced([*parts, Factor(_pointwise(kernel, last.T), ())])


DECOMPOSITIONS = (OutputChannels(), InputChannels(), Spatial(), Tucker())
"""All of them, in the order in which the first is taken of those that are equally good."""


def composed(factors: list[Factor]) -> np.ndarray:
    """The kernel (positions..., inputs, outputs) that a chain of kernels computes the same as."""
    kernel = factors[0].kernel
    for factor in factors[1:]:
        rank, positions = factor.kernel.ndim - 2, kernel.shape[:-2]
        result = np.einsum(
            "air,brj->abij", kernel.reshape(-1, *kernel.shape[-2:]), _flat_positions(factor.kernel), optimize=True
        )
        # Along each axis one of the two has length 1, so that positions need no convolution.
        pairs = (*positions, *factor.kernel.shape[:rank])
        result = result.reshape(*pairs, *result.shape[-2:])
        order = [axis for place in range(rank) for axis in (place, rank + place)]
        result = result.transpose(*order, 2 * rank, 2 * rank + 1)
        lengths = [one * other for one, other in zip(positions, factor.kernel.shape[:rank], strict=True)]
        kernel = result.reshape(*lengths, *result.shape[-2:])
    return kernel


def relative_error(kernel: np.ndarray, factors: list[Factor], moments: np.ndarray | None = None) -> float:
    """The share of a kernel's energy that a chain loses; see `Option.error`."""
    error, whole = _matrix(kernel - composed(factors)), _matrix(kernel)
    if moments is None:
        return float(np.square(error).sum() / max(np.square(whole).sum(), 1e-300))
    return float(np.sum(error * (moments @ error)) / max(np.sum(whole * (moments @ whole)), 1e-300))


def _options(decomposition, ranks, sizes, errors, most):
    """The `Option`s of fewer parameters than `most` that no other one beats in both respects."""
    sizes, errors = np.asarray(sizes), np.asarray(errors)
    order = np.lexsort((errors, sizes))
    order = order[sizes[order] < most]
    before = np.minimum.accumulate(np.append(np.inf, errors[order]))[:-1]
    chosen = order[errors[order] < before]
    return [Option(decomposition, ranks[place], int(sizes[place]), float(errors[place])) for place in chosen]


def _lost(energies):
    """The share of the sum that is left out with the first 1, 2, ... of some energies."""
    total = max(float(energies.sum()), 1e-300)
    return np.append(energies[::-1].cumsum()[::-1][1:], 0.0) / total


def _matrix(kernel):
    return kernel.reshape(-1, kernel.shape[-1])


def _flat_positions(kernel):
    return kernel.reshape(-1, *kernel.shape[-2:])


def _inputs_first(kernel):
    """The matrix of inputs by (positions, outputs)."""
    return np.moveaxis(kernel, -2, 0).reshape(kernel.shape[-2], -1)


def _columns_and_rows(kernel):
    """The matrix of (the first axis of positions, inputs) by (the other positions, outputs)."""
    ordered = np.moveaxis(kernel, -2, 1)
    return ordered.reshape(kernel.shape[0] * kernel.shape[-2], -1)


def _all(kernel):
    return tuple(range(kernel.ndim - 2))


def _pointwise(kernel, matrix):
    return matrix.reshape(*(1 for _ in _all(kernel)), *matrix.shape)


def _output_directions(matrix, moments):
    """The energies of the outputs' principal directions, falling, and the directions as columns."""
    if moments is None and matrix.shape[0] < matrix.shape[1]:
        _, values, rows = np.linalg.svd(matrix, full_matrices=False)
        return values**2, rows.T
    values, directions = np.linalg.eigh(matrix.T @ (matrix if moments is None else moments @ matrix))
    count = min(matrix.shape)
    return np.maximum(values[::-1], 0)[:count], directions[:, ::-1][:, :count]


def _channel_root(kernel, moments):
    """L' of L L' = the second moments of the input channels, at all positions together; `None` without moments."""
    if moments is None:
        return None
    inputs = kernel.shape[-2]
    blocks = moments.reshape(-1, inputs, len(moments) // inputs, inputs)
    mean = np.einsum("piqj,pq->ij", blocks, np.eye(len(moments) // inputs)) / blocks.shape[0]
    damped = mean + np.eye(inputs) * max(float(np.trace(mean)) / inputs * _DAMPING, 1e-30)
    return np.linalg.cholesky(damped).T


def _whitened(kernel, moments):
    root = _channel_root(kernel, moments)
    return kernel if root is None else root @ kernel


def _basis(whitened, rank, root):
    """The matrix of orthonormal columns that whitened inputs, given as the rows of a matrix, are reduced by."""
    left, _, _ = np.linalg.svd(whitened, full_matrices=False)
    # With S for the root, S K is about U U' S K, and so K about S^-1 U (U' S K): only what S^-1 U spans counts.
    return left[:, :rank] if root is None else np.linalg.qr(np.linalg.solve(root, left[:, :rank]))[0]


def _input_basis(kernel, rank, moments):
    """The matrix of inputs by `rank` that the inputs are reduced by."""
    return _basis(_inputs_first(_whitened(kernel, moments)), rank, _channel_root(kernel, moments))


def _on_each_position(first, kernel):
    """The matrix from patches to patches of fewer channels."""
    positions = int(np.prod(kernel.shape[:-2]))
    return np.einsum("pq,ir->piqr", np.eye(positions), first).reshape(positions * len(first), -1)


def _solved(spread, kernel, moments):
    """The matrix G of least error tr(E' H E), E = `spread` G - kernel; `spread` has orthonormal columns.

    It is solved for as a change of what is nearest to the kernel, which stays where the inputs say nothing.
    """
    nearest = spread.T @ _matrix(kernel)
    if moments is None:
        return nearest
    weighted = moments @ spread
    inner = spread.T @ weighted
    damped = inner + np.eye(len(inner)) * max(float(np.trace(inner)) / len(inner) * _DAMPING, 1e-300)
    return nearest + np.linalg.solve(damped, weighted.T @ (_matrix(kernel) - spread @ nearest))


def _balanced(factors):
    """The same chain with channels between two kernels that are of one size in both."""
    kernels = [factor.kernel for factor in factors]
    for place in range(len(kernels) - 1):
        first, second = kernels[place : place + 2]
        made = np.sqrt(np.square(first).reshape(-1, first.shape[-1]).sum(axis=0))
        read = np.sqrt(np.square(second).reshape(-1, *second.shape[-2:]).sum(axis=(0, 2)))
        scale = np.sqrt(np.maximum(read, 1e-150) / np.maximum(made, 1e-150))
        scale = np.where((made > 0) & (read > 0), scale, 1.0)
        kernels[place], kernels[place + 1] = first * scale, second / scale[:, None]
    return [dataclasses.replace(factor, kernel=kernel) for factor, kernel in zip(factors, kernels, strict=True)]
