"""Clustering as TFMOT's scripts have it: the function, and the base class of a user's own layers."""

from typing import Any

import keras

from keras_mot import clustering
from keras_mot._keras import flatten_layers
from keras_mot._warnings import warn
from keras_mot.tfmot.single_layers import applied_to_each


def cluster_weights(to_cluster: Any, number_of_clusters: Any, *args: Any, **settings: Any) -> Any:
    """`keras_mot.clustering.cluster_weights`, which see, but that a layer with nothing to cluster is no error.

    Args:
        to_cluster: a model, a layer, or a list of layers. A copy of a layer without weights is returned.
        number_of_clusters: how many different values each weight may have.
        *args: the other arguments.
        **settings: the other arguments.
    """
    for layer in flatten_layers(to_cluster) if isinstance(to_cluster, keras.layers.Layer) else ():
        if hasattr(layer, "get_clusterable_algorithm"):
            warn(
                f"`get_clusterable_algorithm` of '{layer.name}' is not asked: its weights are clustered like all "
                "others. A method of your own is a `keras_mot.clustering.ClusteringMethod`, in a `ClusteringConfig`."
            )
    return applied_to_each(clustering.cluster_weights, to_cluster, number_of_clusters, *args, **settings)


class ClusterableLayer:
    """Optional base class of a user's own layers, under TFMOT's name.

    Any layer with a method `get_clusterable_weights` is clustered, whether it inherits from this class or not.
    """

    def get_clusterable_weights(self) -> list[tuple[str, Any]]:
        """Pairs of a name and the variable of the layer that is clustered."""
        raise NotImplementedError(f"{type(self).__name__} does not implement `get_clusterable_weights`.")
