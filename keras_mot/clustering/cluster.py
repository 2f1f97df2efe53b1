"""Weight clustering of layers and models while they train: `cluster_weights` and `strip_clustering`."""

import contextlib
import math
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np

from keras_mot._arrays import numpy_value
from keras_mot._messages import describe
from keras_mot._warnings import warn
from keras_mot.clustering.centroids import CentroidInitialization
from keras_mot.clustering.config import ClusteringConfig, codebook_of
from keras_mot.graph import find_foldable_batch_norms
from keras_mot.layers import transformed_weights
from keras_mot.layers.finding import check_layer
from keras_mot.layers.technique import Technique, strip_model, transform_name
from keras_mot.transforms import Mask, PaletteTransform

MANY_ZEROS = 0.1
"""From this share of zeros on, a weight counts as pruned: `cluster_weights` warns if they are not preserved."""


def cluster_weights(
    to_cluster: keras.layers.Layer | Sequence[keras.layers.Layer],
    number_of_clusters: int | ClusteringConfig,
    cluster_centroids_init: CentroidInitialization | None = None,
    *,
    cluster_per_channel: bool = False,
    preserve_sparsity: bool = False,
    overrides: Mapping[Any, ClusteringConfig | None] | None = None,
    include_depthwise: bool | None = None,
    inplace: bool = False,
    input_shape: tuple[int | None, ...] | None = None,
) -> Any:
    """Makes a copy of a model, layer or list of layers in which each weight tensor has few different values.

    The weights are clustered at once. Compile the result and train it with `fit` as usual, which moves the values
    and the assignments, then call `strip_clustering`. Names, paths and classes of layers stay.

    Args:
        to_cluster: a built Keras model of any kind, a layer (which need not be built), or a list of layers.
        number_of_clusters: how many different values each weight tensor may have, at least 2; or a
            `ClusteringConfig` with more settings. A tensor with fewer different values keeps those it has; numbers
            beyond its size count as its size.
        cluster_centroids_init: a `CentroidInitialization`. Defaults to `CentroidInitialization.KMEANS`.
        cluster_per_channel: whether each output channel has its own values.
        preserve_sparsity: whether weights that are zero stay zero. Zero is then one of the values. A weight with a
            mask, from `prune_low_magnitude`, always keeps its zeros. Without it, a weight that is a tenth zeros or more
            is warned of.
        overrides: dictionary from a selector to a `ClusteringConfig`, or to `None` to leave layers alone. A
            selector is a layer of the given model, a layer class, a predicate, or a regular expression on the
            layer's path. The first that matches applies.
        include_depthwise: whether depthwise kernels are clustered, too. As in TFMOT, by default they are not: they are
            a few hundredths of the weights, and the model needs each of them. Asked for are those of a layer that is
            passed by itself, or that a selector of `overrides` points at.
        inplace: whether to change the given model or layer itself, for models that cannot be rebuilt from
            their configuration.
        input_shape: shape of a sample without the batch, for an unbuilt first layer of a sequential model.

    Returns:
        A model, layer or list like `to_cluster`, not compiled, that shares no variables with it. A warning names
        clustered layers whose batch normalization a converter would fold into them: see
        `keras_mot.graph.fold_batch_norm`.

    Raises:
        TypeError: if an argument is of the wrong type.
        ValueError: if the model is not built, holds nothing to cluster, a weight is NaN or infinite, the number of
            clusters is below 2, a weight has no channels to be clustered by, or sparsity is to be preserved and
            there are no zeros. The given model is then unchanged.

    Example:

    ```python
    clustered = cluster_weights(model, 16, overrides={"classifier": ClusteringConfig(64)})
    clustered.compile("adam", "sparse_categorical_crossentropy")
    clustered.fit(x, y)
    small = strip_clustering(clustered)
    ```

    Reference: Han et al., 2016, "Deep Compression" (arXiv:1510.00149), section 3.
    """
    config = _config(number_of_clusters, cluster_centroids_init, cluster_per_channel)
    if not isinstance(preserve_sparsity, bool):
        raise TypeError(f"`preserve_sparsity` should be True or False; received {describe(preserve_sparsity)}.")
    if preserve_sparsity:
        _require_zeros(to_cluster)
    clustered = _technique(preserve_sparsity).apply(
        to_cluster, config, overrides, inplace, input_shape, include_depthwise
    )
    _warn_of_zeros(clustered)
    if isinstance(clustered, keras.Model):
        _warn_of_batch_norms(clustered)
    return clustered


def _warn_of_zeros(clustered):
    """Says so if pruned weights, whose masks are gone, are clustered without preserving their zeros."""
    lost = [
        (weight.path, 1 - np.count_nonzero(numpy_value(weight.variable)) / math.prod(weight.variable.shape))
        for layer in (clustered if isinstance(clustered, list) else [clustered])
        for weight in transformed_weights(layer)
        if codebook_of(weight) and not codebook_of(weight).preserve_zeros
    ]
    lost = [(path, zeros) for path, zeros in lost if zeros >= MANY_ZEROS]
    if lost:
        path, zeros = lost[0]
        warn(
            f"{zeros:.0%} of '{path}' is zero{f' (and {len(lost) - 1} more such weights)' if len(lost) > 1 else ''}, "
            "and will not stay so: zero becomes a shared value like the others, which are trained. Pass "
            "`preserve_sparsity=True` to `cluster_weights` to keep the zeros, or cluster the result of "
            "`prune_low_magnitude` before it is stripped."
        )


def _warn_of_batch_norms(model):
    """Says so if converters will scale the channels of clustered kernels."""
    folds = []
    for fold in find_foldable_batch_norms(model):
        codebooks = [codebook_of(weight) for weight in transformed_weights(fold.linear)]
        if any(codebook and not codebook.per_channel for codebook in codebooks):
            folds.append(fold)
    if folds:
        warn(
            f"'{folds[0].batch_norm.name}' follows '{folds[0].linear.name}', whose weights are clustered now"
            f"{f' (and {len(folds) - 1} more such pairs)' if len(folds) > 1 else ''}. When the model is exported, a "
            "batch normalization is folded into the kernel before it, and each channel scaled: the shared values "
            "become different ones in every channel of the file. Fold first, with "
            "`keras_mot.graph.fold_batch_norm(model)`, or cluster per channel; or quantize, which keeps the values."
        )


def _config(number_of_clusters, initialization, per_channel):
    if isinstance(number_of_clusters, ClusteringConfig):
        if initialization is not None or per_channel:
            raise ValueError(
                "Give the initialisation and `per_channel` in the `ClusteringConfig`, or a number of clusters."
            )
        return number_of_clusters
    given = {} if initialization is None else {"initialization": initialization}
    return ClusteringConfig(number_of_clusters, per_channel=per_channel, **given)


def _technique(preserve_sparsity):
    """What clustering is, as a `Technique`."""

    def transforms(config, weight, stack):
        masked = any(isinstance(transform, Mask) for transform in stack)
        zeros = preserve_sparsity and not masked and not numpy_value(weight.variable).all()
        codebook = config.codebook(masked or zeros, transform_name(weight, "codebook"), weight)
        # The mask is filled from the weight's zeros when the centroids are chosen.
        return [Mask(name=transform_name(weight, "mask")), codebook] if zeros else [codebook]

    return Technique(
        function="cluster_weights",
        verb="cluster",
        done="clustered",
        config_class=ClusteringConfig,
        transform_class=PaletteTransform,
        transforms=transforms,
    )


CLUSTERING = _technique(preserve_sparsity=False)


def _require_zeros(to_cluster):
    items = to_cluster if isinstance(to_cluster, list | tuple) else [to_cluster]
    layers = [item for item in items if isinstance(item, keras.layers.Layer)]
    unbuilt = [layer.name for layer in layers if not layer.built]
    if unbuilt:
        raise ValueError(f"`preserve_sparsity` needs layers with trained weights; {unbuilt} are not built.")
    kernels = [variable for layer in layers for variable in layer.variables if len(variable.shape) > 1]
    if layers and all(numpy_value(kernel).all() for kernel in kernels if kernel.dtype != "bool"):
        masked = any(weight.transform_of(Mask) for layer in layers for weight in transformed_weights(layer))
        if not masked:
            raise ValueError(
                f"`preserve_sparsity` was asked for, but no kernel of {[layer.name for layer in layers]} has a zero "
                "or a mask: prune the model first, or leave the argument out."
            )


def strip_clustering(model: keras.layers.Layer, inplace: bool = False) -> keras.layers.Layer:
    """Makes clustering permanent: returns a plain model whose weights are their centroids.

    Masks and other transforms of the same weights become permanent with it.

    Args:
        model: a model or layer from `cluster_weights`, trained or not.
        inplace: whether to change the given model itself, for models that cannot be rebuilt.

    Returns:
        A plain Keras model, not compiled; once saved, it loads without keras-mot.

    Raises:
        TypeError: if `model` is not a Keras model or layer.
        ValueError: if nothing in it is clustered, or a layer was built after clustering and has not been trained.

    Example:

    ```python
    strip_clustering(clustered).save("small.keras")
    ```
    """
    check_layer(model, "strip_clustering")
    clustered = [weight for weight in transformed_weights(model) if codebook_of(weight)]
    if not clustered:
        raise ValueError(f"'{model.name}' has no clustered weights: pass the result of `cluster_weights`.")
    waiting = [weight.path for weight in clustered if not codebook_of(weight).unique_values()]
    if waiting:
        raise ValueError(
            f"'{waiting[0]}' has no centroids yet: its layer was built within a compiled function, or the model was "
            "rebuilt from its configuration alone. Train it first, or call `keras_mot.update_step(model, 0)`."
        )
    return strip_model(model, inplace)


def cluster_scope() -> contextlib.AbstractContextManager:
    """Under TFMOT's name, a scope for loading models in the middle of clustering.

    Importing this package is all that loading needs, so that the scope does nothing.
    """
    return contextlib.nullcontext()
