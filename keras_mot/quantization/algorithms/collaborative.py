"""Quantizing models that were pruned or clustered, and stripped: zeros and shared values are read off their weights.

Where a model still has its masks and codebooks, `quantize_model` and `quantize_post_training` keep those, and nothing
has to be read off. What is here serves models that come without, and TFMOT's users.
"""

import dataclasses

import numpy as np

from keras_mot._arrays import numpy_value
from keras_mot.clustering import ClusteringConfig
from keras_mot.layers.attaching import attach
from keras_mot.layers.finding import find_weights
from keras_mot.layers.technique import transform_name
from keras_mot.layers.transformed import transformed_weights
from keras_mot.quantization.schemes import INT8, QuantizationScheme
from keras_mot.transforms import Codebook, Mask

MOST_VALUES = 256
"""The most different values of a weight, or of a channel, that are taken for shared ones."""


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

    Raises:
        ValueError: if no weight has a zero, or no weight few values, where that is to be kept, or the model has masks
            or codebooks.
    """
    for weight in transformed_weights(model):
        raise ValueError(
            f"'{weight.path}' carries {weight.transforms[-1].name}: masks and codebooks are kept in any case. Leave "
            "`preserve_sparsity` and `preserve_clusters` out, or strip the model first."
        )
    found, _ = find_weights(model)
    masked = clustered = 0
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
    if scheme.preserve_sparsity and not masked:
        raise ValueError(
            f"`preserve_sparsity` was asked for, but no weight of '{model.name}' has a zero: prune it first."
        )
    if scheme.preserve_clusters and not clustered:
        raise ValueError(
            f"`preserve_clusters` was asked for, but no weight of '{model.name}' has {MOST_VALUES} different values or "
            "less, each of them twice on average: cluster it first."
        )


def _codebook(weight, values, zeros):
    """A codebook with an entry for each value of a weight that has few of them, or `None`; still to be filled."""
    per_channel = False
    tables = [_few(values)]
    if tables[0] is None and weight.axes.inputs:
        per_channel = True
        rows = np.moveaxis(values, weight.axes.outputs, range(len(weight.axes.outputs)))
        rows = rows.reshape(int(np.prod(rows.shape[: len(weight.axes.outputs)])), -1)
        tables = [_few(row) for row in rows]
    if any(table is None for table in tables):
        return None
    count = max(2, *(int(np.count_nonzero(table)) + 1 if zeros else len(table) for table in tables))
    return Codebook(count, per_channel=per_channel, preserve_zeros=zeros, name=transform_name(weight, "codebook"))


def _few(values):
    unique = np.unique(values)
    return unique if len(unique) <= MOST_VALUES and 2 * len(unique) <= values.size else None
