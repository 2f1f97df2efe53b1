"""TFMOT's wrappers by their names: no layer is wrapped here, and what asks whether one is gets told so."""

from typing import Any

from keras_mot._warnings import warn


class NoWrapper(type):
    """The type of classes that no object is of."""

    def __instancecheck__(cls, instance: Any) -> bool:
        """Never; and warns, for what is done with wrappers only is not done then."""
        warn(f"No layer is a `{cls.__name__}`: {cls.successor}")
        return False

    def __call__(cls, *args: Any, **kwargs: Any):
        """Raises a `TypeError`: there is nothing to be made."""
        raise TypeError(f"There is no `{cls.__name__}` to be made: {cls.successor}")


_KEEPS = "layers are not wrapped here, and keep their names and classes. "
_HAS = "`keras_mot.layers.transformed_weights(model)` has "


class PruneLowMagnitude(metaclass=NoWrapper):
    """What TFMOT wraps pruned layers into; `isinstance` is false for every layer, with a warning."""

    successor = f"{_KEEPS}`keras_mot.sparsity.pruning_report(model)` tells which weights are pruned, and {_HAS}them."


class ClusterWeights(metaclass=NoWrapper):
    """What TFMOT wraps clustered layers into; `isinstance` is false for every layer, with a warning."""

    successor = (
        f"{_KEEPS}`keras_mot.clustering.clustering_report(model)` tells which weights are clustered, and {_HAS}them."
    )


class QuantizeWrapper(metaclass=NoWrapper):
    """What TFMOT wraps quantized layers into; `isinstance` is false for every layer, with a warning."""

    successor = (
        f"{_KEEPS}{_HAS}the rounded weights, and a `keras_mot.quantization.ActivationQuantizer` stands behind a layer."
    )


class QuantizeWrapperV2(QuantizeWrapper, metaclass=NoWrapper):
    """The same."""
