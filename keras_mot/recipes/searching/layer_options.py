"""What each layer's kernel would take, zipped, in the ways that it could be stored, and what that would lose."""

import dataclasses
import re
import zlib
from collections.abc import Mapping

import keras
import numpy as np

from keras_mot._arrays import numpy_value
from keras_mot.clustering import ExactKMeans
from keras_mot.layers.finding import find_weights
from keras_mot.transforms.grid import Grid, least_squares_reach

SPARSITIES = (0.3, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.97, 0.98, 0.99)
VALUES = (8, 16, 32, 64)
BITS = (4,)
"""Bits of weights to choose from, besides 8."""
_LARGEST = 65536  # weights of a kernel that are packed to see how far they shrink; of larger ones, a part


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


def zipped_size(values: np.ndarray, sparsity: float = 0.0, clusters: int | None = None, bits: int = 8) -> float:
    """Bytes that a kernel takes in a zip archive when it is pruned, clustered and quantized.

    Args:
        values: float array, output channels last.
        sparsity: share of zeros.
        clusters: how many different values; `None` for all that the bits have.
        bits: 8 or 4 of each weight; two weights of 4 bits make a byte.

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
        reach = np.abs(kept).max()  # shared values stay so few under one scale alone
    else:
        reach = np.abs(kept).max(axis=0, keepdims=True)
    highest = Grid(bits).highest
    if bits < 8:
        reach = reach * least_squares_reach(kept, highest, 0)
    integers = np.clip(np.round(kept / np.where(reach == 0, 1, reach / highest)), -highest, highest).astype("int8")
    stored = integers.T.reshape(-1)  # files hold kernels with output channels first
    if bits <= 4:
        first, second = np.pad(stored, (0, len(stored) % 2)).view("uint8").reshape(-1, 2).T
        stored = (first & 15) | (second << 4)
    return len(zlib.compress(np.ascontiguousarray(stored).tobytes(), 9)) * len(kernel) / len(part)


def _clustered(kernel, clusters, sparse):
    chosen = kernel[kernel != 0] if sparse else kernel.reshape(-1)
    if not len(chosen):
        return kernel
    centroids = np.sort(ExactKMeans().centroids(chosen, max(1, clusters - sparse)))
    borders = (centroids[1:] + centroids[:-1]) / 2
    clustered = centroids[np.searchsorted(borders, kernel)]
    return np.where(kernel == 0, 0.0, clustered) if sparse else clustered


@dataclasses.dataclass(frozen=True)
class Choice:
    """One way to store the kernels of a layer.

    Args:
        sparsity: share of zeros.
        values: how many different values; `None` for all that the bits have.
        size: bytes that the kernels take, zipped.
        sparsity_loss: what the model loses by these zeros alone, untrained.
        values_loss: what it loses by these values, or these bits, alone, untrained.
        bits: of a weight.
    """

    sparsity: float
    values: int | None
    size: float
    sparsity_loss: float = 0.0
    values_loss: float = 0.0
    bits: int = 8


@dataclasses.dataclass(frozen=True)
class LayerChoices:
    """The ways to store the kernels of a layer.

    Args:
        selector: the regular expression that points at the layer.
        choices: tuple of `Choice`s, the first with nothing but 8 bits.
        layer: its path.
    """

    selector: str
    choices: tuple[Choice, ...]
    layer: str = ""

    @property
    def pattern_of_name(self) -> str:
        """Matches the layer's name, which it keeps where models within the model are taken apart."""
        return re.escape(self.layer.rpartition("/")[2])

    @property
    def dense(self) -> float:
        """Bytes of the kernels in 8 bits, zipped."""
        return self.choices[0].size


def choices_of(
    model: keras.Model,
    losses: Mapping[tuple[str, str, float], float],
    sparsities=SPARSITIES,
    values=VALUES,
    bits=BITS,
) -> tuple[LayerChoices, ...]:
    """The ways to store each layer.

    Args:
        model: a model.
        losses: dictionary from (path of a layer, "sparsity", "values" or "weight_bits", setting) to what the model
            loses when this layer alone is changed so. A layer without any is left in 8 bits.
        sparsities: shares of zeros to choose from, besides none.
        values: numbers of values to choose from, besides all.
        bits: bits of weights to choose from, besides 8; such weights keep all values that they have.

    Returns:
        Tuple of `LayerChoices`.
    """
    by_layer, prefix = {}, f"{model.name}/"
    layers = {layer for layer, _, _ in losses}
    for kernel in kernels_of(model):
        # Sensitivities name layers without the model; and a recurrent layer may be asked about as one, with its cell.
        own = kernel.layer.removeprefix(prefix)
        layer = next((each for each in layers if f"{own}/".startswith(f"{each}/")), own)
        by_layer.setdefault(layer, []).append(kernel.values)
    found = []
    for layer, kernels in by_layer.items():
        choices = [Choice(0.0, None, sum(map(zipped_size, kernels)))]
        for sparsity in (0.0, *sparsities):
            lost = losses.get((layer, "sparsity", sparsity)) if sparsity else 0.0
            ways = [(None, 8, 0.0), *((each, 8, losses.get((layer, "values", each))) for each in values)]
            ways += [(None, each, losses.get((layer, "weight_bits", each))) for each in bits]
            for clusters, stored, also in ways:
                if None in (lost, also) or (not sparsity and clusters is None and stored == 8):
                    continue
                size = sum(zipped_size(kernel, sparsity, clusters, stored) for kernel in kernels)
                choices.append(Choice(sparsity, clusters, size, lost, also, stored))
        # Stages that rebuild a model leave its name out of the paths.
        found.append(LayerChoices(f"^({re.escape(prefix)})?{re.escape(layer)}$", tuple(choices), layer))
    return tuple(found)
