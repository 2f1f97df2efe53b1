"""Pruning policies: which layers may be pruned, and which models."""

import abc

import keras


class PruningPolicy(abc.ABC):
    """Says which layers `prune_low_magnitude` may prune; a user's own implements `allow_pruning`.

    Example:

    ```python
    class OnlyDense(keras_mot.sparsity.PruningPolicy):
        def allow_pruning(self, layer: keras.layers.Layer) -> bool:
            return isinstance(layer, keras.layers.Dense)
    ```
    """

    @abc.abstractmethod
    def allow_pruning(self, layer: keras.layers.Layer) -> bool:
        """Whether the weights of `layer` may be pruned."""

    def ensure_model_supports_pruning(self, model: keras.Model) -> None:  # noqa: B027 - a default, not a hole
        """Raises a `ValueError` if `model` as a whole cannot profit; accepts every model by default."""


class PrunableLayer:
    """Optional base class of a user's own layers, under TFMOT's name.

    Any layer with a method `get_prunable_weights` is pruned, whether it inherits from this class or not.
    """

    def get_prunable_weights(self) -> list:
        """The list of the layer's variables, or of their attribute names, that are pruned."""
        raise NotImplementedError(f"{type(self).__name__} does not implement `get_prunable_weights`.")
