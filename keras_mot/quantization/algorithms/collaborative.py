"""Quantizing models that were pruned or clustered, and stripped: zeros and shared values are read off their weights.

Where a model still has its masks and codebooks, `quantize_model` and `quantize_post_training` keep those, and nothing
has to be read off. What is here serves models that come without, and TFMOT's users.
"""

import dataclasses

import numpy as np

from keras_mot._arrays import numpy_value
from keras_mot._warnings import warn
from keras_mot.clustering import ClusteringConfig
from keras_mot.layers.attaching import attach
from keras_mot.layers.finding import find_weights
from keras_mot.layers.technique import transform_name
from keras_mot.layers.transformed import transformed_weights
from keras_mot.quantization.schemes import INT8, QuantizationScheme
from keras_mot.transforms import Codebook, Mask

MOST_VALUES = 256
"""The most different values of a weight, or of a channel, that are taken for shared ones."""
MOST_SHARED = 0.9
"""Up to this share of different values among those that are not zero, a weight is taken for clustered: 8 of 9 are."""


def Default8BitPrunePreserveQuantizeScheme() -> QuantizationScheme:
    """TFMOT's name of the scheme that keeps the zeros of a pruned and stripped model (PQAT).

    Returns:
        `INT8` with `preserve_sparsity`.

    Example:

    ```python
    annotated = quantize_annotate_model(strip_pruning(pruned))
    quantized = quantize_apply(annotated, Default8BitPrunePreserveQuantizeScheme())
    ```
    """
    return dataclasses.replace(INT8, preserve_sparsity=True)


def Default8BitClusterPreserveQuantizeScheme(preserve_sparsity: bool = True) -> QuantizationScheme:
    """TFMOT's name of the scheme that keeps the shared values of a clustered and stripped model (CQAT, PCQAT).

    Args:
        preserve_sparsity: whether zeros stay zeros, too.

    Returns:
        `INT8` with `preserve_clusters`.
    """
    return dataclasses.replace(INT8, preserve_clusters=True, preserve_sparsity=preserve_sparsity)


def read_off_transforms(model, scheme):
    """Attaches the masks and codebooks that a scheme asks for to a plain model, in place.

    Args:
        model: a model of any kind.
        scheme: a `QuantizationScheme`.

    Warns if no weight has a zero, or no weight few values, where that is to be kept, and of weights whose shared values
    are too many.

    Raises:
        ValueError: if the model has masks or codebooks.
    """
    for weight in transformed_weights(model):
        raise ValueError(
            f"'{weight.path}' carries {weight.transforms[-1].name}: masks and codebooks are kept in any case. Leave "
            "`preserve_sparsity` and `preserve_clusters` out, or strip the model first."
        )
    found, _ = find_weights(model)
    masked = clustered = 0
    dropped = []
    for weight in found:
        values = np.array(numpy_value(weight.variable), "float32")
        mask = Mask(name=transform_name(weight, "mask")) if scheme.preserve_sparsity and not values.all() else None
        codebook = _codebook(weight, values, mask is not None) if scheme.preserve_clusters else None
        stack = [transform for transform in (mask, codebook) if transform is not None]
        if stack:
            attach(weight.host, {weight.place: stack})
        if mask is not None:
            mask.assign(values != 0)
            masked += 1
        if codebook is not None:
            config = ClusteringConfig(codebook.number_of_clusters, per_channel=codebook.per_channel)
            config.choose_centroids(codebook, values)
            clustered += 1
        elif scheme.preserve_clusters and _are_shared([values], [np.unique(values)]):
            dropped.append(f"'{weight.path}' ({len(np.unique(values))} different values)")
    _warn_of_what_is_not_kept(model, scheme, masked, clustered, dropped)


def _warn_of_what_is_not_kept(model, scheme, masked, clustered, dropped):
    if scheme.preserve_clusters and not clustered and not dropped:
        warn(
            f"`preserve_clusters` was asked for, but no weight of '{model.name}' has shared values: it is trained as "
            "without. Cluster it first."
        )
    if dropped:
        warn(
            f"The shared values of {', '.join(dropped)} are not kept: weights are, that have at most {MOST_VALUES} "
            "different values, or as many in each channel. Quantize the clustered model before it is stripped, which "
            "keeps all."
        )
    # A clustered model need not be pruned: TFMOT's scheme for these asks for both.
    if scheme.preserve_sparsity and not masked and not clustered:
        warn(
            f"`preserve_sparsity` was asked for, but no weight of '{model.name}' has a zero: it is trained as without. "
            "Prune it first."
        )


def _codebook(weight, values, zeros):
    """A codebook with an entry for each value of a weight that has few of them, or `None`; still to be filled."""
    per_channel = False
    tables = _few([values])
    if tables is None and weight.axes.inputs:
        per_channel = True
        rows = np.moveaxis(values, weight.axes.outputs, range(len(weight.axes.outputs)))
        tables = _few(rows.reshape(int(np.prod(rows.shape[: len(weight.axes.outputs)])), -1))
    if tables is None:
        return None
    count = max(2, *(int(np.count_nonzero(table)) + 1 if zeros else len(table) for table in tables))
    return Codebook(count, per_channel=per_channel, preserve_zeros=zeros, name=transform_name(weight, "codebook"))


def _few(rows):
    """The different values of each row, if these are few, and shared; `None` if not."""
    tables = [np.unique(row) for row in rows]
    return tables if max(map(len, tables)) <= MOST_VALUES and _are_shared(rows, tables) else None


def _are_shared(rows, tables):
    """Whether so many values are equal that it is no coincidence; that many are zero may come from pruning."""
    members, different = (sum(map(np.count_nonzero, each)) for each in (rows, tables))
    return different <= MOST_SHARED * members
