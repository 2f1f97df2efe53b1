"""Clustering under TFMOT's names: the base class of a user's own layers."""

from typing import Any


class ClusterableLayer:
    """Optional base class of a user's own layers, under TFMOT's name.

    Any layer with a method `get_clusterable_weights` is clustered, whether it inherits from this class or not.
    """

    def get_clusterable_weights(self) -> list[tuple[str, Any]]:
        """Pairs of a name and the variable of the layer that is clustered."""
        raise NotImplementedError(f"{type(self).__name__} does not implement `get_clusterable_weights`.")
