"""What is quantized how: a scheme for the model, and other settings for some of its layers."""

import dataclasses
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import keras

from keras_mot._keras import flatten_layers
from keras_mot._messages import describe
from keras_mot.graph.functional import as_functional
from keras_mot.graph.rewrite import operations_of
from keras_mot.layers.selecting import check_each_matches, checked_overrides, matches_layer
from keras_mot.quantization.lowering.table import parts_of
from keras_mot.quantization.quantize_config import QuantizeConfig
from keras_mot.quantization.schemes import QuantizationScheme


@dataclasses.dataclass(frozen=True)
class LayerSettings:
    """How an operation is quantized.

    Args:
        scheme: its `QuantizationScheme`.
        config: its `QuantizeConfig`, or `None`.
        asked: whether `overrides` say so, and not only what is said of the whole model.
    """

    scheme: QuantizationScheme
    config: QuantizeConfig | None = None
    asked: bool = False

    def for_operation(self, operation):
        """The settings of one operation; `None` if its config leaves it in floats."""
        if self.config is None or not isinstance(operation, keras.layers.Layer):
            return self
        config = self.config.for_layer(operation)
        if config is self.config:
            return self
        return None if config is None else LayerSettings(config.scheme(self.scheme), config, self.asked)

    def transforms_of(self, key):
        """New transforms that come before the rounding of the weight `key` of the operation."""
        return [] if self.config is None else self.config.transforms_of(key)

    @property
    def activation(self):
        """Arguments of the `ActivationQuantizer` behind the operation."""
        own = {} if self.config is None else self.config.activation_settings()
        return {"learned": self.scheme.learned_scales, **own}


def settings_of_operations(
    operations: Sequence[Any],
    scheme: QuantizationScheme,
    selected: Callable | None,
    overrides: Mapping | None,
    around: Mapping[int, Sequence[Any]] | None = None,
) -> "OperationSettings":
    """The settings of operations, and of those layers within them that are broken down by themselves (`parts_of`).

    Args:
        operations: the operations of a model and of the models nested in it, as the user knows them.
        scheme: the scheme of all operations without others.
        selected: function from an operation to whether it is quantized, or `None` for all.
        overrides: dictionary from a selector to a `QuantizationScheme`, a `QuantizeConfig`, or `None` for floats.
        around: dictionary from the id of an operation to the layers that it is called in. What is said of one of these
            is said of the operation.

    Returns:
        An `OperationSettings`.

    Raises:
        TypeError: if `overrides` is of the wrong type.
        ValueError: if a selector matches no layer, or an override has another number of activation bits.
    """
    overrides = checked_overrides(overrides)
    chosen = {selector: _layer_settings(selector, value, scheme) for selector, value in overrides.items()}
    around = around or {}
    known = [operation for operation, _ in _pairs(operations, LayerSettings(scheme), {}, around)]
    outer = {id(layer): layer for layers in around.values() for layer in layers}.values()
    check_each_matches(chosen, _matches, [*known, *outer], [operation.name for operation in [*known, *outer]])
    pairs = list(_pairs(operations, LayerSettings(scheme), chosen, around, selected))
    left = [operation for operation in known if _chosen(operation, chosen, around, scheme) is None]
    return OperationSettings(pairs, left)


def _chosen(operation, chosen, around, default):
    """What the first selector says that points at an operation, or at a layer around it; `default`, if none does."""
    places = [operation, *around.get(id(operation), ())]
    return next((own for selector, own in chosen.items() if any(_matches(selector, each) for each in places)), default)


def left_in_floats(overrides: Mapping | None) -> Callable[[Any], bool]:
    """Function from a layer of the user's model to whether the first override that points at it leaves it in floats."""
    overrides = checked_overrides(overrides)

    def left(layer):
        return next((own is None for selector, own in overrides.items() if _matches(selector, layer)), False)

    return left


def _pairs(operations, settings, chosen, around, selected=None):
    """Yields (operation, its settings) of operations and of the layers within them.

    Args:
        operations: the operations.
        settings: those of what no selector points at; a layer within another has those of that one.
        chosen: dictionary from selectors to settings.
        around: as of `settings_of_operations`.
        selected: as of `settings_of_operations`.
    """
    for operation in operations:
        own = None
        if selected is None or any(map(selected, [operation, *around.get(id(operation), ())])):
            own = _chosen(operation, chosen, around, settings)
            own = None if own is None else own.for_operation(operation)
        yield operation, own
        if own is not None:
            yield from _pairs(parts_of(operation), own, chosen, {})


class OperationSettings:
    """The `LayerSettings` of operations, by the objects themselves.

    Args:
        pairs: pairs of (operation, its `LayerSettings`, or `None` if it stays in floats).
        left: those operations that `overrides` leave in floats.
    """

    def __init__(self, pairs: Iterable[tuple[Any, LayerSettings | None]], left: Iterable[Any] = ()):
        self._left = {id(operation): operation for operation in left}
        self._pairs = {}  # the operations are kept, so that their ids stay their own
        for operation, settings in pairs:
            self._pairs.setdefault(id(operation), (operation, settings))

    def is_left(self, operation: Any) -> bool:
        """Whether an override says of an operation that it stays in floats, and not `selected` alone."""
        return id(operation) in self._left

    def is_in_floats(self, operation: Any) -> bool:
        """Whether `overrides` or `selected` leave an operation of the model in floats."""
        return id(operation) in self._pairs and self.get(operation) is None

    def get(self, operation: Any) -> LayerSettings | None:
        """The settings of an operation; `None` if it stays in floats, and for operations that are not of the model."""
        return self._pairs.get(id(operation), (operation, None))[1]


def _layer_settings(selector, value, scheme):
    if value is None:
        return None
    if not isinstance(value, (QuantizationScheme, QuantizeConfig)):
        raise TypeError(
            f"`overrides[{selector!r}]` should be a `QuantizationScheme`, a `QuantizeConfig`, or `None` for floats; "
            f"received {describe(value)}."
        )
    config = isinstance(value, QuantizeConfig)
    own = value.scheme(scheme) if config else value
    if not config and (own.preserve_sparsity, own.preserve_clusters) != (False, False):
        raise ValueError(
            f"`overrides[{selector!r}]`: `preserve_sparsity` and `preserve_clusters` belong to the scheme of the whole "
            "model."
        )
    if own.activation_bits != scheme.activation_bits:
        raise ValueError(
            f"`overrides[{selector!r}]` asks for activations of {own.activation_bits} bits in a model with "
            f"{scheme.activation_bits}: kernels take and return activations of one type. Weights may have other bits."
        )
    return LayerSettings(own, value if config else None, asked=True)


def _matches(selector, operation):
    if isinstance(selector, keras.layers.Layer):  # a layer or, for all that is in it, a model
        parts = [*flatten_layers(selector), *(operations_of(selector) if as_functional(selector) is not None else ())]
        return any(part is operation for part in parts)
    if isinstance(operation, keras.layers.Layer):
        return matches_layer(selector, operation)
    return isinstance(selector, str | re.Pattern) and re.search(selector, operation.name) is not None
