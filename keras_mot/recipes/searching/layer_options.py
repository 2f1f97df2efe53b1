"""What each layer's kernel would take, zipped, in the ways that it could be stored, and what that would lose."""

import dataclasses
import zlib

import keras
import numpy as np

from keras_mot._arrays import numpy_value
from keras_mot.clustering import ExactKMeans
from keras_mot.layers.finding import find_weights
from keras_mot.recipes.searching.allocation import Option, undominated

SPARSITIES = (0.3, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95)
VALUES = (8, 16, 32, 64)
_LARGEST = 65536  # weights of a kernel that are packed to see how far they shrink; of larger ones, a part
_DENSE = 0.0, 256  # no zeros that were asked for, all values of 8 bits


@dataclasses.dataclass(frozen=True)
class Kernel:
    """A kernel that a search may change.

    Args:
        layer: path of its layer.
        name: of the kernel within the layer.
        values: float array, the kernel, output channels last.
    """

    layer: str
    name: str
    values: np.ndarray


def kernels_of(model: keras.Model) -> list[Kernel]:
    """The kernels of a model that pruning and clustering take by default."""
    found = []
    for weight in find_weights(model)[0]:
        if weight.depthwise or (weight.techniques is not None and not {"prune", "cluster"} <= weight.techniques):
            continue
        values = numpy_value(weight.variable).astype("float32")
        if values.size > 1 and np.any(values):
            found.append(Kernel(weight.owner.path or weight.owner.name, weight.key, values))
    return found


def zipped_size(values: np.ndarray, sparsity: float = 0.0, clusters: int | None = None) -> float:
    """Bytes that a kernel takes in a zip archive when it is pruned, clustered and stored in 8 bits.

    Args:
        values: float array, output channels last.
        sparsity: share of zeros.
        clusters: how many different values; `None` for all of 8 bits.

    Returns:
        The bytes; of kernels of more than 65,536 weights, estimated from a part.
    """
    kernel = values.reshape(-1, values.shape[-1])
    rows = max(1, _LARGEST // kernel.shape[1])
    part = kernel if len(kernel) <= rows else kernel[np.linspace(0, len(kernel) - 1, rows).astype(int)]
    kept = np.array(part)
    if sparsity:
        border = np.quantile(np.abs(kept), sparsity)
        kept[np.abs(kept) <= border] = 0.0
    if clusters is not None:
        kept = _clustered(kept, clusters, bool(sparsity))
        scale = np.abs(kept).max() / 127  # shared values stay so few under one scale alone
    else:
        scale = np.abs(kept).max(axis=0, keepdims=True) / 127
    integers = np.round(kept / np.where(scale == 0, 1, scale)).astype("int8")
    # Files hold kernels with output channels first.
    return len(zlib.compress(np.ascontiguousarray(integers.T).tobytes(), 9)) * len(kernel) / len(part)


def _clustered(kernel, clusters, sparse):
    chosen = kernel[kernel != 0] if sparse else kernel.reshape(-1)
    if not len(chosen):
        return kernel
    centroids = np.sort(np.asarray(ExactKMeans()(chosen, max(1, clusters - sparse))))
    borders = (centroids[1:] + centroids[:-1]) / 2
    clustered = centroids[np.searchsorted(borders, kernel)]
    return np.where(kernel == 0, 0.0, clustered) if sparse else clustered


def options_of(kernel: Kernel, losses, sparsities=SPARSITIES, values=VALUES) -> list[Option]:
    """The ways to store a kernel that no other beats in both size and loss.

    Args:
        kernel: a `Kernel`.
        losses: function from ("sparsity" or "values", setting) to what the model loses when this layer alone is changed
            so. Losses of zeros and of shared values are added up.
        sparsities: shares of zeros to choose from, besides none.
        values: numbers of clusters to choose from, besides none.

    Returns:
        List of `Option`s, smallest first.
    """
    found = []
    for sparsity in (0.0, *sparsities):
        lost = losses("sparsity", sparsity) if sparsity else 0.0
        for clusters in (None, *values):
            if clusters is not None and clusters >= kernel.values.size:
                continue
            loss = lost + (losses("values", clusters) if clusters is not None else 0.0)
            settings = {"sparsity": sparsity} | ({} if clusters is None else {"values": clusters})
            found.append(Option(zipped_size(kernel.values, sparsity, clusters), loss, settings))
    return undominated(found)
